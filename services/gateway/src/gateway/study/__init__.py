"""A study: one recipe of data, training and scoring, varied along axes, carried out by the service arm by arm."""
