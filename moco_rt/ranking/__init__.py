"""Rerankers: candidates of a query that cannot be among the first leave between layers; the first ones stay the same.

The one place where rows of a batch look at each other: a candidate leaves because others of its query are better. Its
unit is the query with all its candidates, which is what is split, counted and promised.
"""
