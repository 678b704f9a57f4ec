"""Promises, computed from scores, costs and labels. NumPy and SciPy only."""

from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.guarantee import Guarantee

__all__ = [
    "Certificate",
    "ExitCount",
    "Guarantee",
]
