"""A mixture → checkpoints, with DeepSpeed."""
