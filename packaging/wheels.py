"""Builds wheels, tags, checks and tries them, and lists what comes with them: `make wheels`."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
MOST_BYTES = 3_000_000
#: What lists the packages of an environment in CycloneDX's form.
LISTER = "cyclonedx-bom>=7.5,<8"
#: What a wheel must do where there is neither a compiler nor the sources.
SMOKE = """
import torch, moco_rt
from transformers import BertConfig, BertForSequenceClassification
torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(num_hidden_layers=2, hidden_size=64, num_attention_heads=2, intermediate_size=128)
).eval()
ids = torch.randint(5, 1000, (7, 12))
with torch.no_grad():
    expected = model(ids).logits
fast = moco_rt.EarlyExitTextClassificationModel(model, backend="packed")
torch.testing.assert_close(fast(ids).logits, expected, atol=1e-5, rtol=1e-4)
print("answers as Hugging Face does, from", moco_rt.__file__)
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a command, and return what it says."""
    return subprocess.run(
        [str(word) for word in command], check=True, text=True, stdout=subprocess.PIPE, **options
    ).stdout


def build(python: str, folder: Path) -> Path:
    """Build the wheel of an interpreter, stripped; what the build needs comes into an environment of its own."""
    options = ["--no-deps", "--config-settings", "install.strip=true"]
    run(python, "-m", "pip", "wheel", "--quiet", *options, "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def tag(wheel: Path, folder: Path) -> Path:
    """Give the wheel the oldest manylinux tag that its symbols allow."""
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel)
    return next(folder.glob("*manylinux*.whl"))


def check(wheel: Path) -> str:
    """Check size and contents, and return a line about them.

    Raises:
        ValueError: the wheel is too large, brings libraries or sources, or its extension is not stripped or linked with
            torch.
    """
    size = wheel.stat().st_size
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        libraries = [name for name in names if ".so" in name]
        if len(libraries) != 1 or any(name.endswith((".cpp", ".h")) for name in names):
            raise ValueError(f"a wheel must hold one library and no sources (got {', '.join(libraries)})")
        extension = archive.extract(libraries[0], folder)
        sections = run("readelf", "--sections", "--wide", extension)
        needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "--dynamic", extension))
        symbols = run("readelf", "--dyn-syms", "--wide", extension)
    if size > MOST_BYTES:
        raise ValueError(f"a wheel must have at most {MOST_BYTES:,} bytes (got {size:,})")
    if " .symtab" in sections or " .debug_info" in sections:
        raise ValueError("the extension must be stripped (got symbols or debug information)")
    if any(re.match("libtorch|libc10|libgomp", library) for library in needed):
        raise ValueError(f"the extension must not be linked with torch (got {', '.join(needed)})")
    newest = {kind: max(found, key=_number) for kind in ("GLIBC", "GLIBCXX") if (found := _versions(kind, symbols))}
    return f"{wheel.name}: {size:,} bytes, needs {', '.join(needed)}; " + ", ".join(
        f"{k}_{v}" for k, v in newest.items()
    )


def _versions(kind: str, symbols: str) -> list[str]:
    return re.findall(rf"@{kind}_([0-9.]+)", symbols)


def _number(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def environment(folder: Path, python: str, *requirements: str | Path) -> Path:
    """Make an environment that holds these and what they bring, not even pip, and return where its commands lie."""
    run(python, "-m", "venv", "--without-pip", folder)
    binaries = folder / "bin"
    for requirement in requirements:
        run(sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", requirement)
    return binaries


def try_out(wheel: Path, folder: Path, python: str, torch: str) -> Path:
    """Install the wheel into an empty environment, run it there without a compiler in sight, and return its Python."""
    binaries = environment(folder / "venv", python, f"torch=={torch}", wheel)
    alone = {"PATH": str(binaries), "HOME": str(folder), "CC": "/bin/false", "CXX": "/bin/false"}
    print(run(binaries / "python", "-c", SMOKE, cwd=folder, env=alone).strip())
    print(run(binaries / "moco-rt", "--version", cwd=folder, env=alone).strip())
    return binaries / "python"


def list_packages(python: Path, wheel: Path, folder: Path) -> Path:
    """Write a list (SBOM) of all packages that a Python finds, with versions and licences, and return its path."""
    listing = wheel.with_suffix(".cdx.json")
    # In an environment of its own, or it would list itself.
    lister = environment(folder / "lister", sys.executable, LISTER) / "cyclonedx-py"
    options = ["--mc-type", "library", "--gather-license-texts", "--output-reproducible", "--output-file", listing]
    run(lister, "environment", "--pyproject", ROOT / "pyproject.toml", *options, python)
    return listing


def make(python: str, torch: str) -> None:
    """Make the wheel of an interpreter, and try it beside a version of torch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain").mkdir()
        (folder / "tagged").mkdir()
        wheel = tag(build(python, folder / "plain"), folder / "tagged")
        print(check(wheel))
        listing = list_packages(try_out(wheel, folder, python, torch), wheel, folder)
        DIST.mkdir(exist_ok=True)
        print("built", shutil.copy2(wheel, DIST), "and", shutil.copy2(listing, DIST))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", default=[sys.executable], help="interpreters, a wheel for each")
    parser.add_argument("--torch", default=version("torch").partition("+")[0], help="the version to try them beside")
    options = parser.parse_args()
    for python in options.pythons:
        make(python, options.torch)


if __name__ == "__main__":
    main()
