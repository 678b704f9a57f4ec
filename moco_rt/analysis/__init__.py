"""Captured representations, rules found by hand, neighbourhoods."""
