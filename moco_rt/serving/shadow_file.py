"""The file of a shadow: what a policy would have answered, beside the full model's answers."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

from moco_rt.runtime.outputs import Prediction
from moco_rt.serving.label_rows import plain

_log = logging.getLogger(__name__)


class ShadowFile:
    """A file to which a line is added for each text, also by other processes; one that was moved away is begun anew.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = self._open()

    def add(self, early: Prediction, full: Prediction, exits: Sequence[str | None], step: int | None) -> int:
        """Add what a policy would have said of texts, and where their rows would have left.

        Answers are the full model's, and do not wait for a disk: where nothing can be written, the log says so.

        Args:
            early: the policy's answers.
            full: the full model's.
            exits: where each row would have left.
            step: of the policy.

        Returns:
            How many of the lines that were written have another label.
        """
        lines, disagreed = [], 0
        for would_be, answered, site in zip(early, full, exits, strict=True):
            same = would_be["label"] == answered["label"]
            disagreed += not same
            line = {
                "label": answered["label"],
                "prob": plain(answered["prob"]),
                "policy_label": would_be["label"],
                "policy_prob": plain(would_be["prob"]),
                "exit": site,
                "same": same,
                "step": step,
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        try:
            if not self._in_place():
                before, self._file = self._file, self._open()
                before.close()
            self._file.write("".join(lines).encode())  # at once: workers add to one file
        except OSError as error:
            _log.warning("%s: %s", self._path, error)
            return 0
        return disagreed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)

    def _in_place(self) -> bool:
        """Return whether the file still stands at its path, or was moved or removed, as by logrotate."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False
