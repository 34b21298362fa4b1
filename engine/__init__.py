"""What is trained: fitted models and their scores, checkpoints, training side by side, submissions."""
