"""Checkpoints → reports that lead back to raw documents."""
