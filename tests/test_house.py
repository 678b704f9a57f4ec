"""The house rules that a tool can check: who imports whom, and that one file does one job."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "moco_rt"
SOURCES = ROOT / "csrc"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}

#: The modules that drive a batch, and those that hand it a model's weights.
IMPORT_EXTENSION = {
    *(
        f"moco_rt.{name}"
        for name in (
            "__init__",
            "fork",
            "exits",
            "reference",
            "runtime",
            "torch_early_exit_models",
            "capture",
            "record",
            "monitor",
        )
    ),
    *(f"moco_rt.architectures.{name}" for name in ("architecture", "bert_like", "roberta", "electra", "distilbert")),
}
#: Hugging Face's model classes: the adapters, and the demo, which makes a model of its own.
IMPORT_MODEL_CLASSES = ("moco_rt.architectures", "moco_rt.demo_data")


def imports(module):
    """What a module imports from this package and others, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module):
    named = {name for name in imports(module) if name in MODULES or f"{name}.__init__" in MODULES}
    return {f"{name}.__init__" if f"{name}.__init__" in MODULES else name for name in named} - {module}


#: From the ground up: a module imports only what stands before it.
LADDER = [
    f"moco_rt.{name}"
    for name in (
        *("_build", "fork", "int8_linear", "architectures.int8", "sites", "rules", "calibrate", "certificate"),
        *("answers", "findings", "policy"),
        *("policy_files", "monitor"),
        *("batches", "inputs", "text_files"),
        *("architectures.architecture", "architectures.bert_like"),
        *(f"architectures.{family}" for family in ("bert", "roberta", "electra", "distilbert", "__init__")),
        *("int8_models", "pretrained", "exits", "reference", "runtime", "prediction", "torch_early_exit_models"),
        *("tiers", "pools", "arrivals", "cascade_files", "cascade", "packs"),
        *("stream", "record", "distill", "costs", "search", "selection", "study", "presets", "quantization"),
        *("cascade_study", "accelerate"),
        *("columns", "frame_files", "ml_frame", "capture"),
        *("report", "pictures", "report_page", "analytics"),
        *("__init__", "demo_data", "demo", "cli"),
    )
]


def test_every_module_has_its_place_in_the_house():
    assert set(MODULES) == set(LADDER) - {"moco_rt._build"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_import_only_what_stands_below_them(module):
    below = set(LADDER[: LADDER.index(module)])
    # `from moco_rt import x` names the package too, which imports all that users need.
    packages = (
        {"moco_rt.__init__", "moco_rt.architectures.__init__"} if "architectures" in module else {"moco_rt.__init__"}
    )
    assert own_imports(module) - packages <= below


def test_the_extension_is_imported_by_those_who_drive_a_batch():
    users = {module for module in MODULES if any(name.startswith("moco_rt._C") for name in imports(module))}
    assert users == IMPORT_EXTENSION


def test_only_architectures_know_hugging_faces_model_classes():
    classes = re.compile(r"transformers\.(models|masking_utils|.*(PreTrained|For[A-Z]|AutoModel|Config))")
    for module in MODULES:
        if not module.startswith(IMPORT_MODEL_CLASSES):
            assert not [name for name in imports(module) if classes.match(name)], module


#: The rooms of csrc, and those that each may include beside itself. From `kernels` only the contract, kernels.h.
ROOMS = {
    "kernels": set(),
    "core": {"kernels"},
    "linear": {"kernels", "core"},
    "batch": {"kernels", "core"},
    "exits": {"kernels", "core", "linear", "batch"},
    "transformer": {"kernels", "core", "linear", "batch"},
    "bindings": {"kernels", "core", "linear", "batch", "exits", "transformer"},
}
CPP = sorted(SOURCES.rglob("*.[ch]*"))


def included(source):
    return re.findall(r'^#include ["<]([^">]+)[">]', source.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_cpp_file_stands_in_a_room_which_says_what_it_is_for():
    assert {path.name for path in SOURCES.iterdir()} == set(ROOMS)
    assert {path.parent.name for path in CPP} == set(ROOMS)
    for room in ROOMS:
        assert (SOURCES / room / "README.md").read_text(encoding="utf-8").startswith(f"# {room}\n")


@pytest.mark.parametrize("source", CPP, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_cpp_rooms_include_only_what_they_may(source):
    room = source.parent.name
    for header in included(source):
        other = header.split("/")[0]
        if other in ROOMS:
            assert (SOURCES / header).is_file(), header
            assert other == room or other in ROOMS[room], f"{room} includes {header}"
            assert room == "kernels" or other != "kernels" or header == "kernels/kernels.h"
        elif room == "kernels":
            assert header in {"cstdint", "cstring", "cmath"}, f"{source.name} is not free of {header}"
        else:
            assert not (source.parent / header).is_file(), f"{header} is included without its room"
            assert header != "torch/extension.h"


def test_cpp_headers_do_not_include_each_other_in_a_circle():
    headers = {path.relative_to(SOURCES).as_posix(): path for path in CPP if path.suffix == ".h"}
    list(TopologicalSorter({name: set(included(path)) & set(headers) for name, path in headers.items()}).static_order())


def test_every_cpp_file_is_built():
    listed = set(re.findall(r"csrc/(\S+\.cpp)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))
    assert listed == {path.relative_to(SOURCES).as_posix() for path in CPP if path.suffix == ".cpp"}


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.rglob("*.py"), *CPP, *(ROOT / "bench").glob("*.py")],
    ids=lambda path: path.name,
)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
