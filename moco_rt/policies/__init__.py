"""Policies: exits of a model, the monitor that watches them, and their files and fingerprints."""
