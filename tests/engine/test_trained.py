"""What every recipe shares: learning is repeatable, what a recipe returns and what a file holds is checked; headers."""

import dataclasses
import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import REFERENCE, OwnRecipe, save_checkpoint
from scipy.stats import kendalltau
from toy import TOY, one_hot

from common.files import InputError
from dataset import Labels
from engine.checkpoint import to_bytes, versions
from engine.predictors import score_all
from engine.trained import fit, header, learn, load_checkpoint
from search.exact import best
from space import VIT
from tasks import find_task

LABELS, TASK = Labels.of(VIT.sample(30, seed=1), list(range(30)), measured=False), find_task("own-task")


class Chance(OwnRecipe):
    """Draws from every generator, and computes sums that depend on the number of threads."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        drawn, numbers = [random.random(), np.random.rand(), torch.rand(1).item()], torch.rand(10**6)
        return {"drawn": drawn, "effects": numbers[:370], "sum": (numbers / 3).sum(), "product": numbers @ numbers}


def test_what_is_learnt_depends_on_the_seed_alone():
    seed, learnt = 2**32 + 7, set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        fitted, _ = learn(Chance("own", "own", VIT), dataclasses.replace(TASK, seed=seed), LABELS)
        learnt.add(to_bytes(fitted))
    torch.set_num_threads(1)
    assert len(learnt) == 1
    first = torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()
    assert fitted["drawn"] == [random.Random(seed).random(), np.random.RandomState(7).rand(), first]


def learnt(fitted, scores=lambda encodings: encodings[:, 0, 0]):
    """Learn with a recipe that returns `fitted` and whose model is `scores`."""
    recipe = OwnRecipe("own", "own", VIT)
    recipe.fit = lambda *arguments: fitted
    recipe.model = lambda checkpoint, index=None: scores
    return learn(recipe, TASK, LABELS)


class Point(NamedTuple):
    x: int = 1


@pytest.mark.parametrize(
    ("fitted", "why"),
    [
        (None, "expected a dictionary without the keys task, recipe, space, data, code, versions$"),
        ({"data": 1}, "expected a dictionary without the keys task, recipe, space, data, code, versions$"),
        ({"a": np.ones(2)}, "a is a ndarray: expected tensors, numbers, strings, lists, dictionaries$"),
        ({"a": Point()}, "cannot be saved and read back: UnpicklingError$"),
    ],
)
def test_what_cannot_be_saved_is_refused(fitted, why):
    with pytest.raises(InputError, match=f"^recipe own, task own-task: what `fit` returns: {why}"):
        learnt(fitted)


def test_a_model_that_cannot_score_is_refused_and_one_score_for_all_is_noticed():
    with pytest.raises(InputError, match=r"^recipe own, task own-task: 1000 of 1000 scores are not finite"):
        learnt({}, lambda encodings: encodings.sum((1, 2)) / 0)
    assert learnt({"a": 1}) == ({"a": 1}, False)
    assert learnt({}, lambda encodings: np.full(len(encodings), 0.1)) == ({}, True)


class Intervals(OwnRecipe):
    def convert(self, checkpoint, task):
        return 1 / checkpoint["convert"] and checkpoint

    def summary(self, checkpoint):
        return {"tau": checkpoint["tau"]}

    def rank_interval(self, checkpoint, scores, population, probability):
        return scores - checkpoint["width"], scores + checkpoint["width"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipe": "gp"}, "a checkpoint of the recipe gp: expected own$"),
        ({"task": {"name": "sop"}}, "a checkpoint of sop: expected own-task$"),
        ({"space": "f" * 64}, "trained on another space, or space.json has changed since: train it again$"),
        ({"effects": torch.ones(3)}, "the recipe own cannot use it, train it again: RuntimeError: "),
        ({"task": None}, "the recipe own cannot use it, train it again: TypeError: "),
        ({"tau": "text"}, "the recipe own cannot use it, train it again: ValueError: "),
        ({"convert": 0}, "the recipe own cannot use it, train it again: ZeroDivisionError: "),
        ({"width": None}, "the recipe own cannot use it, train it again: TypeError: "),
    ],
)
def test_a_file_that_holds_another_task_or_cannot_score_is_refused_in_one_line(tmp_path, change, why):
    recipe, path = Intervals("own", "own", VIT), tmp_path / "file"
    content = {"effects": torch.arange(370.0), "tau": 0.5, "width": 1.0, "convert": 1}
    save_checkpoint(path, recipe, TASK, content)
    predictor = load_checkpoint(recipe, path, TASK)
    assert (predictor.checkpoint["width"], predictor.snapshot, predictor.is_constant) == (1, None, False)
    assert recipe.describe(predictor.checkpoint) == "tau 0.5000"
    assert repr([predictor]) == f"[<own-task: {path}>]"
    save_checkpoint(path, recipe, TASK, content | change)
    with pytest.raises(InputError, match=rf"^{path}: {why}") as caught:
        load_checkpoint(recipe, path, TASK)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_says_what_it_is():
    own, rest = OwnRecipe("own", "suffix", VIT), {"data": "f" * 64, "versions": versions(), "stopped": None}
    found = header(own, TASK, "f" * 64)
    assert len(found.pop("code")) == 64
    assert found == {"task": {"name": "own-task", "seed": 1}, "recipe": "own"} | rest
    assert header(OwnRecipe("own", "suffix", TOY), TASK, "f" * 64)["space"] == TOY.digest
    found = header(REFERENCE, TASK, "f" * 64)
    assert found.pop("code") != header(own, TASK, "f" * 64)["code"]
    assert found == {"task": dataclasses.asdict(TASK)} | rest
    assert own.path("r", TASK).as_posix() == "r/own-task_suffix.pth"
    assert (own.describe({}), own.train_steps(TASK, 2)) == ("own", (1, 1))


def test_settings_are_those_of_the_recipe():
    assert REFERENCE.configure(TASK, {"lr": 0.1, "cos": True}) == dataclasses.replace(TASK, lr=0.1, cos=True)
    assert OwnRecipe("own", "own", VIT).configure(TASK, {"seed": 3}).seed == 3
    with pytest.raises(InputError, match=r"^cos: the recipe own has no such setting"):
        OwnRecipe("own", "own", VIT).configure(TASK, {"cos": True})


def test_lists_are_learnt_without_files():
    """Accuracies, larger is better, of strings and objects; None is not measured, repeated ones are averaged."""
    strings = TOY.all()
    accuracies = [float(one_hot(TOY, string).sum(0) @ np.arange(TOY.shape[1]) ** 1.5) for string in strings]
    trained = fit(TOY, [*strings, strings[0], strings[1]], [*accuracies, None, accuracies[1]], recipe="gp")
    scores = score_all([trained], strings)[0]
    assert trained.checkpoint["labels"] == len(strings)
    assert kendalltau(scores, accuracies).statistic < -0.9
    assert best(trained.model, 3).architectures == [strings[i] for i in scores.argsort(stable=True)[:3]]
    with pytest.raises(InputError, match="all accuracies are equal"):
        fit(TOY, strings, [1.0] * len(strings))
    with pytest.raises(InputError, match="architecture 1: accuracy is nan: expected a finite number or None"):
        fit(TOY, strings[:3], [1.0, np.nan, 2.0])
