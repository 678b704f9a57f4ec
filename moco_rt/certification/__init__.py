"""Certification: the path of policies, and how far along it a promise holds. NumPy and SciPy only."""

from moco_rt.certification.certificate import Certificate, ExitCount
from moco_rt.certification.rows_certificate import RowsCertificate

__all__ = [
    "Certificate",
    "ExitCount",
    "RowsCertificate",
]
