"""A mixture and a step → the tokens that a rank learns from."""
