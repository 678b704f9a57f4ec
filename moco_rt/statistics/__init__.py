"""Statistics: what finite samples can show of rates, drops and scores, whatever they are of. NumPy and SciPy only."""
