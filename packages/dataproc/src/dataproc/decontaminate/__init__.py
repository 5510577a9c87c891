"""Evaluation items in documents: found, said from where to where, and taken out of training."""
