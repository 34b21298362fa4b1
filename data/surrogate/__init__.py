"""The surrogate benchmark: its effects, the generator of its files, and the script that fits it."""
