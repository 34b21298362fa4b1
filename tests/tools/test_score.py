"""tools/score.py: its figures by loops over all orders of equal ranks, and the files that it refuses."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata

from common.files import InputError
from space import VIT
from tools.score import score

ARCHITECTURES, ENDS = VIT.sample(5, seed=4), [[0, 1], [1, 2], [3, 3], [0, 3]]
FILES = {
    "submission": {"msmt17_rank": [0, 1, 2, 3], "sop_rank": [0, 1, 1, 3], "veri_rank": [-1] * 4},
    "truths": {"veri_rank": range(4), "own_rank": range(4), "msmt17_accuracy": [5, 7, 2, 0], "sop_rank": [9, 8, 7, 0]},
    "intervals": {"msmt17_rank_interval": ENDS, "sop_rank_interval": ENDS},
}


def write(files):
    """Write {file name: {field: values}}, the truths in another order."""
    for name, fields in files.items():
        rows = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
        entries = [(f"arch{i}", {"arch": ARCHITECTURES[i]} | row) for i, row in enumerate(rows)]
        Path(name).write_text(json.dumps(dict(sorted(entries, reverse=name == "truths"))))


@pytest.mark.parametrize("top", [1, 3, 9])
def test_figures_are_means_over_all_orders_of_equal_ranks(command, top):
    ours, labels, low = [2, 0, 2, 0, 2], [1.5, 9, 7, 1.5, 1.5], [1, 0, 2, 0, 2]
    ends = [[end, end + 1] for end in low]
    write({"submission": {"a_rank": ours}, "truths": {"a_accuracy": labels}, "intervals": {"a_rank_interval": ends}})
    true = [sum(other > label for other in labels) for label in labels]
    mean_ranks = rankdata(true) - 1
    covered = [first <= rank <= first + 1 for rank, first in zip(mean_ranks, low, strict=True)]
    orders = list(itertools.permutations(range(5)))
    tops, true_tops = ([sorted(order, key=ranks.__getitem__)[:top] for order in orders] for ranks in (ours, true))
    expected = {
        "tau": kendalltau(ours, true).statistic,
        "in_top": np.mean([len({*a} & {*b}) for a, b in itertools.product(tops, true_tops)]),
        "best": np.mean([mean_ranks[best] for best, *_ in tops]),
        "coverage": np.mean(covered),
        "top_coverage": np.mean([covered[i] for some in tops for i in some]),
    }
    assert score("submission", "truths", None, top, "intervals") == {"a": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("name", "field", "values", "message"),
    [
        ("submission", "sop_rank", [0, None, 2, 3], "submission: arch1: sop_rank is null: expected a number"),
        ("submission", "sop_rank", [2] * 4, "submission: sop: tau is undefined, as all ranks are equal here or in "),
        ("truths", "sop_rank", [2] * 4, "submission: sop: tau is undefined, as all ranks are equal here or in truths"),
        ("submission", "x", ENDS, "submission: does not predict msmt17, veri, sop, own: name other --tasks"),
        ("intervals", "x", ENDS, "intervals: arch3: msmt17_rank_interval is null: expected [low, high], as "),
        ("intervals", "msmt17_rank_interval", [[0]] * 4, "intervals: arch3: msmt17_rank_interval is [0]: "),
        ("intervals", "msmt17_rank_interval", [[0, 1.5]] * 4, "intervals: arch3: msmt17_rank_interval is [0, 1.5]: "),
    ],
)
def test_a_wrong_file_is_named(command, name, field, values, message):
    write(FILES | {name: {field: values}})
    with pytest.raises(InputError, match=re.escape(message)):
        score("submission", "truths", intervals_path="intervals")


def test_any_numbers_may_be_ranks(command):
    """Only their order counts, which is said."""
    write(FILES)
    expected = score("submission", "truths", ["sop"])
    write(FILES | {"submission": {"sop_rank": [0.5, 70, 70, 1e9]}})
    assert score("submission", "truths", ["sop"]) == expected
    said = command("tools/score.py", "submission", "truths", "--tasks", "sop").stdout
    assert "sop_rank: no ranks from 0 to 3: only their order counts" in said
