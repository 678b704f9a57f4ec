"""Texts, single or in files, to encoded rows and batches."""
