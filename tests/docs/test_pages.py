"""README and docs as a reader meets them: what is linked is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moco_rt.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def targets(page):
    """What a page links to in this repository, without anchors."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return {link.partition("#")[0] for link in links if "://" not in link} - {""}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert {target for target in targets(page) if not (page.parent / target).exists()} == set()


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    named = set(re.findall(r"[\w-]+\.md", navigation))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_first_page_leads_to_all_others():
    assert targets(ROOT / "docs" / "index.md") == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_every_command_is_in_the_table():
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert sorted(re.findall(r"^\| `moco-rt (\w+)` \|", text, re.MULTILINE)) == sorted(commands)


def test_pages_load_nothing_from_the_network():
    pictures = [*(ROOT / "docs").rglob("*.svg")]
    assert pictures
    for file in pictures:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(href|src|url\()\s*=?\s*[\"']?https?:", text), file
