"""One file per kind of data set: what its own export looks like, and nothing else."""
