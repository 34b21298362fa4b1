import dataclasses
import math
import re

import pytest

from common.files import InputError
from tasks import TASKS, Task, find_task


def test_the_eight_tasks_stand_in_the_competitions_order():
    names = ["cplfw", "vehicleid", "dukemtmc", "market1501", "msmt17", "veri", "veriwild", "sop"]
    assert [task.name for task in TASKS] == names
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASKS[0].lr = 1


def test_a_task_is_found_by_its_name_or_that_of_its_labels():
    assert find_task("sop") is find_task("sop_rank") is find_task("sop_accuracy") is TASKS[-1]
    assert TASKS[-1].rank_key == "sop_rank"


def test_any_other_task_has_the_references_defaults():
    assert find_task("My-task_2_accuracy") == find_task("My-task_2")
    assert dataclasses.asdict(find_task("My-task_2")) == {
        "name": "My-task_2",
        "lr": 1e-3,
        "weight_decay": 3e-4,
        "batch_size": 16,
        "train_ratio": 0.9,
        "seed": 1,
        "dropout_ratio": 0.5,
        "cos": False,
        "val_interval": 1,
        "snapshot": -1,
        "num_epochs": 400,
        "keep": 50,
    }


@pytest.mark.parametrize("name", ["", "_rank", "a b", "a/b", "..", "\N{OHM SIGN}", "a\n"])
def test_a_name_with_other_characters_is_refused(name):
    with pytest.raises(InputError, match=r"(?s)^name .*: must be made of letters, digits, _ and -$"):
        find_task(name)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "lr": (0, -1e-3, math.nan, math.inf, 1e38),
        "weight_decay": (-1e-9, math.nan, 1e39),
        "batch_size": (1, 0, -8),
        "train_ratio": (0, 1, -0.5, 1.5, math.nan),
        "seed": (-1, 2**63),
        "dropout_ratio": (-0.1, 1, math.nan),
        "val_interval": (0, -1),
        "snapshot": (0, 1),
        "num_epochs": (0, -1),
        "keep": (0, -1),
    }.items(),
)
def test_a_setting_out_of_range_is_named(name, values):
    for value in values:
        with pytest.raises(InputError, match=rf"^{name} {re.escape(str(value))}: must be"):
            dataclasses.replace(TASKS[0], **{name: value})


def test_settings_at_the_ends_of_their_ranges_are_allowed():
    Task("x", 1e37, 0, 2, 1e-9, 2**63 - 1, 0, True, 1, -99, 1, 1)
    Task("x", 1e-30, 1e38, 10**6, 0.999, 0, 0.999)


def test_the_training_split_is_rounded_down():
    sizes = [Task("x", train_ratio=ratio).split_sizes(n) for ratio, n in ((0.7, 500), (0.9, 9), (0.8, 3), (0.9, 1))]
    assert sizes == [(350, 150), (8, 1), (2, 1), (0, 1)]
