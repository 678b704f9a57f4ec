"""Engines that run a classifier: ours and those of others, behind one face, so that they can be compared."""

from moco_rt.engines.batch import Batch
from moco_rt.engines.registry import BASELINE, ENGINES, OURS, interpreter, is_rival, precision
from moco_rt.engines.session import Conversion, Session
from moco_rt.engines.worker import Crew, Worker, WorkerFailedError

__all__ = [
    "BASELINE",
    "ENGINES",
    "OURS",
    "Batch",
    "Conversion",
    "Crew",
    "Session",
    "Worker",
    "WorkerFailedError",
    "interpreter",
    "is_rival",
    "precision",
]
