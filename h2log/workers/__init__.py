"""Several processes that serve, one that owns the log files, and the one that looks after them."""
