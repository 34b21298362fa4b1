"""Recipes: ways to learn one task and to score architectures with it, one file each.

To add one: write recipes/<name>.py with a class `Recipe` (recipes/base.py), and add its line to RECIPES.
"""

import importlib

# name: suffix of its files (<task>_<suffix>.pth) and of the default save names (train_<suffix>, test_<suffix>)
RECIPES = {
    "reference": "final",
    "gp": "gp",
    "ridge": "ridge",
}
DEFAULT = "reference"  # also the recipe of checkpoints that name none


def get(name, space=None):
    """Recipe called `name` for a space.Space, by default VIT. Imports torch, so that `--help` should not call it."""
    if space is None:
        from space import VIT as space
    return importlib.import_module(f"recipes.{name}").Recipe(name, RECIPES[name], space)
