"""Metrics for Prometheus, by the names of text-embeddings-inference, and of exits and monitors by names of our own.

All are gauges or histograms, those that only rise too: the library would name a counter `te_request_count_total`. Of
several workers each writes into a folder that `PROMETHEUS_MULTIPROC_DIR` names, and any of them tells the sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from moco_rt.server.answering import Served
from moco_rt.server.batching import Batcher, Job

_SECONDS = [1e-5 * 1.5**k for k in range(1, 36)]
_SIZES = [2.0**k for k in range(15)]


class Metrics:
    """Counts of requests and batches; what `render` returns is what `/metrics` says.

    Args:
        served: whose step and evidence are told.
        batcher: whose queue is told.
    """

    def __init__(self, served: Served, batcher: Batcher):
        self._served, self._batcher = served, batcher
        self._folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # where workers meet; None: there is one
        self._registry = CollectorRegistry()
        # Found once by their labels: the library's own search costs more than the count.
        self._requests = cache(self._gauge("te_request_count", "requests that were answered", "method").labels)
        self._successes = cache(self._gauge("te_request_success", "requests that were answered", "method").labels)
        self._failures = self._gauge("te_request_failure", "requests that were refused or failed", "err")
        self._inputs = self._gauge("te_predict_count", "texts and pairs")
        self._duration = self._histogram("te_request_duration", "seconds of a request", _SECONDS)
        self._queue = self._histogram("te_request_queue_duration", "seconds until its batch began", _SECONDS)
        self._inference = self._histogram(
            "te_request_inference_duration", "seconds of its batch, with its texts' tokenisation", _SECONDS
        )
        self._size = self._histogram("te_batch_next_size", "texts of a batch, by request", _SIZES)
        self._waiting = self._gauge("te_queue_size", "requests that wait", mode="livesum")
        self._exits = cache(self._gauge("moco_rt_exits", "rows by the site where they left", "site").labels)
        self._disagreed = self._gauge("moco_rt_shadow_disagreed", "rows of which the policy says another label")
        self._step = self._gauge(
            "moco_rt_policy_step", "place on the certified path, the lowest in use", mode="livemin"
        )
        self._rows = self._gauge("moco_rt_monitor_rows", "rows, or queries, that were checked, by exit", "exit")
        self._wrong = self._gauge("moco_rt_monitor_wrong", "those of them that differ", "exit")
        self._evidence = self._gauge(
            "moco_rt_monitor_evidence", "against an exit, of one worker", "exit", mode="livemax"
        )

    def _gauge(
        self, name: str, words: str, *labels: str, mode: Literal["sum", "livesum", "livemin", "livemax"] = "sum"
    ) -> Gauge:
        return Gauge(name, words, labels, registry=self._registry, multiprocess_mode=mode)

    def _histogram(self, name: str, words: str, buckets: list[float]) -> Histogram:
        return Histogram(name, words, buckets=buckets, registry=self._registry)

    def answered(self, job: Job, method: str, seconds: float, exits: Iterable[str | None]) -> None:
        """Count a request that was answered.

        Args:
            job: its inputs.
            method: `single` or `batch`.
            seconds: it took.
            exits: the sites where its rows left; None of one that ran to the end.
        """
        self._requests(method).inc()
        self._successes(method).inc()
        self._duration.observe(seconds)
        self._queue.observe(job.waited)
        self._inference.observe(job.computed)
        self._size.observe(job.batch_inputs)
        for site in exits:
            self._inputs.inc()
            self._exits(site or "end").inc()
        if self._folder is not None:  # another worker may be asked what this one knows
            self._tell_of_model()

    def refused(self, error: str) -> None:
        """Count a request that was not answered."""
        self._failures.labels(error).inc()

    def _tell_of_model(self) -> None:
        self._waiting.set(self._batcher.waiting)
        self._disagreed.set(self._served.disagreed)
        if self._served.step is not None:
            self._step.set(self._served.step)
        for place, process in enumerate(self._served.evidence):
            self._rows.labels(f"{place}").set(process.rows)
            self._wrong.labels(f"{place}").set(process.wrong)
            self._evidence.labels(f"{place}").set(process.evidence)

    def render(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        self._tell_of_model()
        if self._folder is None:
            return generate_latest(self._registry)
        for file in Path(self._folder).glob("gauge_live*_*.db"):
            process = file.stem.rpartition("_")[2]
            if not Path("/proc", process).exists():
                mark_process_dead(process)  # type: ignore[no-untyped-call]
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)
