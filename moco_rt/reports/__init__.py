"""Comparisons, plots and the HTML page."""

import moco_rt.analysis  # noqa: F401  (says which extra to install, before matplotlib is looked for)
