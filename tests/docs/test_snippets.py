"""Every Python and shell snippet of README and docs runs, page by page, from top to bottom."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from image_samples import make_image_classifier, make_lit_pictures, train_image_classifier
from transformers import BertForSequenceClassification, ViTForImageClassification, ViTImageProcessorPil

from moco_rt import cli
from moco_rt.demo.classifier import train_classifier
from moco_rt.demo.corpus import make_corpus

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Fenced blocks that are run, and those that show something else: a file, an answer, a drawing.
RUN, SHOWN = {"python", "sh"}, {"text", "json", "makefile", "cpp"}
#: Shell commands that are not run, and why.
NOT_RUN = {
    "pip install": "changes the environment that the tests run in",
    "make": "targets of the Makefile; CI runs them",
}

#: Pages whose snippets need libraries that only `make test-wheel` installs.
NEEDS = {"scale.md": ("ray", "pyspark")}

pytestmark = pytest.mark.usefixtures("quick_off_ramps")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the number of its first line, its text without indentation."""

    language: str
    line: int
    text: str


def blocks(page):
    """All fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in re.finditer(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE):
        body = re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        found.append(Block(fence[2].strip(), text.count("\n", 0, fence.start()) + 2, body))
    return found


def commands(text):
    """The commands of a shell block: a line each, lines that end in a backslash joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def is_not_run(command):
    """True for a command of the list; variables set in front of it do not matter."""
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    return any(words[: len(prefix.split())] == prefix.split() for prefix in NOT_RUN)


def run_command(command, servers):
    """Run one shell command: `moco-rt` in this process, benchmarks up to their options, all else in a shell.

    A server goes on in a process of its own, which is added to `servers`.
    """
    if is_not_run(command):
        return
    words = shlex.split(command, comments=True)
    if words[:2] == ["moco-rt", "serve"]:
        servers.append(subprocess.Popen([sys.executable, "-m", "moco_rt", *words[1:]]))
        wait_for(words[words.index("--port") + 1], servers[-1])
    elif words[:2] == ["moco-rt", "bench"]:  # minutes, of several engines
        assert cli.main([*words[1:], "--help"]) == 0, command
    elif words[0] == "moco-rt" and not set("|<>&;$") & set(command):
        assert cli.main(words[1:]) == 0, command
    elif words[:1] == ["python"] and words[1].startswith("bench/"):
        check_options(ROOT / words[1], words[2:])
    elif words[:5] == ["cd", "bench", "&&", "python", "-m"]:
        module = ROOT / "bench" / words[5].replace(".", "/")
        check_options(module / "__main__.py" if module.is_dir() else module.with_suffix(".py"), words[6:])
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env={**os.environ, "PATH": path})


def wait_for(port, server):
    """Wait until a server listens."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
            return
        time.sleep(0.1)
    raise AssertionError(f"the server stopped with status {server.returncode}")


def check_options(script, options):
    """Let a benchmark, which would take from minutes to hours, read its options and stop."""
    spec = importlib.util.spec_from_file_location(f"snippet_{script.stem.strip('_')}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *options, "--help"])
        with pytest.raises(SystemExit) as ended:
            module.main()
    assert ended.value.code == 0, f"{script} {options}"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory, tiny_classifier):
    """The folder that readers are told to have: small classifiers, some texts and some images."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for name, seed, rows in (("my-small-model", 1, 300), ("my-model", 0, 500)):
        reviews = make_corpus(rows, seed=seed, hard_share=0.0, median_words=10)
        model, tokenizer = train_classifier([row.text for row in reviews], [row.label for row in reviews], seed=seed)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    model = make_image_classifier(tiny_classifier, ViTForImageClassification, initializer_range=0.1)
    train_image_classifier(model, processor, *make_lit_pictures(400, seed=1)).save_pretrained(folder / "my-image-model")
    processor.save_pretrained(folder / "my-image-model")
    (folder / "photos").mkdir()
    for place, picture in enumerate(make_lit_pictures(500)[0]):
        picture.save(folder / "photos" / f"{place:03}.png")
    tiny_classifier(
        BertForSequenceClassification,
        num_labels=1,
        num_hidden_layers=3,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=len(tokenizer),
    ).save_pretrained(folder / "my-reranker")
    tokenizer.save_pretrained(folder / "my-reranker")
    searches = make_searches(240)
    (folder / "searches.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in searches), encoding="utf-8")
    reviews = make_corpus(1600, seed=2, hard_share=0.0, median_words=10)
    (folder / "reviews.txt").write_text("".join(f"{row.text}\n" for row in reviews), encoding="utf-8")
    return folder


def make_searches(count):
    """Queries with twelve documents each, and the scores of a search that knows nothing."""
    texts = [row.text for row in make_corpus(13 * count, seed=3, hard_share=0.0, median_words=6)]
    rng = np.random.default_rng(0)
    return [
        {
            "query": f"{texts[13 * place]} {place}",
            "documents": texts[13 * place + 1 : 13 * place + 13],
            "scores": rng.normal(size=12).round(3).tolist(),
        }
        for place in range(count)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_snippets_of_a_page_run(page, stand_ins, tmp_path, monkeypatch):
    shutil.copytree(stand_ins, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for library in NEEDS.get(page.name, ()):
        pytest.importorskip(library, reason="`make test-wheel` installs it")
    names, servers = {"__name__": "snippet"}, []
    try:
        for block in blocks(page):
            if block.language == "python":
                # Empty lines in front, so that a traceback names the line of the page.
                exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
            elif block.language == "sh":
                for command in commands(block.text):
                    run_command(command, servers)
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def test_every_block_says_what_it_is():
    """A snippet under another name, `bash` or none, would not be run."""
    for page in PAGES:
        assert {block.language for block in blocks(page)} <= RUN | SHOWN, page
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)), page


def test_every_exemption_is_used():
    everything = [command for page in PAGES for block in blocks(page) for command in commands(block.text)]
    for prefix in NOT_RUN:
        assert any(command.startswith(f"{prefix} ") for command in everything), prefix


def test_every_benchmark_says_how_it_is_used():
    for script in sorted((ROOT / "bench").glob("[a-z]*.py")):
        if "__main__" in script.read_text(encoding="utf-8"):
            check_options(script, [])
