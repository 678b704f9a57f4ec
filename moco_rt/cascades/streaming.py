"""Texts that arrive one by one at a cascade: read in a thread, answered as soon as they are done."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from moco_rt.cascades.queues import Finished, QueuedText, TierQueues
from moco_rt.inputs.texts import TextInput

#: Texts that are read ahead.
_AHEAD = 4096
_END = object()


def stream_answers(queues: TierQueues, texts: Iterable[TextInput], max_wait: float) -> Iterator[Finished]:
    """Implement `Cascade.stream`; max_wait is in seconds."""
    arrived: queue.Queue[Any] = queue.Queue(maxsize=_AHEAD)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                arrived.put(item, timeout=0.1)
                break

    def read() -> None:
        try:
            for place, text in enumerate(texts):
                put(QueuedText(place, text, None, time.monotonic() + max_wait))
                if stopped.is_set():
                    return
            put(_END)
        except BaseException as error:  # whatever it is, the caller must not wait for more
            put(error)

    threading.Thread(target=read, daemon=True, name="moco_rt stream").start()
    end: Any = None
    try:
        while end is None:
            items = _take(arrived, queues.deadline())
            end = items.pop() if items and not isinstance(items[-1], QueuedText) else None
            queues.add(items)
            yield from queues.run_due(time.monotonic())
        yield from queues.flush()
        if end is not _END:
            raise end
    finally:
        stopped.set()


def _take(arrived: queue.Queue[Any], deadline: float) -> list[Any]:
    """Take all items that have arrived; wait for the first of them until the deadline."""
    wait = deadline - time.monotonic()
    items = []
    try:
        items.append(arrived.get(timeout=None if wait == math.inf else max(wait, 0)))
        while len(items) < _AHEAD:
            items.append(arrived.get_nowait())
    except queue.Empty:
        pass
    return items
