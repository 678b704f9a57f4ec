"""Many texts to labels, with a cascade: rows wait for full batches of each tier across the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from moco_rt.cascades.queues import Finished, QueuedText, TierQueues, gather
from moco_rt.cascades.tier import Tier
from moco_rt.inputs.prefetch import CHUNK_TEXTS, prefetch_encoded
from moco_rt.inputs.texts import TextInput, Texts, take_texts
from moco_rt.runtime.outputs import Prediction, RowNames, select


class InOrder:
    """Rows that are finished in any order, given away in the order of their texts.

    Args:
        classes: C.
    """

    def __init__(self, classes: int):
        self._classes = classes
        self._start = 0  # of what has not been given away
        self._found: list[Finished] = []

    def add(self, finished: Finished) -> None:
        """Take places among the texts, none of which has been given away, and what was predicted for them."""
        self._found.append(finished)

    def complete(self) -> Prediction | None:
        """Give away all texts before the first that is not finished; None: that one is the next."""
        places = np.sort(np.concatenate([np.array(places, int) for places, _ in self._found] or [np.empty(0, int)]))
        count = int((places == self._start + np.arange(len(places))).sum())
        return self._take(count) if count else None

    def rest(self, end: int) -> Prediction | None:
        """Give away all texts before place `end`, those that are not finished with label -1; None: there are none."""
        return None if end == self._start else self._take(end - self._start)

    def _take(self, count: int) -> Prediction:
        now, later = [], []
        for places, part in self._found:
            mine = torch.tensor(places, device="cpu") < self._start + count
            now.append(_rows(places, part, mine, self._start))
            later.append(_rows(places, part, ~mine, 0))
        self._found = [(places, part) for places, part in later if places]
        self._start += count
        return gather([(places, part) for places, part in now if places], count, self._classes)


def predict_parts(
    cascade: Any, texts: Texts, on_error: str = "raise", columns: str | Sequence[str] | None = None
) -> Iterator[Prediction]:
    """Label texts part by part, in their order; a part comes as soon as all its texts are finished.

    Args:
        cascade: a `Cascade`.
        texts: as for `Cascade.predict`; an iterator is read one chunk ahead.
        on_error: see `Cascade.predict`.
        columns: see `Cascade.predict`.

    Raises:
        TierError: a tier failed; its `prediction` holds what was finished of the texts after the last part.
        TypeError: texts, or one of them, is of another kind.
        ValueError: on_error is unknown, a text is not valid Unicode, or a row has none.
        Exception: whatever reading the texts raises, after those before it have been answered.
    """
    classes = cascade.config.num_labels
    full_at, names = [CHUNK_TEXTS] * len(cascade.tiers), row_names(cascade)
    queues = TierQueues(cascade.tiers, full_at, classes, on_error, names, cascade.watched_by)
    taken = take_texts(texts, columns, allow_surrogates=on_error == "skip")
    return _parts(cascade.tiers[0], queues, taken, classes)


def predict_together(cascade: Any, texts: Sequence[TextInput]) -> Prediction:
    """Label a few texts, as valid as `list_texts` returns them, in the calling thread: one batch after the other.

    Raises:
        TierError: a tier failed.
    """
    tiers, classes = cascade.tiers, cascade.config.num_labels
    queues = TierQueues(tiers, [len(texts) + 1] * len(tiers), classes, "raise", row_names(cascade), cascade.watched_by)
    queues.add([QueuedText(place, text, None) for place, text in enumerate(texts)])
    return gather(list(queues.flush()), len(texts), classes)


def row_names(cascade: Any) -> RowNames:
    """Name the classes of a cascade and the sites of its tiers; a function has none."""
    sites = [getattr(tier.model, "sites", ()) for tier in cascade.tiers]
    return RowNames(cascade.config.id2label, sites, tiers=True)


def _parts(first: Tier, queues: TierQueues, texts: Iterable[TextInput], classes: int) -> Iterator[Prediction]:
    in_order = InOrder(classes)
    count = 0
    total = len(texts) if isinstance(texts, Sized) else None
    failure: Exception | None = None
    with tqdm(total=total, unit="text", delay=2, leave=False) as progress:

        def keep(finished: Iterable[Finished]) -> Iterator[Prediction]:
            for some in finished:
                in_order.add(some)
                progress.update(len(some[0]))
            part = in_order.complete()
            if part is not None:
                yield part

        chunks = prefetch_encoded(texts, lambda chunk: _try_to_encode(first, chunk))
        try:
            while True:
                try:
                    start, chunk, rows = next(chunks)
                except StopIteration:
                    break
                except Exception as error:  # while reading: what was read before is answered first
                    failure = error
                    break
                count += len(chunk)
                numbered = enumerate(zip(chunk, rows, strict=True), start)
                queues.add([QueuedText(place, text, row) for place, (text, row) in numbered])
                yield from keep(queues.run_due())
            yield from keep(queues.flush())
        except (Exception, KeyboardInterrupt) as error:
            vars(error)["prediction"] = in_order.rest(count)
            raise
    if failure is not None:
        raise failure


def _try_to_encode(tier: Tier, texts: list[TextInput]) -> Sequence[Any]:
    """Encode for the first tier; where that fails, `TierQueues` will meet the same error, and name the tier."""
    try:
        return tier.encode(texts)
    except Exception:
        return [None] * len(texts)


def _rows(places: list[int], part: Prediction, mask: torch.Tensor, start: int) -> Finished:
    """Select rows by a mask (n,); their places are counted from `start`."""
    return [place - start for place, taken in zip(places, mask.tolist(), strict=True) if taken], select(part, mask)
