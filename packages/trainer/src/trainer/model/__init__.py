"""The decoder: shape → parameters → logits."""
