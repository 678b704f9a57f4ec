"""What may be promised, from scores, costs and labels. NumPy and SciPy only."""
