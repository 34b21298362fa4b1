"""Made-up and mutated input: what is wrong is refused by name, what is right comes out right, nothing else happens.

`python -m pytest -m slow -s tests/test_fuzz.py` tries 30,000 mutations and reports.
"""

import dataclasses
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import make_content
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import kendalltau
from test_dataset import walk

import checkpoint
import dataset
import recipes.base
from metrics import kendall_tau, ranks
from network import pairwise_ranking_loss
from scoring import score
from tasks import TASKS, find_task

choice = st.sampled_from("123")
layer = st.builds(lambda heads, ratio: f"{heads}{ratio}1", choice, choice)


@st.composite
def architectures(draw):
    depth = draw(st.sampled_from("jkl"))
    layers = draw(st.lists(layer, min_size=dataset.DEPTHS[depth], max_size=dataset.DEPTHS[depth]))
    return depth + "".join(layers).ljust(36, "0")


@given(st.lists(architectures(), max_size=20))
def test_every_architecture_is_encoded(strings):
    np.testing.assert_array_equal(dataset.encode(strings), np.array([walk(s) for s in strings]).reshape(-1, 37, 10))


@given(architectures(), st.integers(0, 36), st.characters())
def test_a_changed_character_is_refused_where_it_is_or_makes_another_architecture(architecture, position, character):
    changed = architecture[:position] + character + architecture[position + 1 :]
    try:
        dataset.check_architecture(changed, "arch1")
    except dataset.DataError as error:
        # A changed depth shows at the first layer that is missing or too many.
        assert position == 0 or f"arch position {position} is " in str(error)
        with pytest.raises(dataset.DataError):
            dataset.encode([changed])
    else:
        np.testing.assert_array_equal(dataset.encode([changed])[0], walk(changed))


finite = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = st.tuples(st.integers(1, 6), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(
        arrays.arrays(np.float32, shape, elements=st.one_of(st.integers(-2, 2), finite)),
        arrays.arrays(np.int64, shape, elements=st.integers(0, 5)),
    )
)


@pytest.mark.filterwarnings("ignore")  # scipy warns of constant rows
@given(matrices)
def test_tau_of_any_scores_equals_scipy(pair):
    scores, labels = pair
    expected = [kendalltau(x, y).statistic for x, y in zip(scores, labels, strict=True)]
    np.testing.assert_allclose(kendall_tau(*map(torch.from_numpy, pair)), expected, rtol=0, atol=1e-12)


@given(arrays.arrays(np.float32, st.integers(0, 30), elements=st.one_of(st.integers(-2, 2), st.floats(width=32))))
def test_ranks_of_any_scores_follow_the_definition(scores):
    if np.isnan(scores).any():
        with pytest.raises(ValueError, match="NaN"):
            ranks(scores)
    else:
        assert ranks(scores).tolist() == [int((scores < score).sum()) for score in scores]


@given(
    arrays.arrays(np.float32, 7, elements=st.floats(-(2.0**120), 2.0**120, width=32)),
    arrays.arrays(np.int64, 7, elements=st.integers(0, 5)),
)
def test_loss_of_any_scores_is_finite_and_so_is_its_gradient(scores, labels):
    leaf = torch.tensor(scores, requires_grad=True)
    loss = pairwise_ranking_loss(leaf, torch.from_numpy(labels))
    loss.backward()
    assert loss.isfinite() and loss >= 0
    assert leaf.grad.isfinite().all() and leaf.grad.abs().max() <= 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50)
@given(json_values)
def test_any_json_that_is_no_training_file_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "train.json"
    path.write_text(json.dumps(content))
    with pytest.raises(dataset.DataError, match=r"train\.json: "):
        dataset.load_train(path)


def mutate(data, chance):
    """Change bytes of `data` in one of the ways that files get damaged."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        size = chance.choice((1, 1, 2, 8, 100))
        kind = chance.randrange(6)
        if kind == 0:
            data[at : at + size] = b""
        elif kind == 1:
            data[at:at] = chance.randbytes(size)
        elif kind == 2:
            data[at : at + size] = chance.randbytes(len(data[at : at + size]))
        elif kind == 3 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 4:
            data[at : at + size] = data[(other := chance.randrange(len(data) + 1)) : other + size]
        elif kind == 5 and chance.random() < 0.2:
            del data[at:]
    return bytes(data)


def is_number(label):
    return type(label) in (int, float) and abs(label) < float("inf")


def count_training_files(folder, tries, seed):
    """Load mutated training files; returns how many were refused and how many were still right."""
    content = make_content(dataset.sample_architectures(40, seed=1))
    original = json.dumps(content).encode()
    path, chance, counts = folder / "train.json", random.Random(seed), Counter()
    for _ in range(tries):
        path.write_bytes(mutate(original, chance))
        try:
            strings, columns = dataset.load_train(path)
        except dataset.DataError as error:
            assert str(error).startswith(f"{path}: ")
            counts["refused"] += 1
        else:  # then it reads as JSON, and what was loaded is what it says
            entries = list(json.loads(path.read_text()).values())
            assert strings == [entry["arch"] for entry in entries]
            assert set(columns) == {task.name for task in TASKS if any(task.rank_key in entry for entry in entries)}
            for task in TASKS:
                if task.name in columns:
                    labels = [entry[task.rank_key] for entry in entries]
                    assert all(map(is_number, labels))
                    assert columns[task.name].tolist() == [sum(other < label for other in labels) for label in labels]
            np.testing.assert_array_equal(dataset.encode(strings), np.array([walk(string) for string in strings]))
            counts["right"] += 1
    return counts


class Own(recipes.base.Recipe):
    """A user's recipe with nothing but what it must have."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {"effects": encodings.mean(0).flatten()}

    def model(self, content, index=None):
        return lambda encodings: encodings.flatten(1) @ content["effects"]


def tensors(content):
    """All tensors in nested dictionaries and lists, in order."""
    if torch.is_tensor(content):
        return [content]
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [tensor for value in inner for tensor in tensors(value)]


def count_checkpoints(folder, tries, seed, kind):
    """Load mutated checkpoints; returns how many were refused, right, or gave other numbers."""
    task = dataclasses.replace(find_task("sop"), num_epochs=2, batch_size=8, snapshot=-1, keep=1)
    pickled, chance, counts = kind == "pickle", random.Random(seed), Counter()
    recipe = Own("own", "own") if kind == "own" else recipes.get("reference" if pickled else kind)
    path = recipe.path(folder, task)
    encodings, ranked = dataset.encode(dataset.sample_architectures(50, seed=1)), np.arange(50)
    content = recipe.header(task, "f" * 64, "cpu") | recipe.fit(task, encodings, ranked)
    if pickled:
        weights = content["snapshots"][-1]["state_dict"]
        torch.save({np.float64(0.5): weights}, path, _use_new_zipfile_serialization=False)
        content = recipe.load(path, task)
    else:
        checkpoint.save(path, content)
    original, expected = path.read_bytes(), tensors(content)
    for _ in range(tries):
        path.write_bytes(mutate(original, chance))
        try:
            loaded = recipe.load(path, task)
            model = recipe.model(loaded, recipe.snapshot_index(path, loaded))
        except checkpoint.CheckpointError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            counts["refused"] += 1
        else:
            found = tensors(loaded)
            same = len(found) == len(expected) and all(map(torch.equal, found, expected))
            # The older format has no check sums: other numbers cannot be told from the right ones.
            assert same or pickled
            assert all(tensor.isfinite().all() for tensor in found)
            if counts.total() % 100 == 0:
                assert score([model], dataset.sample_architectures(3, seed=0)).shape == (1, 3)
            counts["right" if same else "other numbers"] += 1
    return counts


def report(name, counts):
    print(f"\n{name}: tried {counts.total():,}; " + ", ".join(f"{kind} {n:,}" for kind, n in counts.items()))


@pytest.mark.parametrize("tries", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_training_files(tmp_path, tries):
    counts = count_training_files(tmp_path, tries, seed=tries)
    report("mutated training files", counts)
    assert counts["refused"] > tries / 2


@pytest.mark.parametrize("tries", [60, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["reference", "gp", "ridge", "own", "pickle"])
def test_mutated_checkpoints(tmp_path, tries, kind):
    counts = count_checkpoints(tmp_path, tries, seed=tries, kind=kind)
    report(f"mutated checkpoints, {kind}", counts)
    assert counts["refused"] > tries / 10
