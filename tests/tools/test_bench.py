"""The benchmark on small data: its tables, and that its plain training is the recipe's."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from helpers import REFERENCE, make_data, make_entries

from dataset import Labels, encode, find_data
from engine.trained import learn
from space import VIT
from tasks import TASKS
from tools import bench

ARCHITECTURES = VIT.sample(500, seed=1)


def test_each_part_prints_a_table_and_a_ratio_is_the_median_of_the_ratios(monkeypatch, tmp_path, capsys):
    entries = make_entries(ARCHITECTURES)
    data = find_data(make_data(tmp_path / "data", entries, entries))
    seconds = itertools.chain((4, 1, 9, 2, 5, 4), itertools.repeat(1))
    monkeypatch.setattr(bench, "timed", lambda way: (next(seconds), way()))
    monkeypatch.setattr(bench, "EPOCHS", 1)
    monkeypatch.setattr(bench, "TASKS", [dataclasses.replace(task, num_epochs=2) for task in TASKS])
    monkeypatch.setattr(bench.cli, "open_data", lambda _: data)
    bench.main([])
    printed = capsys.readouterr().out
    assert "\n| autograd and a fused Adam, batches in memory | 10 | 2 | 8 |\n" in printed
    assert printed.count(" | 1 | 1 | 1 |\n") == 2 and printed.count(" | 1 | -") == 3


@pytest.mark.parametrize("task", TASKS[:2], ids=lambda task: task.name)
def test_the_plain_training_has_the_losses_and_taus_of_the_recipe(task):
    task = dataclasses.replace(task, num_epochs=6)
    labels = Labels.of(ARCHITECTURES, np.random.RandomState(0).permutation(500).tolist(), measured=False)
    fitted, _ = learn(REFERENCE, task, labels)
    curves = bench.train_plainly(task, encode(VIT, ARCHITECTURES), torch.from_numpy(labels.ranks), 6)
    validations = [tau for _, tau in fitted["validate_ktau"]]
    for curve, expected in zip(curves, (fitted["train_loss"], fitted["train_ktau"], validations), strict=True):
        np.testing.assert_allclose(curve, expected, rtol=1e-5, atol=1e-3)
