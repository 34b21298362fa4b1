import dataclasses
import math

import pytest

from tasks import TASKS, SettingError, find_task


def test_the_table_is_complete_and_frozen():
    assert [task.name for task in TASKS] == (
        ["cplfw", "vehicleid", "dukemtmc", "market1501", "msmt17", "veri", "veriwild", "sop"]
    )
    assert dataclasses.asdict(find_task("veriwild")) == {
        "name": "veriwild",
        "lr": 1e-3,
        "weight_decay": 6e-4,
        "batch_size": 32,
        "train_ratio": 0.8,
        "seed": 3,
        "dropout_ratio": 0.5,
        "cos": True,
        "val_interval": 1,
        "snapshot": -43,
        "num_epochs": 400,
        "keep": 50,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        TASKS[0].lr = 1


def test_a_task_is_found_by_either_name():
    assert find_task("sop") is find_task("sop_rank") is TASKS[-1]
    with pytest.raises(SettingError, match="unknown task 'imagenet': choose from cplfw, "):
        find_task("imagenet")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lr", value) for value in (0, -1e-3, math.nan, math.inf, 1e38)),
        *(("weight_decay", value) for value in (-1e-9, math.nan, 1e39)),
        *(("batch_size", value) for value in (1, 0, -8)),
        *(("train_ratio", value) for value in (0, 1, -0.5, 1.5, math.nan)),
        *(("seed", value) for value in (-1, 2**63)),
        *(("dropout_ratio", value) for value in (-0.1, 1, math.nan)),
        *(("val_interval", value) for value in (0, -1)),
        ("snapshot", 0),
        *((name, value) for name in ("num_epochs", "keep") for value in (0, -1)),
    ],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(SettingError, match=f"^{name} .*: must be"):
        dataclasses.replace(TASKS[0], **{name: value})
