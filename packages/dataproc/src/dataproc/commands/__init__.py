"""The commands of `dataproc`, a file each: what it takes, and what it calls."""
