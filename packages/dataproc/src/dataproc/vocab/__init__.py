"""Tokenizers as artifacts: trained on a build's documents, or given; with special tokens from the start."""
