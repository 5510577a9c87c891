"""The HTTP service in front of Winnow: datasets are built, models trained and scored through it."""
