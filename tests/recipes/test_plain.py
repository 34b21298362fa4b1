"""The plain loop gives the reference's curves, and those of the fast training."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import REAL_DATA, needs_real_data, old_torch

from dataset import ArchPerfDataset
from recipes import plain, reference
from tasks import TASKS, find_task

CURVES = ("train_loss", "train_ktau", "validate_ktau")


@old_torch
@needs_real_data
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_first_epochs_are_the_references(task):
    path = REAL_DATA.parents[1] / "reference" / "cpu_curves.json"
    expected = json.loads(path.read_text())["tasks"][task.rank_key]
    _, *curves = plain.train(task, ArchPerfDataset(REAL_DATA.parent, task.name), 10)
    for name, curve in zip(CURVES, curves, strict=True):
        np.testing.assert_allclose(curve[:3], expected[name][:3], rtol=0, atol=2e-6)


def test_the_curves_are_those_of_the_fast_training(data_folder):
    task = dataclasses.replace(find_task("veri"), num_epochs=5, batch_size=7, val_interval=2, train_ratio=0.6, lr=3e-3)
    data = ArchPerfDataset(data_folder, task.name)
    fitted, (_, *curves) = reference.train(task, data.encodings, data.ranks), plain.train(task, data, 5)
    for name, curve in zip(CURVES, curves, strict=True):
        np.testing.assert_allclose(curve, fitted[name], rtol=1e-6 if name == CURVES[0] else 0, atol=1e-9)
