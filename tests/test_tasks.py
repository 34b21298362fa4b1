"""The settings: which task has which, and which values are refused."""

import dataclasses
import math
import re

import pytest
import torch
from helpers import ROOT

from common.files import InputError
from tasks import TASKS, Task, find_task


def test_the_settings_are_those_of_the_published_run():
    names = "cplfw vehicleid dukemtmc market1501 msmt17 veri veriwild sop"  # in the order of training
    assert " ".join(task.name for task in TASKS) == names
    for task in TASKS:
        checkpoint = torch.load(ROOT / "results" / "published" / f"{task.name}_final.pth", weights_only=True)
        assert checkpoint["task"] == dataclasses.asdict(task)


def test_a_task_is_found_by_its_name_or_that_of_its_labels_and_others_have_the_references_defaults():
    assert find_task("sop") is find_task("sop_rank") is find_task("sop_accuracy") is TASKS[-1]
    assert find_task("My-task_2_accuracy") == Task("My-task_2", 1e-3, 3e-4, 16, 0.9, 1, 0.5, False, 1, -1, 400, 50)


@pytest.mark.parametrize("name", ["", "_rank", "sop_rank_rank", "-x", "a/b", "\N{OHM SIGN}", "a\n"])
def test_a_name_with_other_characters_is_refused(name):
    with pytest.raises(InputError, match=r"(?s)^name .*: must be made of letters, digits, _ and -$"):
        find_task(name)


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "lr": (0, math.nan, 1e38),
        "weight_decay": (-1e-9, 1e39),
        "batch_size": (1,),
        "train_ratio": (0, 1),
        "seed": (-1, 2**63),
        "dropout_ratio": (-0.1, 1),
        "val_interval": (0,),
        "snapshot": (0,),
        "num_epochs": (0,),
        "keep": (0,),
    }.items(),
)
def test_a_setting_out_of_range_is_named(name, values):
    for value in values:
        with pytest.raises(InputError, match=rf"^{name} {re.escape(str(value))}: must be"):
            dataclasses.replace(TASKS[0], **{name: value})


def test_settings_at_the_ends_of_their_ranges_are_allowed():
    Task("x", 1e37, 0, 2, 1e-9, 0, 0, True, 1, -1, 1, 1)
    Task("x", 1e-30, 1e38, 10**6, 0.999, 2**63 - 1, 0.999)


def test_the_training_split_is_rounded_down():
    assert [Task("x", train_ratio=0.7).split_sizes(n) for n in (500, 9)] == [(350, 150), (6, 3)]
