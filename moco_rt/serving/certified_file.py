"""Labels of a file with a promise about its rows, and the file that says so beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moco_rt.certification.rows_certificate import RowsCertificate
from moco_rt.certification.these_rows import RowsWish
from moco_rt.inputs.text_files import STANDARD, Row
from moco_rt.inputs.texts import TextInput
from moco_rt.runtime.classifiers.certified import Label, certify
from moco_rt.runtime.classifiers.comparison import Comparison
from moco_rt.runtime.outputs import Prediction
from moco_rt.serving.label_output import is_stream
from moco_rt.serving.run_files import CERTIFICATE, certificate_of, check_certificate, remove_certificate
from moco_rt.serving.run_record import CERTIFIED_ROWS
from moco_rt.storage import replacing_file
from moco_rt.storage.manifest import read_manifest, whole

_VERSION = 1


def read_certificate(out: Path) -> RowsCertificate:
    """Read the certificate that lies beside a file of labels.

    Raises:
        OSError: there is none.
        ValueError: it is another file.
    """
    file = certificate_of(out)
    about = read_manifest(file, CERTIFICATE, (_VERSION,))
    with whole(file):
        return RowsCertificate.of(about["certificate"])


class CertifiedFile:
    """The rows of a file as they were before the first was labelled, and the promise about them.

    What is drawn depends on their number, the wish and what is known of the policies, which the record names, and the
    answers on nothing but the rows: a run that goes on where another was interrupted draws the same rows, runs them
    anew, and comes to the same policy.

    Args:
        comparison: of the policies with the given model, see `comparison_of`.
        wish: the promise.
        source: the texts.
        out: the labels.
        open_source: opens the source for its rows.
        answer: labels texts with an answer.

    Raises:
        OSError: the source is not there.
        ValueError: source or out is no file, or a row of the source is not what it must be, or there is none; or no
            run has written the file in the place of the certificate.
    """

    def __init__(
        self,
        comparison: Comparison,
        wish: RowsWish,
        source: Path,
        out: Path,
        open_source: Callable[[], AbstractContextManager[Iterator[Row]]],
        answer: Label,
    ):
        self._comparison, self._wish, self._source, self._out = comparison, wish, source, out
        self._open_source, self._answer = open_source, answer
        if source == STANDARD or (source.exists() and not source.is_file()):
            raise ValueError(f"data must be a file, which is read more than once, to be certified (got {source})")
        if is_stream(out):
            raise ValueError(f"out must be a file, beside which a certificate lies, to be certified (got {out})")
        check_certificate(out)
        self._hash = _hash(source)
        self._rows = sum(1 for _ in self._texts())
        if self._rows == 0:
            raise ValueError(f"{source} must hold at least one text to be certified (got none)")
        self._certificate: RowsCertificate | None = None

    def made_with(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return what labels are made with, where `described` is what they are without a promise."""
        wish = self._wish
        about = {"certify": wish.agreement, "confidence": wish.confidence, "seed": wish.seed}
        return {**described, **about, CERTIFIED_ROWS: self._rows, "source": self._hash}

    def label(self, texts: Iterator[TextInput], start: int) -> Iterator[Prediction]:
        """Label the texts from place `start` on; nothing is run where all have been, and the certificate is there."""
        if start == self._rows and certificate_of(self._out).exists():
            return
        remove_certificate(self._out)
        run = certify(self._comparison, self._rows, self._texts, self._answer, self._wish)
        self._certificate = run.certificate
        yield from run.parts(texts, start)

    def finish(self, describe: Callable[[], dict[str, Any]]) -> None:
        """Write the certificate, now that all rows are labelled, unless it lies there; describe: see `made_with`.

        Raises:
            OSError: it cannot be written.
            ValueError: the source is another than at the start.
        """
        if self._certificate is None:
            return
        if _hash(self._source) != self._hash:
            raise ValueError(f"{self._source} must stay as it is while it is labelled (got another file): start anew")
        about = {
            "format": CERTIFICATE,
            "version": _VERSION,
            "says": str(self._certificate),
            "certificate": asdict(self._certificate),
            "made_with": self.made_with(describe()),
        }
        with replacing_file(certificate_of(self._out)) as fresh:
            fresh.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def _texts(self) -> Iterator[TextInput]:
        with self._open_source() as rows:
            for row in rows:
                yield row.text


def _hash(source: Path) -> str:
    """Return sha256 over the bytes of a file."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
