"""What holds for every test."""

from hypothesis import settings

# How long an example takes is no property: the first one may compile kernels, on a machine that does other things too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
