"""What every recipe shares: learning is repeatable and checks what a recipe returns; names and headers."""

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import REFERENCE, OwnRecipe, save_checkpoint

import recipes
from common.files import InputError
from recipes.checkpoint import read, to_bytes, versions
from space import sample_architectures
from tasks import find_task

ARCHITECTURES, RANKS = sample_architectures(300, seed=1), np.random.RandomState(0).permutation(300)
TASK = find_task("own-task")


class Chance(OwnRecipe):
    """Uses every generator, and sums that depend on the number of threads."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        numbers = torch.rand(10**6) * np.random.rand() * random.random()
        return {"effects": numbers[:370], "sum": (numbers / 3).sum(), "product": numbers @ numbers.flip(0)}


@pytest.mark.parametrize("name", ["reference", "gp", "ridge", "own"])
def test_what_is_learnt_depends_on_no_generator_and_no_number_of_threads(name):
    recipe = Chance("own", "own") if name == "own" else recipes.get(name)
    task = recipe.configure(TASK, {"num_epochs": 2} if "num_epochs" in recipe.settings else {})
    found = set()
    for threads in (1, 2):
        random.seed(threads)
        np.random.seed(threads)
        torch.manual_seed(threads)
        torch.set_num_threads(threads)
        try:
            fitted, is_constant = recipe.learn(task, ARCHITECTURES, RANKS)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
        assert not is_constant
        found.add(to_bytes(fitted))
    assert len(found) == 1


def learn(fitted, scores=lambda encodings: encodings.sum((1, 2))):
    """Learn with a recipe that returns `fitted` and whose model is `scores`."""
    recipe = OwnRecipe("own", "own")
    recipe.fit = lambda *arguments: fitted
    recipe.model = lambda checkpoint, index=None: scores
    return recipe.learn(TASK, ARCHITECTURES, RANKS)


class Point(NamedTuple):
    x: int = 1


@pytest.mark.parametrize(
    ("fitted", "why"),
    [
        ([1], "expected a dictionary without the keys task, recipe, data, versions"),
        (None, "expected a dictionary without"),
        ({"data": 1}, "expected a dictionary without"),
        ({"a": np.ones(2)}, "a is a ndarray: expected tensors, numbers, strings, lists, dictionaries"),
        ({"a": [1, print]}, r"a\[1\] is a builtin_function_or_method: expected tensors"),
        ({"a": {"b": 1j}}, "a: b is a complex: expected tensors"),
        ({(b"a",): 1}, r"key\[0\] is a bytes: expected tensors"),
        ({"a": torch.tensor([1, torch.nan])}, r"a holds numbers that are not finite or above 1e\+30"),
        ({"a": torch.ones(2).to_sparse()}, "a is not a plain tensor on the CPU"),
        ({"a": torch.ones(2, device="meta")}, "a is not a plain tensor on the CPU"),
        ({"a": Point()}, ""),
        ({"a": np.str_("b")}, ""),
    ],
    ids=str,
)
def test_what_cannot_be_saved_is_refused(fitted, why):
    with pytest.raises(InputError, match=f"^recipe own, task own-task: what `fit` returns: .*{why}") as caught:
        learn(fitted)
    assert "\n" not in str(caught.value)


def test_all_else_is_saved_and_read_as_it_is(tmp_path):
    number = torch.tensor(2.5, dtype=torch.float64)
    simple = {"a": [None, True, 10**400, ("text", {1: {}})], "tau": np.float64(0.1), 2.5: "stopped", "stopped": "x"}
    fitted, _ = learn({**simple, "weights": number})
    (tmp_path / "file").write_bytes(to_bytes(fitted))
    content = read(tmp_path / "file")
    assert torch.equal(content.pop("weights"), number)
    assert content == simple


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (lambda encodings: encodings, "its model returns 1000 x 37 x 10 torch.float32: expected 1000 real numbers"),
        (lambda encodings: encodings.sum((1, 2)) / 0, "1000 of 1000 scores are not finite"),
        (lambda encodings: (encodings[:, 0, 0] - 1).log(), "1000 of 1000 scores are not finite"),
    ],
)
def test_a_model_that_cannot_score_is_refused_before_it_is_saved(scores, why):
    with pytest.raises(InputError, match=f"^recipe own, task own-task: {why}"):
        learn({}, scores)


@pytest.mark.parametrize(
    ("scores", "constant"),
    [
        (lambda encodings: np.full(len(encodings), 0.1), True),
        (lambda encodings: 1e9 + 1e-6 * encodings.sum((1, 2)).double(), False),
        (lambda encodings: encodings[:, 0, 0], False),
    ],
)
def test_one_score_for_all_is_noticed(scores, constant):
    assert learn({}, scores)[1] is constant


def test_a_checkpoint_without_what_intervals_need_is_refused(tmp_path):
    class Intervals(OwnRecipe):
        def rank_interval(self, checkpoint, scores, n, probability):
            return (scores - checkpoint["width"]).long(), (scores + checkpoint["width"]).long()

    recipe, path = Intervals("own", "own"), tmp_path / "file"
    save_checkpoint(path, recipe, TASK, {"effects": torch.ones(370), "width": 1.0})
    assert recipe.load(path, TASK).checkpoint["width"] == 1
    save_checkpoint(path, recipe, TASK, {"effects": torch.ones(370)})
    with pytest.raises(InputError, match=r"file: not a checkpoint that .*width"):
        recipe.load(path, TASK)


def test_a_checkpoint_says_what_it_is():
    task = find_task("sop")
    own = OwnRecipe("own", "suffix")
    about = {"data": "f" * 64, "versions": versions(), "stopped": None}
    assert own.header(task, "f" * 64, "cpu") == {"task": {"name": "sop"}, "recipe": "own"} | about
    settings = {"name": "sop", "lr": 1e-3, "weight_decay": 6e-4, "batch_size": 50, "train_ratio": 0.8, "seed": 4}
    settings |= {"dropout_ratio": 0.5, "cos": True, "val_interval": 1, "snapshot": -4, "num_epochs": 400, "keep": 50}
    assert REFERENCE.header(task, "f" * 64, "cpu") == {"task": settings} | about
    assert own.path("r", task).as_posix() == "r/sop_suffix.pth"
    assert REFERENCE.path("r", task).as_posix() == "r/sop_final.pth"
    assert own.describe({}) == "own"
    assert own.train_steps(task, 2) == (1, 1)


def test_settings_are_those_of_the_recipe():
    changed = REFERENCE.configure(TASK, {"lr": 0.1, "cos": True})
    assert (changed.lr, changed.cos, changed.seed) == (0.1, True, TASK.seed)
    with pytest.raises(InputError, match=r"^--cos: the recipe own has no such setting"):
        OwnRecipe("own", "own").configure(TASK, {"cos": True})
    with pytest.raises(InputError, match="lr 0"):
        REFERENCE.configure(TASK, {"lr": 0})
