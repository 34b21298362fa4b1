"""Mutated files: what is wrong is refused by name, what is right comes out right.

`python -m pytest -m slow -s tests/recipes/test_fuzz.py` tries 30,000 mutations and reports.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from helpers import make_data, make_entries, save_checkpoint

import recipes
from common.files import InputError
from dataset import load_train
from engine.checkpoint import to_bytes
from engine.model import score
from space import sample_architectures
from tasks import TRAIN_FILE, find_task

ARCHITECTURES = sample_architectures(50, seed=1)


def mutate(data, chance):
    """Change bytes of `data` in some of the ways that files get damaged."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at, other = chance.randrange(len(data)), chance.randrange(len(data))
        size = chance.choice((1, 1, 2, 8, 100))
        piece = chance.choice((b"", chance.randbytes(size), data[other : other + size]))
        kind = chance.choice(("bit", "cut", "insert", "replace", "replace"))
        if kind == "bit":
            data[at] ^= 1 << chance.randrange(8)
        elif kind == "cut":
            del data[max(at, 1) :]
        else:
            data[at : at + size * (kind == "replace")] = piece
    return bytes(data)


def count_refused(path, tries, check):
    """Mutate the file at `path`; returns how often `check` refuses it, by name and in one line."""
    original, chance, refused = path.read_bytes(), random.Random(tries), 0
    for _ in range(tries):
        path.write_bytes(mutate(original, chance))
        try:
            check()
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    print(f"\n{path.name}: tried {tries:,} mutations, refused {refused:,}")
    return refused


@pytest.mark.parametrize("tries", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_mutated_training_files(tmp_path, tries):
    path = make_data(tmp_path, make_entries(ARCHITECTURES)) / TRAIN_FILE

    def check():
        """What was loaded is what the file says."""
        architectures, ranks = load_train(path)
        entries = list(json.loads(path.read_text()).values())
        assert architectures == [entry["arch"] for entry in entries]
        assert {f"{name}_rank" for name in ranks} == {field for field in entries[0] if field.endswith("_rank")}
        for name, found in ranks.items():
            labels = [entry[f"{name}_rank"] for entry in entries]
            assert found.tolist() == [sum(other < label for other in labels) for label in labels]

    assert tries / 2 < count_refused(path, tries, check) < tries


@pytest.mark.parametrize("tries", [60, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("kind", ["reference", "gp", "ridge", "pickle"])
def test_mutated_checkpoints(tmp_path, tries, kind):
    recipe = recipes.get("reference" if kind == "pickle" else kind)
    task = dataclasses.replace(find_task("sop"), num_epochs=2, batch_size=8, snapshot=-1, keep=1)
    path = tmp_path / kind
    fitted, _ = recipe.learn(task, ARCHITECTURES, np.arange(50))
    if kind == "pickle":
        weights = fitted["snapshots"][-1]["state_dict"]
        torch.save({np.float64(0.5): weights}, path, _use_new_zipfile_serialization=False)
    else:
        save_checkpoint(path, recipe, task, fitted)
    expected = to_bytes(recipe.load(path, task).checkpoint)

    def check():
        predictor = recipe.load(path, task)
        # The older format has no checksums: other numbers cannot be told from the right ones.
        assert kind == "pickle" or to_bytes(predictor.checkpoint) == expected
        assert score([predictor.model], ARCHITECTURES).isfinite().all()

    assert count_refused(path, tries, check) > tries / 10
