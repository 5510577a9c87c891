"""Texts → clusters of near-duplicates: shingles, signatures, bands, verified pairs, components."""
