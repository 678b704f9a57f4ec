"""Comparisons, plots and the HTML page."""
