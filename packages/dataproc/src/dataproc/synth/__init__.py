"""Corpora with planted near-duplicates, and the truth beside them."""
