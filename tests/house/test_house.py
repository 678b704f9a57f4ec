"""The rules of the house that a tool can check: rooms, who may import whom, and that a file can be read in one go."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "moco_rt"
SOURCES = ROOT / "csrc"
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}

#: The rooms, each with the rooms that it may import. A room stands below all that it imports.
ROOMS = {
    "storage": (),
    "statistics": (),
    "certification": ("statistics", "storage"),
    "quantization": (),
    "encoding": ("storage",),
    "inputs": ("encoding", "storage"),
    "architectures": ("quantization", "storage"),
    "policies": ("architectures", "certification", "statistics", "quantization", "inputs", "storage"),
    "runtime": (
        "architectures",
        "policies",
        "inputs",
        "encoding",
        "certification",
        "statistics",
        "quantization",
        "storage",
    ),
    "cascades": (
        "runtime",
        "policies",
        "architectures",
        "inputs",
        "encoding",
        "certification",
        "statistics",
        "quantization",
        "storage",
    ),
    "analysis": ("architectures", "policies", "inputs", "encoding", "statistics", "quantization", "storage"),
    "compression": (
        "runtime",
        "policies",
        "architectures",
        "inputs",
        "encoding",
        "statistics",
        "quantization",
        "storage",
    ),
    "studies": ("runtime", "policies", "architectures", "inputs", "encoding", "certification", "statistics"),
    "ranking": (
        "studies",
        "runtime",
        "policies",
        "architectures",
        "inputs",
        "encoding",
        "certification",
        "statistics",
        "storage",
    ),
    "tuning": (
        "ranking",
        "studies",
        "cascades",
        "runtime",
        "policies",
        "architectures",
        "inputs",
        "encoding",
        "certification",
        "statistics",
        "quantization",
    ),
    "reports": ("runtime", "policies", "analysis", "certification"),
    "serving": (
        "ranking",
        "cascades",
        "runtime",
        "policies",
        "architectures",
        "inputs",
        "encoding",
        "certification",
        "storage",
    ),
    "server": ("serving", "ranking", "cascades", "runtime", "policies", "inputs", "quantization", "storage"),
    "engines": ("tuning", "runtime"),
    "benchmark": ("engines", "tuning", "cascades", "runtime", "architectures", "inputs"),
    "demo": ("tuning", "reports", "runtime", "architectures", "inputs"),
}
#: Modules that stand in no room: the command line, the package's start, and faces that only re-export.
ABOVE = {
    "__init__",
    "__main__",
    "cli",
    "cli_bench",
    "cli_compress",
    "cli_demo",
    "cli_images",
    "cli_options",
    "cli_ranking",
    "cli_recertify",
    "cli_report",
    "cli_serve",
    "fork",
    "torch_early_exit_models",
    "ml_frame",
}

#: Rooms that know nothing of models.
NUMBERS = ("statistics", "certification")
#: Whole rooms, or single modules, that may name a library; nobody else may.
MAY_IMPORT = {
    "moco_rt._C": (
        "architectures",
        "runtime",
        "ranking",
        "studies.recording",
        "tuning.variants",
        "benchmark.contestants",
        "serving.predictor",
        "fork",
        "__init__",
    ),
    "torch": (
        *(room for room in ROOMS if room not in ("statistics", "certification")),
        "cli_options",
        "fork",
    ),
    "sklearn": ("analysis",),
    "matplotlib": ("analysis", "reports", "benchmark.result"),
    "igraph": ("analysis",),
    "pandas": ("analysis",),
    "pyarrow": ("analysis", "inputs.file_formats", "inputs.readers"),
    "fastapi": ("server",),
    "starlette": ("server",),
    "uvicorn": ("server",),
    "pydantic": ("server",),
    "prometheus_client": ("server",),
}
#: Hugging Face's model classes: the adapters, and the demo, which makes a model of its own.
NAME_MODEL_CLASSES = ("architectures", "demo", "engines.adapters", "quantization.hf_quantizer")


def imports(module):
    """Names that a module imports, wherever in the file it does, but for type checkers alone."""
    found = set()
    skipped = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped |= {id(inner) for inner in ast.walk(node)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module):
    return {name for name in imports(module) if name in MODULES} - {module}


def room_of(module):
    """`moco_rt.runtime.model` -> `runtime`; what stands in no room -> its own name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def allowed(module, places):
    """Whether a module is one of these places, or in one of these rooms."""
    name = module.removeprefix("moco_rt.")
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_every_module_stands_in_a_room():
    assert {room_of(module) for module in MODULES} == set(ROOMS) | ABOVE & {room_of(module) for module in MODULES}


def test_rooms_are_in_order():
    above = set()
    for room, below in ROOMS.items():
        assert set(below) <= above, f"{room} imports a room that stands behind it"
        above.add(room)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_import_only_rooms_that_theirs_may(module):
    room = room_of(module)
    if room in ABOVE:
        return
    faces = {name for name in imports(module) if f"{name}.__init__" in MODULES} - {"moco_rt"}
    foreign = {room_of(name) for name in own_imports(module) | faces} - {room}
    assert foreign <= set(ROOMS[room]), module


def test_the_docs_say_which_rooms_may_import_which():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (ROOT / "docs" / "development.md").read_text("utf-8"), re.MULTILINE
    )
    above = []
    for room, said in rows:
        rest, all_above, but = said.partition("all above")
        named = set((but.removeprefix(" but ") if all_above else rest).split(", ")) - {"", "nothing"}
        assert named <= set(above), room
        assert (set(above) - named if all_above else named) == set(ROOMS[room]), room
        above.append(room)
    assert above == list(ROOMS)


def test_rooms_stand_in_the_list_for_contributors():
    listed = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("moco_rt/\n")[2].partition("csrc/")[0]
    assert re.findall(r"^  (\w+)/", listed, re.MULTILINE) == list(ROOMS)


@pytest.mark.parametrize("library", sorted(set(MAY_IMPORT) - {"torch"}))
def test_no_place_for_a_library_is_idle(library):
    users = [module for module in MODULES if any(f"{name}.".startswith(f"{library}.") for name in imports(module))]
    idle = [place for place in MAY_IMPORT[library] if not any(allowed(module, (place,)) for module in users)]
    assert idle == []


def test_no_module_imports_in_a_circle():
    tuple(TopologicalSorter({module: own_imports(module) for module in MODULES}).static_order())


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_has_at_most_twelve_modules(room):
    """In itself: a folder within a room, such as the families, is a shelf of its own."""
    modules = [path for path in (PACKAGE / room).glob("*.py") if path.name != "__init__.py"]
    assert 0 < len(modules) <= 12


@pytest.mark.parametrize("library", sorted(MAY_IMPORT))
def test_libraries_are_imported_where_they_belong(library):
    users = {module for module in MODULES if any(f"{name}.".startswith(f"{library}.") for name in imports(module))}
    assert {module for module in users if not allowed(module, MAY_IMPORT[library])} == set()


def test_only_architectures_know_hugging_faces_model_classes():
    classes = re.compile(r"transformers\.(models|masking_utils|.*(PreTrained|For[A-Z]|AutoModel|Config))")
    for module in MODULES:
        if not allowed(module, NAME_MODEL_CLASSES):
            assert not [name for name in imports(module) if classes.match(name)], module


@pytest.mark.parametrize("face", ["torch_early_exit_models", "ml_frame"])
def test_public_faces_only_re_export(face):
    tree = ast.parse(MODULES[f"moco_rt.{face}"].read_text(encoding="utf-8"))
    assert all(isinstance(node, ast.ImportFrom | ast.Assign | ast.Expr) for node in tree.body)


#: The rooms of csrc, and those that each may include beside itself. From `kernels` only the contract, kernels.h.
CPP_ROOMS = {
    "kernels": set(),
    "tensor": {"kernels"},
    "core": {"kernels", "tensor"},
    "linear": {"kernels", "tensor", "core"},
    "batch": {"kernels", "tensor", "core"},
    "exits": {"kernels", "tensor", "core", "linear", "batch"},
    "transformer": {"kernels", "tensor", "core", "linear", "batch"},
    "bindings": {"kernels", "tensor", "core", "linear", "batch", "exits", "transformer"},
}
CPP = sorted(SOURCES.rglob("*.[ch]*"))


def cpp_room_of(source):
    return source.relative_to(SOURCES).parts[0]


def included(source):
    return re.findall(r'^#include ["<]([^">]+)[">]', source.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_cpp_file_stands_in_a_room_which_says_what_it_is_for():
    assert {path.name for path in SOURCES.iterdir()} == set(CPP_ROOMS)
    assert {cpp_room_of(path) for path in CPP} == set(CPP_ROOMS)
    for room in CPP_ROOMS:
        assert (SOURCES / room / "README.md").read_text(encoding="utf-8").startswith(f"# {room}\n")


@pytest.mark.parametrize("source", CPP, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_cpp_rooms_include_only_what_they_may(source):
    room = cpp_room_of(source)
    for header in included(source):
        other = header.split("/")[0]
        if other in CPP_ROOMS:
            assert (SOURCES / header).is_file(), header
            assert other == room or other in CPP_ROOMS[room], f"{room} includes {header}"
            assert room == "kernels" or other != "kernels" or header == "kernels/kernels.h"
        elif room == "kernels":
            assert header in {"cstdint", "cstring", "cmath", "immintrin.h"}, f"{source.name} is not free of {header}"
        else:
            assert not (source.parent / header).is_file(), f"{header} is included without its room"
            assert other not in {"torch", "ATen", "c10"}, "a build serves every torch"
            assert room == "bindings" or other != "pybind11", "one room knows Python"


def test_cpp_headers_do_not_include_each_other_in_a_circle():
    headers = {path.relative_to(SOURCES).as_posix(): path for path in CPP if path.suffix == ".h"}
    list(TopologicalSorter({name: set(included(path)) & set(headers) for name, path in headers.items()}).static_order())


def test_every_cpp_file_is_built():
    listed = set(re.findall(r"csrc/(\S+\.cpp)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")))
    assert listed == {path.relative_to(SOURCES).as_posix() for path in CPP if path.suffix == ".cpp"}


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.rglob("*.py"), *CPP, *(ROOT / "bench").glob("*.py")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_readme_is_read_in_one_go():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


#: A docstring is a sentence about the thing it names: these words begin a fragment, or a riddle.
FRAGMENT = re.compile(r"(What|Of|Where|Whether|How|Who|When|Whoever) ")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_docstrings_begin_with_a_verb_or_with_what_they_name(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    assert [text.splitlines()[0] for text in docstrings if FRAGMENT.match(text)] == []


#: What makes a tensor on torch's default device, which is the caller's own; and those that have its default dtype, too.
FACTORIES = ("arange", "as_tensor", "asarray", "full", "randint", "randperm", "tensor")
FLOAT_FACTORIES = ("empty", "eye", "linspace", "ones", "rand", "randn", "zeros")
SAID = {f"torch.{name}": {"device"} for name in FACTORIES} | {
    f"torch.{name}": {"device", "dtype"} for name in FLOAT_FACTORIES
}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"moco_rt.demo.classifier"}))  # which sets a default itself
def test_new_tensors_say_where_they_lie_and_what_they_hold(module):
    calls = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    wanted = [(SAID.get(ast.unparse(call.func), set()), call) for call in calls]
    assert [ast.unparse(call) for said, call in wanted if not said <= {word.arg for word in call.keywords}] == []


#: Classes of our own, whose `from_pretrained` ends at one of transformers'.
OUR_LOADERS = re.compile(r"(moco_rt\.|\()?EarlyExit|Cascade$|class_of\(")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_code_is_run_that_lies_with_a_model(module):
    """Where transformers is not told, it asks on standard input, where texts may come from."""
    calls = [
        node for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
    ]
    loads = [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("from_pretrained", "from_config")
        and not OUR_LOADERS.match(ast.unparse(call.func.value))
    ]
    assert [text for text in map(ast.unparse, loads) if "trust_remote_code=False" not in text] == []
