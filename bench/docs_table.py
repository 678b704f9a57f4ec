"""Puts the tables that benchmarks make into README.md and docs/benchmarks.md, each between two markers."""

from __future__ import annotations

from pathlib import Path

from common import ROOT

PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"


def marked(name: str, table: str) -> str:
    """Wrap a table in its markers, `<!-- name: begin -->` and `<!-- name: end -->`."""
    return f"<!-- {name}: begin -->\n{table}\n<!-- {name}: end -->"


def put_into_docs(name: str, table: str, page: Path = PAGE) -> None:
    """Replace what stands on a page between the two markers of that name."""
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {name}: begin -->")
    after = rest.split(f"<!-- {name}: end -->")[1]
    page.write_text(before + marked(name, table) + after, encoding="utf-8")
