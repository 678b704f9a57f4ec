"""The table of captured representations, as it is imported by name."""

from moco_rt.analysis.frame import MLFrame

__all__ = ["MLFrame"]
