"""`accelerate` and `quantize`: split, record, distil, time, search."""
