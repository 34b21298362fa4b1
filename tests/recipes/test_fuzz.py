"""Made-up and mutated input: what is wrong is refused by name, what is right comes out right.

`python -m pytest -m slow -s tests/recipes/test_fuzz.py` tries 30,000 mutations and reports.
"""

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import OwnRecipe, make_entries, one_hot
from hypothesis import given, settings
from hypothesis import strategies as st

import recipes
from common.files import InputError
from dataset import encode, load_train
from recipes.checkpoint import to_bytes
from recipes.model import score
from space import DEPTHS, sample_architectures
from tasks import find_task

codes = st.sampled_from("123")
layer = st.builds(lambda heads, ratio: f"{heads}{ratio}1", codes, codes)


@st.composite
def architectures(draw):
    depth = draw(st.sampled_from("jkl"))
    layers = draw(st.lists(layer, min_size=DEPTHS[depth], max_size=DEPTHS[depth]))
    return depth + "".join(layers).ljust(36, "0")


@given(architectures(), st.integers(0, 36), st.characters())
def test_a_changed_character_is_refused_where_it_is_or_makes_another_architecture(architecture, position, character):
    np.testing.assert_array_equal(encode([architecture])[0], one_hot(architecture))
    changed = architecture[:position] + character + architecture[position + 1 :]
    try:
        encoding = encode([changed])[0]
    except InputError as error:
        # A changed depth shows at the first layer that is missing or too many.
        assert position == 0 or f"arch position {position} is " in str(error)
    else:
        np.testing.assert_array_equal(encoding, one_hot(changed))


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
    with pytest.raises(InputError, match=r"train\.json: "):
        load_train(path)


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


def labels_of(entries):
    """{task name: (labels, whether larger is better)} of a file's entries, by the ends of their fields' names."""
    ends = {"_rank": False, "_accuracy": True}
    fields = dict.fromkeys(field for entry in entries for field in entry)
    return {
        field.removesuffix(end): ([entry[field] for entry in entries], larger)
        for field in fields
        for end, larger in ends.items()
        if field.endswith(end)
    }


def count_training_files(path, tries):
    """Load mutated training files; returns how many were refused and how many were still right."""
    original = json.dumps(make_entries(sample_architectures(40, seed=1))).encode()
    chance, counts = random.Random(tries), Counter()
    for _ in range(tries):
        path.write_bytes(mutate(original, chance))
        try:
            architectures, ranks = load_train(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            counts["refused"] += 1
        else:  # then it reads as JSON, and what was loaded is what it says
            entries = list(json.loads(path.read_text()).values())
            assert architectures == [entry["arch"] for entry in entries]
            expected = labels_of(entries)
            assert set(ranks) == set(expected)
            for name, (labels, larger) in expected.items():
                better = [sum(other > label if larger else other < label for other in labels) for label in labels]
                assert ranks[name].tolist() == better
            counts["right"] += 1
    return counts


def tensors(content):
    """All tensors in nested dictionaries and lists, in order."""
    if torch.is_tensor(content):
        return [content]
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [tensor for value in inner for tensor in tensors(value)]


def count_checkpoints(folder, tries, kind):
    """Load mutated checkpoints; returns how many were refused, right, or gave other numbers."""
    chance, counts = random.Random(tries), Counter()
    recipe = OwnRecipe("own", "own") if kind == "own" else recipes.get("reference" if kind == "pickle" else kind)
    settings = {"num_epochs": 2, "batch_size": 8, "snapshot": -1, "keep": 1} if recipe.settings else {}
    task = recipe.configure(find_task("sop"), settings)
    path = recipe.path(folder, task)
    fitted, _ = recipe.learn(task, sample_architectures(50, seed=1), np.arange(50))
    if kind == "pickle":
        weights = fitted["snapshots"][-1]["state_dict"]
        torch.save({np.float64(0.5): weights}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(to_bytes(recipe.header(task, "f" * 64, "cpu") | fitted))
    original, expected = path.read_bytes(), tensors(recipe.load(path, task).checkpoint)
    for _ in range(tries):
        path.write_bytes(mutate(original, chance))
        try:
            predictor = recipe.load(path, task)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            counts["refused"] += 1
        else:
            found = tensors(predictor.checkpoint)
            same = len(found) == len(expected) and all(map(torch.equal, found, expected))
            # The older format has no checksums: other numbers cannot be told from the right ones.
            assert same or kind == "pickle"
            assert score([predictor.model], sample_architectures(3, seed=0)).isfinite().all()
            counts["right" if same else "other numbers"] += 1
    return counts


def report(name, counts):
    print(f"\n{name}: tried {counts.total():,}; " + ", ".join(f"{kind} {n:,}" for kind, n in counts.items()))


@pytest.mark.parametrize("tries", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_mutated_training_files(tmp_path, tries):
    counts = count_training_files(tmp_path / "train.json", tries)
    report("mutated training files", counts)
    assert counts["refused"] > tries / 2
    assert counts["right"]


@pytest.mark.parametrize("tries", [60, pytest.param(4000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("kind", ["reference", "gp", "ridge", "own", "pickle"])
def test_mutated_checkpoints(tmp_path, tries, kind):
    counts = count_checkpoints(tmp_path, tries, kind)
    report(f"mutated checkpoints, {kind}", counts)
    assert counts["refused"] > tries / 10
