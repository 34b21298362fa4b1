"""The published run: the reference's curves, the snapshots at its indices, and TensorBoard's logs of the same run."""

import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dataset import encode
from engine.predictors import load, score_all
from network import Predictor
from space import VIT

PREDICTORS = load()
DATA = re.search("[0-9a-f]{64}", (ROOT / "results" / "README.md").read_text())[0]
each_predictor = pytest.mark.parametrize("predictor", PREDICTORS, ids=lambda predictor: predictor.task.name)


@each_predictor
def test_a_checkpoint_has_the_references_curve_and_the_snapshot_at_its_index(predictor):
    task, checkpoint = predictor.task, predictor.checkpoint
    assert (checkpoint["data"], checkpoint["stopped"], predictor.snapshot) == (DATA, None, task.snapshot)
    epochs, taus = zip(*checkpoint["validate_ktau"], strict=True)
    assert epochs == tuple(epoch for epoch in range(1, 401) if epoch == 1 or epoch % task.val_interval == 0)
    reference = json.loads((ROOT / "results" / "reference.json").read_text())["tasks"][task.name]
    np.testing.assert_allclose(taus, reference["cpu_validate_ktau"], rtol=0, atol=1e-6)
    tau = sorted(set(taus))[task.snapshot]
    ((index, snapshot),) = checkpoint["snapshots"].items()
    latest = dict(zip(taus, epochs, strict=True))[tau]
    assert (index, snapshot["ktau"], snapshot["epoch"]) == (task.snapshot, tau, latest)


@each_predictor
@torch.no_grad()
def test_the_scores_are_those_of_the_network_in_the_file(predictor):
    network, architectures = Predictor(*VIT.shape).eval(), VIT.sample(50, seed=9)
    network.load_state_dict(predictor.checkpoint["snapshots"][predictor.task.snapshot]["state_dict"])
    torch.testing.assert_close(score_all([predictor], architectures)[0], network(encode(VIT, architectures)))


@each_predictor
def test_the_logs_hold_every_step_of_the_same_run(predictor):
    name, checkpoint = predictor.task.name, predictor.checkpoint
    for part, tag, curve in (
        ("train", "loss", enumerate(checkpoint["train_loss"], 1)),
        ("train", "ktau", enumerate(checkpoint["train_ktau"], 1)),
        ("validate", "ktau", checkpoint["validate_ktau"]),
    ):
        (path,) = (ROOT / "logs" / "published" / name / part).iterdir()
        events = EventAccumulator(str(path)).Reload().Scalars(f"{name}/{tag}")
        np.testing.assert_allclose([(event.step, event.value) for event in events], list(curve), rtol=1e-6)
