"""Readers of the formats that no library reads as we need them: pieces of a file to its rows, one after the other."""
