"""The plain loop gives the curves of the fast training, which test_reference.py compares with the reference's."""

import dataclasses

import numpy as np

from dataset import ArchPerfDataset
from recipes import plain, reference
from tasks import find_task

CURVES = ("train_loss", "train_ktau", "validate_ktau")


def test_the_curves_are_those_of_the_fast_training(data_folder):
    task = dataclasses.replace(find_task("veri"), num_epochs=5, batch_size=7, val_interval=2, train_ratio=0.6, lr=3e-3)
    data = ArchPerfDataset(data_folder, task.name)
    fitted, (_, *curves) = reference.train(task, data.encodings, data.ranks), plain.train(task, data, 5)
    for name, curve in zip(CURVES, curves, strict=True):
        np.testing.assert_allclose(curve, fitted[name], rtol=1e-6 if name == CURVES[0] else 0, atol=1e-9)
