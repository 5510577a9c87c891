"""The contract between data and training: what an artifact is, what a mixture holds, how it is read."""
