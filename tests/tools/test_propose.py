"""tools/propose.py through files alone, as a user does: random ones, labels, the best predicted, until all is known."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import OwnRecipe, add_recipe, run_command
from toy import TOY, one_hot

from common.files import InputError
from dataset import Data, find_data
from engine.proposals import propose
from engine.trained import fit
from space import VIT

SPACE = {
    "hyperparameters": [
        {"type": "ordinal", "name": "depth", "sequence": [1, 2, 3]},
        *({"type": "categorical", "name": f"block {i}", "choices": ["a", "b", "c", "d"]} for i in (1, 2, 3)),
    ],
    "conditions": [{"type": "EQ", "child": "block 3", "parent": "depth", "value": 3}],
    "costs": {"ms": {"depth": [1, 2, 4], "block 1": [0, 1, 2, 3]}},
}


def accuracy(arch):
    """The true label of a string of SPACE: the later the blocks' letters and the deeper, the better."""
    return 50 + int(arch[0]) + sum((1, 0.5, 2)[i] * int(code) for i, code in enumerate(arch[1:]) if code != "-")


@pytest.fixture
def round_(tmp_path, monkeypatch):
    """round_(*flags): propose, measure and add to the training file: (what it prints, proposed strings)."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/space.json").write_text(json.dumps(SPACE))

    def propose_and_measure(*flags):
        answer = run_command("tools/propose.py", "--data_path", "mine", "--json", "next.json", *flags)
        assert answer.returncode == 0, answer.stderr
        proposed, train = json.loads(Path("next.json").read_text()), Path("mine/train.json")
        known = json.loads(train.read_text()) if train.exists() else {}
        assert not known.keys() & proposed.keys()
        assert all(list(entry.values())[1:] == [None] for entry in proposed.values())
        for entry in proposed.values():
            entry[list(entry)[1]] = accuracy(entry["arch"])
        train.write_text(json.dumps(known | proposed))
        return answer.stdout, [entry["arch"] for entry in proposed.values()]

    return propose_and_measure


def test_rounds_find_the_best_and_end_when_all_is_measured(round_):
    said, first = round_("--count", 25, "--tasks", "top1")
    assert "25 proposals: random; predictions choose from 25 measured architectures on, here are 0" in said
    train = Path("mine/train.json")
    entries = json.loads(train.read_text())
    assert all(list(entry) == ["arch", "top1_accuracy"] for entry in entries.values())
    entries["pending"] = {"arch": next(a for a in ("2333", "2332") if a not in first), "top1_accuracy": None}
    train.write_text(json.dumps(entries))
    said, proposed = round_()
    assert "10 proposals: the best predicted by gp, proven\n" in said and len(set(proposed)) == 10
    assert not {*first, entries["pending"]["arch"]} & {*proposed}
    lines = [line for line in said.splitlines() if line[:4] in proposed]
    assert len(lines) == 10
    assert all(
        re.fullmatch(r".{5} depth \d, block( [a-d]){2,3}  ms \d  beats \S+ % \(\S+ to \S+ %\)", line) for line in lines
    )
    best = {json.loads(train.read_text())[name]["arch"] for name in json.loads(train.read_text())}
    assert "2333" in best  # the very best of 96
    said, rest = round_("--count", 500)
    assert len(rest) == 96 - 36
    said, nothing = round_()
    assert not nothing and "0 proposals: all 96 architectures of the space are known" in said


@pytest.mark.parametrize("labelled", [0, 30])
def test_proposals_are_within_the_budget(round_, labelled):
    if labelled:
        round_("--count", labelled)
    _, proposed = round_("--max", "ms=3", "--count", 8, "--tasks", "own")
    assert len(proposed) == 8
    for arch in proposed:
        assert (1, 2, 4)[int(arch[0])] + int(arch[1]) <= 3


def test_several_tasks_a_recipe_without_bounds_and_rare_budgets_from_python(monkeypatch, tmp_path):
    add_recipe(monkeypatch, OwnRecipe)
    known = VIT.sample(40, seed=1)
    sizes = VIT.measure(known)["params"] / 1e6
    one, other = fit(VIT, known, sizes), fit(VIT, known, -sizes + 3 * np.array([a[1] == "1" for a in known]))
    found = propose([one, other], 3).architectures
    assert all(name[1] == "1" for name in found) and len(set(found)) == 3
    found = propose(fit(VIT, known, sizes, recipe="own"), 2)
    assert found.reason == "the best predicted by own, by evolution, unproven" and len(found.architectures) == 2
    few = propose(Data(tmp_path, "x"), 5, limits={"params": 56_200_000}).architectures
    assert len(set(few)) == 5 and VIT.measure(few)["params"].max() <= 56_200_000
    (tmp_path / "train.json").write_text(json.dumps({name: {"arch": name, "own_rank": 1} for name in known}))
    with pytest.raises(InputError, match="own: all labels are equal"):
        propose(Data(tmp_path, "x"))


def test_labels_that_are_not_added_yet_are_not_overwritten(round_):
    round_("--count", 25)
    round_("--count", 2)
    entries = json.loads(Path("mine/train.json").read_text())
    proposed = json.loads(Path("next.json").read_text())
    for name, entry in proposed.items():
        entry["own_accuracy"] = entries.pop(name)["own_accuracy"]
    entries["arch1"]["other_rank"] = 1  # labels one more task
    Path("mine/train.json").write_text(json.dumps({k: {"other_rank": None} | e for k, e in entries.items()}))
    flags = ("--data_path", "mine", "--tasks", "own", "--count", "2", "--json", "next.json")
    for status, content in (
        (2, proposed),
        (0, {name: entry | {"own_accuracy": None} for name, entry in proposed.items()}),
    ):
        Path("next.json").write_text(json.dumps(content))
        answer = run_command("tools/propose.py", *flags)
        assert answer.returncode == status
        assert ("next.json: holds labels that mine/train.json lacks" in answer.stderr) == (status == 2)
        if status:
            assert json.loads(Path("next.json").read_text()) == content
    written = json.loads(Path("next.json").read_text())
    assert all(
        entry | {"arch": 0} == {"arch": 0, "own_accuracy": None, "other_rank": None} for entry in written.values()
    )


def test_where_nothing_is_left_within_the_budgets_it_is_said(monkeypatch, tmp_path):
    add_recipe(monkeypatch, OwnRecipe)
    limits, known = {"params": 130, "ms": 0.05}, TOY.all()[::2]
    costs = TOY.measure(TOY.all())
    within = (costs["params"] <= limits["params"]) & (costs["ms"] <= limits["ms"])
    assert not within.any() and (costs["params"] <= limits["params"]).any() and (costs["ms"] <= limits["ms"]).any()
    for recipe in ("gp", "own"):
        predictor = fit(TOY, known, range(len(known)), recipe=recipe)
        assert propose(predictor, 5, limits=limits)[::2] == ([], "no architecture within the budgets is left")
        everything = propose(predictor, 100)
        assert sorted([*everything.architectures, *known]) == sorted(TOY.all())
        assert everything.reason == f"the best predicted by {recipe}, proven"
    space = {"hyperparameters": [{"type": "ordinal", "name": name, "sequence": [0, 1]} for name in "abc"]}
    costs = {"x": {"a": [1, 2]}, "y": {"a": [2, 1]}}
    (tmp_path / "space.json").write_text(json.dumps(space | {"costs": costs}))
    found = propose(find_data(tmp_path), limits={"x": 1, "y": 1})
    assert found.reason == "no architecture within the budgets is left"


def test_a_round_in_memory_proposes_what_is_truly_good():
    strings = TOY.all()
    truth = {name: float(one_hot(TOY, name).sum(0) @ np.arange(TOY.shape[1])) for name in strings}
    found = propose(fit(TOY, strings[::2], [truth[name] for name in strings[::2]]), 2)
    left = sorted(set(strings) - set(strings[::2]), key=lambda name: -truth[name])
    assert found.architectures[0] in left[:3] and found.shares.intervals is not None
