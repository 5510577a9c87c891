"""The contract between data and training: what an artifact is, what a mixture holds, in which order it is read."""
