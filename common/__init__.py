"""Files and paths, processes, rank correlation: what knows no other module."""
