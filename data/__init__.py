"""The competition's files, and the surrogate benchmark in surrogate/."""
