"""The published run: the reference's curves, the snapshots at its indices, and TensorBoard's logs of the same run."""

import json
import math

import pytest
import torch
from helpers import REAL_DATA, ROOT, needs_real_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.files import sha256
from tasks import TASKS, Task

RESULTS, LOGS = ROOT / "results" / "published", ROOT / "logs" / "published"
DATA = "9f15a919f04d2a7c1433ebdd1de80cba8a07869650240645d3de141e5f49a7ab"
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


@pytest.fixture(scope="module")
def checkpoints():
    return {task.name: torch.load(RESULTS / f"{task.name}_final.pth", weights_only=True) for task in TASKS}


@each_task
def test_a_checkpoint_has_the_references_curve_and_the_snapshot_at_its_index(checkpoints, task):
    checkpoint = checkpoints[task.name]
    assert Task(**checkpoint["task"]) == task
    assert (checkpoint["data"], checkpoint["stopped"], checkpoint["index"]) == (DATA, None, task.snapshot)
    curve = checkpoint["validate_ktau"]
    assert [epoch for epoch, _ in curve] == [1, *range(5, 401, 5)] if task.val_interval == 5 else list(range(1, 401))
    reference = json.loads((ROOT / "tools" / "reference.json").read_text())["tasks"][task.name]
    assert [tau for _, tau in curve] == pytest.approx(reference["cpu_validate_ktau"], abs=1e-5)
    ((index, snapshot),) = checkpoint["snapshots"].items()
    tau = sorted({tau for _, tau in curve})[index]
    assert index == task.snapshot
    assert (snapshot["ktau"], snapshot["epoch"]) == (tau, max(epoch for epoch, other in curve if other == tau))


def test_the_files_are_small_and_the_readme_names_their_data():
    assert sum(path.stat().st_size for path in RESULTS.iterdir()) < 10**6
    assert DATA in (ROOT / "results" / "README.md").read_text()


@needs_real_data
def test_the_data_are_the_competitions():
    assert sha256(REAL_DATA) == DATA


@each_task
def test_the_logs_hold_every_tag_and_step_of_the_same_run(checkpoints, task):
    checkpoint, read = checkpoints[task.name], {}
    for part in ("train", "validate"):
        assert [path.name for path in (LOGS / task.name / part).iterdir()] == ["events.out.tfevents.published"]
        events = EventAccumulator(str(LOGS / task.name / part), size_guidance={"scalars": 0}).Reload()
        read |= {(part, tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
        assert events.Tags()["tensors"] == ([f"{task.name}/settings/text_summary"] if part == "train" else [])
    expected = {
        ("train", f"{task.name}/loss"): list(enumerate(checkpoint["train_loss"], 1)),
        ("train", f"{task.name}/ktau"): list(enumerate(checkpoint["train_ktau"], 1)),
        ("validate", f"{task.name}/ktau"): checkpoint["validate_ktau"],
    }
    assert set(read) == set(expected)
    for key, curve in expected.items():
        assert len(curve) == (81 if key[0] == "validate" and task.val_interval == 5 else 400)
        assert [event.step for event in read[key]] == [epoch for epoch, _ in curve]
        assert all(math.isfinite(event.value) for event in read[key])
        assert [event.value for event in read[key]] == pytest.approx([value for _, value in curve])
