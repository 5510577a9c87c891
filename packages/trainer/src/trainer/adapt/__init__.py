"""From a model that is there to one for another language or field: what a run starts from, how its vocabulary grows."""
