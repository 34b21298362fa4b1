"""Damaged files: what is wrong is refused by name and in one line, what is right comes out right."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from helpers import make_data, make_entries

import recipes
from common.files import InputError
from dataset import Labels, load_train
from engine.model import score
from engine.trained import header, learn, load_checkpoint
from space import VIT
from tasks import TRAIN_FILE, find_task

ARCHITECTURES = VIT.sample(50, seed=1)


def count_refused(path, tries, check):
    """Damage the file at `path` in random places; returns how often `check` refuses it."""
    original, chance, refused = path.read_bytes(), random.Random(tries), 0
    for _ in range(tries):
        data, at, size = bytearray(original), chance.randrange(1, len(original)), chance.choice((1, 2, 100))
        other = chance.randrange(len(data))
        data[at : at + size] = chance.choice((b"", chance.randbytes(size), data[other : other + size]))
        path.write_bytes(data if chance.random() < 0.9 else data[:at])
        try:
            check()
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    return refused


def test_damaged_training_files(tmp_path):
    path = make_data(tmp_path, make_entries(ARCHITECTURES)) / TRAIN_FILE

    def check():
        _, found = load_train(path)
        entries = list(json.loads(path.read_text()).values())
        for name, labels in found.items():
            measured = {}
            for entry in entries:
                if entry[f"{name}_rank"] is not None:
                    measured.setdefault(entry["arch"], []).append(entry[f"{name}_rank"])
            means = [np.mean(each) for each in measured.values()]
            assert labels.architectures == list(measured)
            assert labels.ranks.tolist() == [sum(other < mean for other in means) for mean in means]

    assert 100 < count_refused(path, 200, check) < 200


@pytest.mark.parametrize("name", ["reference", "gp"])
def test_damaged_checkpoints(tmp_path, name):
    """In torch's older format, without checksums: what cannot be told from a right one has to score."""
    recipe, path = recipes.get(name), tmp_path / name
    task = dataclasses.replace(find_task("sop"), num_epochs=2, batch_size=8, keep=1)
    fitted, _ = learn(recipe, task, Labels.of(ARCHITECTURES, list(range(50)), measured=False))
    torch.save(header(recipe, task, "f" * 64) | fitted, path, _use_new_zipfile_serialization=False)

    def check():
        assert score([load_checkpoint(recipe, path, task).model], ARCHITECTURES).isfinite().all()

    assert 5 < count_refused(path, 100, check) < 100
