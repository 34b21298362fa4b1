"""What knows nothing of this project: files, processes, rank correlation."""
