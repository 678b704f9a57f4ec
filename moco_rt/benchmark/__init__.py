"""A benchmark for users: their model, their texts, their machine, and whatever engines are installed."""
