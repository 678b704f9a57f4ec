"""docs/dependencies.md beside pyproject.toml: the same packages, in the same versions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def required():
    """Packages with versions and extra, as pyproject.toml lists them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    always = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)[1]
    extras = re.search(r"^\[project\.optional-dependencies\]\n(.*?)^\[", project, re.MULTILINE | re.DOTALL)[1]
    listed = [("", always), *re.findall(r"^([\w-]+) = \[(.*?)\]$", extras, re.MULTILINE)]
    return {(*package, extra) for extra, text in listed for package in re.findall(r'"([\w-]+(?:\[\w+\])?)(.*?)"', text)}


def test_table_has_every_dependency_and_no_other():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in page.splitlines() if line.startswith("|")]
    assert {row[:3] for row in rows[2:]} == required()
    assert all(cell for row in rows[2:] for cell in row[3:]), "each has a licence and a use"


@pytest.mark.parametrize("package", sorted(required()), ids=lambda package: package[0])
def test_versions_have_a_lower_bound(package):
    assert re.match(r"[>=]=\d", package[1])
