"""Linear layers with few bits, and transformers' door for them."""
