"""Captured frames, rules by hand, and the graph of neighbours: what the extra `analysis` is for."""

from importlib.util import find_spec

_MISSING = [name for name in ("igraph", "matplotlib", "pandas", "sklearn") if find_spec(name) is None]
if _MISSING:
    raise ImportError(
        f"analysis, reports and the demo need {', '.join(_MISSING)}: pip install 'moco-rt[analysis]'", name=_MISSING[0]
    )
