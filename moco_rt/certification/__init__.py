"""Promises, computed from scores, costs and labels. NumPy and SciPy only."""
