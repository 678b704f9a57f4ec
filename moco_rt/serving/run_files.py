"""The files that a run writes beside its labels, and what keeps it from writing over those of somebody else."""

from __future__ import annotations

from pathlib import Path

from moco_rt.inputs.text_files import STANDARD

#: What a certificate names as its format.
CERTIFICATE = "moco_rt rows certificate"
#: What a record begins with, whatever its version.
_RECORD_START = b'{"format": "moco_rt run"'
_CERTIFICATE_START = f'{{\n "format": "{CERTIFICATE}"'.encode()


def record_of(out: Path) -> Path:
    """Return the path of the record of a file of labels."""
    return out.with_name(f"{out.name}.run.jsonl")


def certificate_of(out: Path) -> Path:
    """Return the path of the certificate about a file of labels."""
    return out.with_name(f"{out.name}.certificate.json")


def check_out(source: Path, out: Path) -> None:
    """Refuse a destination that is a directory, or where a run would write over its source.

    Args:
        source: what is labelled; `-` is standard input.
        out: the labels; `-` is standard output.

    Raises:
        ValueError: out is a directory; or the source is out itself, its record or its certificate.
    """
    if out.is_dir():
        raise ValueError(f"out must be a file (got the directory {out})")
    if STANDARD in (source, out) or not source.exists():
        return
    if out.exists() and out.samefile(source):
        raise ValueError(f"out must be another file than {source} (got the same)")
    for beside in (record_of(out), certificate_of(out)):
        if beside.exists() and beside.samefile(source):
            raise ValueError(f"out must write no file over {source} (got {out}, which writes {beside.name} too)")


def check_record(out: Path) -> None:
    """Refuse a file in the place of a record that no run has begun; one that was cut off may be a run's.

    Raises:
        ValueError: it is somebody else's.
    """
    start = _start_of(record_of(out), len(_RECORD_START))
    if not _RECORD_START.startswith(start):
        raise _taken(record_of(out), "record")


def check_certificate(out: Path) -> None:
    """Refuse a file in the place of a certificate that no run has written.

    Raises:
        ValueError: it is somebody else's.
    """
    if certificate_of(out).exists() and not _is_certificate(out):
        raise _taken(certificate_of(out), "certificate")


def remove_certificate(out: Path) -> None:
    """Remove the certificate about a file of labels, if there is one; a file that no run has written stays."""
    if _is_certificate(out):
        certificate_of(out).unlink()


def _is_certificate(out: Path) -> bool:
    file = certificate_of(out)
    return file.is_file() and _start_of(file, len(_CERTIFICATE_START)) == _CERTIFICATE_START


def _start_of(file: Path, size: int) -> bytes:
    with file.open("rb") as content:
        return content.read(size)


def _taken(file: Path, what: str) -> ValueError:
    return ValueError(f"{file} must be a {what} of predict or rank (got another file): move it, or choose another out")
