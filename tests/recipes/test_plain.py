"""The plain loop and the fast training give the same curves."""

import dataclasses

import numpy as np
import pytest

from dataset import ArchPerfDataset
from recipes import plain, reference
from tasks import find_task


@pytest.mark.parametrize(
    "changes",
    [
        {"cos": True, "batch_size": 16},
        {"seed": 9, "batch_size": 7, "weight_decay": 0.0},
        {"val_interval": 2, "dropout_ratio": 0.0, "train_ratio": 0.6, "lr": 3e-3},
    ],
)
def test_the_curves_are_those_of_the_fast_training(data_folder, changes):
    task, reports = dataclasses.replace(find_task("market1501"), num_epochs=5, **changes), []
    data = ArchPerfDataset(data_folder, task.name)
    fitted = reference.train(task, data.encodings, data.ranks, report=lambda *values: reports.append(values))
    _, losses, train_taus, validation_taus = plain.train(task, data, 5)
    np.testing.assert_allclose(fitted["train_loss"], losses, rtol=1e-6)
    np.testing.assert_allclose(fitted["train_ktau"], train_taus, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fitted["validate_ktau"], validation_taus, rtol=0, atol=1e-9)
    taus = [dict(fitted["validate_ktau"]).get(epoch) for epoch in range(1, 6)]
    assert reports == list(zip(range(1, 6), fitted["train_loss"], fitted["train_ktau"], taus, strict=True))
