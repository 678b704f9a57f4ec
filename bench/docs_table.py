"""Puts the tables that benchmarks make into docs/benchmarks.md, each between two markers."""

from __future__ import annotations

from common import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"


def marked(name: str, table: str) -> str:
    """Wrap a table in its markers, `<!-- name: begin -->` and `<!-- name: end -->`."""
    return f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->"


def put_into_docs(name: str, table: str) -> None:
    """Replace the table between the two markers of that name."""
    before, rest = PAGE.read_text(encoding="utf-8").split(f"<!-- {name}: begin -->")
    after = rest.split(f"<!-- {name}: end -->")[1]
    PAGE.write_text(before + marked(name, table) + after, encoding="utf-8")
