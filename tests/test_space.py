"""Spaces: an enumerated toy one, ConfigSpace's files, what is refused; VIT's sizes by a walk through the modules."""

import itertools
import json
from collections import Counter

import ConfigSpace
import numpy as np
import pytest
from helpers import BENCHMARKS, needs_benchmarks
from toy import TOY, one_hot

from common.files import InputError
from space import VIT, Decision, Space, read_space

LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000" * 2
MIXED = "j" + "231" + "121" + "331" * 8 + "000" * 2


def walk(architecture):
    """(parameters, multiply-accumulates), module by module, of a vision transformer without its head."""
    linear = lambda inputs, outputs: inputs * outputs + outputs  # noqa: E731
    params = linear(3 * 16 * 16, 768) + 768 + 197 * 768 + 2 * 768
    macs = 196 * 3 * 16 * 16 * 768
    for i in range({"j": 10, "k": 11, "l": 12}[architecture[0]]):
        heads = {"1": 12, "2": 11, "3": 10}[architecture[1 + 3 * i]]
        hidden = {"1": 3072, "2": 2688, "3": 2304}[architecture[2 + 3 * i]]
        params += 3 * linear(768, 64 * heads) + linear(64 * heads, 768) + 2 * 2 * 768
        params += linear(768, hidden) + linear(hidden, 768)
        macs += 197 * 768 * 64 * heads * 4 + heads * 2 * 197 * 197 * 64 + 2 * 197 * 768 * hidden
    return params, macs


def test_the_competitions_space_in_real_units():
    architectures = [*VIT.sample(300, seed=0), LARGEST, SMALLEST]
    measured = VIT.measure(architectures)
    assert list(zip(measured["params"], measured["macs"], strict=True)) == list(map(walk, architectures))
    params, macs = walk(LARGEST)
    assert (params, round(macs / 1e9, 2)) == (85_798_656, 17.56)
    assert (VIT.size, VIT.shape, len(VIT.features)) == (9**10 + 9**11 + 9**12, (37, 10), 87)
    assert VIT.values(MIXED) == {"depth": 10, "heads": [11, 12] + [10] * 8, "mlp_ratio": [3, 3.5] + [3] * 8}


def enumerate_plainly(space):
    """All architectures of a space as {decision: choice}, by trying every combination."""
    found = []
    for choices in itertools.product(*(decision.choices for decision in space.decisions)):
        values = dict(zip((decision.name for decision in space.decisions), choices, strict=True))
        for decision in space.decisions:
            if decision.parent and values.get(decision.parent, "absent") not in decision.when:
                del values[decision.name]
        found.append(json.dumps(values))  # in which 1 and true differ
    return [json.loads(text) for text in dict.fromkeys(found)]


def test_strings_objects_and_encodings_name_the_same_architectures():
    objects, strings = enumerate_plainly(TOY), TOY.all()
    assert len(set(strings)) == len(objects) == TOY.size
    assert sorted(TOY.strings(TOY.parse(objects))) == strings == sorted(strings)
    constants = {decision.name for decision in TOY.decisions if len(decision.choices) == 1}
    for values, string in zip(objects, TOY.strings(TOY.parse(objects)), strict=True):
        plain = ""
        for decision in TOY.decisions:
            codes = dict(zip(map(json.dumps, decision.choices), decision.characters, strict=False))
            plain += codes[json.dumps(values[decision.name])] if decision.name in values else "-"
        assert plain == string
        without = {name: choice for name, choice in values.items() if name not in constants}
        assert TOY.strings(TOY.parse([without])) == [string]
    encodings = np.array([one_hot(TOY, string).ravel() for string in strings])
    assert encodings.any(0).nonzero()[0].tolist() == TOY.features
    for feature, decision in zip(TOY.features, TOY.feature_decision, strict=True):
        assert decision in (feature // TOY.shape[1], -1)
        assert (decision == -1) == (len(TOY.decisions[feature // TOY.shape[1]].choices) == 1)


def test_costs_are_sums_and_the_cheapest_is_that_of_all():
    strings = TOY.all()
    for cost in TOY.costs.values():
        plain = [
            cost.base + sum(cost.table[i, c] for i, c in enumerate(choices) if c >= 0) for choices in TOY.parse(strings)
        ]
        np.testing.assert_allclose(cost.of(TOY.parse(strings)), plain)
        assert cost.of(TOY.cheapest(cost)[None])[0] == min(plain)
    name = next(iter(TOY.costs))
    with pytest.raises(InputError, match=f"no architecture is within the budget: the smallest {name} is "):
        TOY.limits({name: -1e9})
    with pytest.raises(InputError, match="no cost is called 'x': toy has "):
        TOY.limits({"x": 1})


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("m" + LARGEST[1:], r"position 0 \(depth\) is 'm': expected j or k or l$"),
        ("l0" + LARGEST[2:], r"position 1 \(heads 1\) is '0': expected 1 or 2 or 3$"),
        (LARGEST[:6] + "2" + LARGEST[7:], r"position 6 \(embedding 2\) is '2': expected 1$"),
        (SMALLEST[:31] + "1" + SMALLEST[32:], r"position 31 \(heads 11\) is '1': expected 0, as depth is 10$"),
        (LARGEST[:36] + "\N{FULLWIDTH DIGIT ONE}", r"position 36 .* expected 1, as depth is 12$"),
        (LARGEST + "1", "has 38 characters: expected 37$"),
        (None, "is null: expected a string of 37 characters or an object$"),
        ({"depth": 13}, "depth is 13: expected 10 or 11 or 12$"),
        ({"depth": 10.0}, "depth is 10.0: expected"),
        ({"depth": 12}, "lacks 'heads 1'$"),
        ({"width": 1}, "has 'width', which is no decision of ViT-Base$"),
        (VIT.values(MIXED) | {"heads 12": 12}, "has 'heads', which is no decision"),
    ],
)
def test_a_bad_architecture_is_named_with_its_position_or_decision(architecture, message):
    for keys, name in ((["arch6", "arch7", "arch8"], "arch7"), (None, "architecture 1")):
        with pytest.raises(InputError, match=f"^{name}: arch {message}"):
            VIT.parse([LARGEST, architecture, SMALLEST], keys)


def test_an_absent_decision_in_an_object_is_named():
    child = next(decision for decision in TOY.decisions if decision.parent)
    values = next(values for values in enumerate_plainly(TOY) if child.name not in values)
    with pytest.raises(InputError, match=f"has '{child.name}', which is not present: leave it out"):
        TOY.parse([values | {child.name: child.choices[0]}])


def test_samples_are_distinct_reproducible_and_none_of_the_excluded():
    first = VIT.sample(300, seed=5)
    assert VIT.sample(300, seed=5) == first != VIT.sample(300, seed=6)
    other = VIT.sample(300, seed=5, exclude=first[:100])
    assert len({*first[:100], *other}) == 400
    assert VIT.sample(0, seed=5) == []
    left = set(TOY.all()) - set(TOY.all()[:3])
    assert set(TOY.sample(TOY.size - 3, seed=1, exclude=TOY.all()[:3])) == left
    assert TOY.some(10**6) == TOY.all() and len(set(TOY.some(3))) == 3
    for n in (-1, TOY.size + 1):
        with pytest.raises(ValueError, match=f"n is {n}: must be from 0 to {TOY.size}"):
            TOY.sample(n, seed=5)


@pytest.mark.parametrize("space", [VIT, TOY], ids=lambda space: space.name)
def test_draws_are_uniform_in_each_decision(space):
    choices = space.draw(9000, np.random.RandomState(7))
    assert set(space.strings(choices)) <= set(TOY.all()) or space is VIT
    for column, decision, present in zip(choices.T, space.decisions, space.present(choices).T, strict=True):
        counts = Counter(column[present].tolist())
        expected = present.sum() / len(decision.choices)
        assert sorted(counts) == list(range(len(decision.choices)))
        assert all(abs(count - expected) < 5 * np.sqrt(expected) for count in counts.values())


def test_configspaces_own_file_is_read(tmp_path):
    """Which sorts decisions by their names: kinds are in the order of the numbers all the same."""
    space = ConfigSpace.ConfigurationSpace(name="mine")
    depth = ConfigSpace.OrdinalHyperparameter("depth", [10, 11, 12])
    blocks = [ConfigSpace.CategoricalHyperparameter(f"block {i}", ["conv", "attention"]) for i in range(1, 13)]
    width = ConfigSpace.Constant("width", 768)
    ratio = ConfigSpace.OrdinalHyperparameter("ratio", [2.0, 3.5], meta={"kind": "mlp"})
    space.add([depth, *blocks, width, ratio])
    space.add(
        [ConfigSpace.InCondition(blocks[10], depth, [11, 12]), ConfigSpace.EqualsCondition(blocks[11], depth, 12)]
    )
    space.to_json(tmp_path / "space.json")
    ours = read_space(tmp_path / "space.json")
    assert (ours.name, ours.size) == ("mine", 2 * (2**10 + 2**11 + 2**12))
    kinds = [[ours.decisions[i].name for i in places] for places in ours.kinds.values()]
    assert [f"block {i}" for i in range(1, 13)] in kinds and len(kinds) == 4
    configurations = [dict(configuration) for configuration in space.sample_configuration(50)]
    for string, configuration in zip(ours.strings(ours.parse(configurations)), configurations, strict=True):
        values = ours.values(string)
        assert values["depth"] == configuration["depth"] and values["ratio"] == configuration["ratio"]
        assert values["block"] == [configuration[f"block {i}"] for i in range(1, 13) if f"block {i}" in configuration]


ONE = {"type": "categorical", "name": "one", "choices": ["a", "b"]}
TWO = {"type": "ordinal", "name": "two", "sequence": [1, 2, 3]}
EQ = {"type": "EQ", "child": "two", "parent": "one", "value": "a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "expected ConfigSpace's JSON"),
        ({"condition": [EQ]}, "unknown key 'condition': expected hyperparameters, conditions, costs"),
        ({"conditions": [{**EQ, "type": "IN", "values": []}]}, "two: condition on one: has no values"),
        ({"hyperparameters": []}, "has no hyperparameters"),
        ({"hyperparameters": [5]}, "hyperparameter 1: expected an object with a name"),
        ({"hyperparameters": [ONE, ONE]}, "two decisions are called 'one': rename one"),
        ({"hyperparameters": [{**ONE, "type": "uniform_float"}]}, 'one: the type "uniform_float" is not supported'),
        ({"hyperparameters": [{**ONE, "choices": []}, TWO]}, "one: has no choices"),
        ({"hyperparameters": [{**ONE, "choices": "ab"}]}, "one: 'choices' is missing or no list"),
        ({"hyperparameters": [{**ONE, "choices": [1, True, 1]}, TWO]}, "one: the choice 1 occurs twice"),
        ({"hyperparameters": [{**ONE, "choices": list(range(37))}, TWO]}, "one: has 37 choices: at most 36"),
        ({"forbiddens": [{}]}, "forbidden clauses are not supported"),
        ({"conditions": [{**EQ, "type": "AND"}]}, 'condition on two: the type "AND" is not supported'),
        ({"hyperparameters": [ONE]}, 'a condition is on "two", which is no decision'),
        ({"conditions": 5}, "expected ConfigSpace's JSON"),
        ({"conditions": [{**EQ, "child": ["two"]}]}, 'a condition is on ["two"], which is no decision'),
        ({"hyperparameters": [{**ONE, "type": ["EQ"]}]}, 'one: the type ["EQ"] is not supported'),
        ({"conditions": [EQ, EQ]}, "two: has two conditions: expected one"),
        ({"conditions": [{**EQ, "value": "c"}]}, 'two: condition on one is "c": expected "a" or "b"'),
        ({"conditions": [{**EQ, "parent": "three"}]}, "two: depends on 'three', which is no decision"),
        (
            {"conditions": [{**EQ, "child": "one", "parent": "two", "value": 1}]},
            "one: depends on two, which comes later",
        ),
        ({"costs": {"ms": {"two": [1, 2]}}}, "cost ms: two: expected 3 finite numbers, one a choice"),
        ({"costs": {"ms": {"two": [1, 2, True]}}}, "cost ms: two: expected 3 finite numbers, one a choice"),
        ({"costs": {"ms": {"three": [1]}}}, "cost ms: 'three' is no decision"),
        ({"costs": {"ms": 5}}, "costs: expected "),
        ({"costs": {"score": {"two": [1, 2, 3]}}}, "cost score: the name has another meaning: choose another"),
    ],
)
def test_a_space_that_cannot_be_read_is_one_line(tmp_path, change, message):
    path, content = tmp_path / "space.json", {"name": "x", "hyperparameters": [ONE, TWO], "conditions": [EQ]}
    path.write_text(json.dumps(content))
    assert read_space(path).all() == ["00", "01", "02", "1-"]
    path.write_text(json.dumps({**content, **change} if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=rf"^{path}: ") as caught:
        read_space(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_architectures_of_a_long_chain_of_conditions_are_counted_at_once():
    decisions = [Decision("categorical", "d0", (0, 1, 2))]
    for i in range(1, 40):
        decisions.append(Decision("categorical", f"d{i}", (0, 1, 2), parent=f"d{i - 1}", when=(0, 1)))
    assert Space("chain", decisions[:4]).size == len(Space("chain", decisions[:4]).all()) == 31
    assert Space("chain", decisions).size == 2**41 - 1


def test_the_digest_is_that_of_what_an_encoding_depends_on(tmp_path):
    def digest(**change):
        path = tmp_path / "space.json"
        path.write_text(json.dumps({"hyperparameters": [ONE, TWO], "conditions": [EQ], **change}))
        return read_space(path).digest

    assert digest() == digest(costs={"ms": {"one": [1, 2]}}, name="other", format_version=0.4) != VIT.digest
    others = [digest(conditions=[]), digest(hyperparameters=[TWO, ONE], conditions=[])]
    others += [digest(hyperparameters=[ONE, {**TWO, "sequence": sequence}]) for sequence in ([1, 2, 4], [1.0, 2, 3])]
    others += [digest(hyperparameters=[{**ONE, "type": "ordinal", "sequence": ["a", "b"]}, TWO])]
    assert len({digest(), *others}) == 6


@needs_benchmarks
@pytest.mark.parametrize("name", ["hw-gpt-s", "nas-bench-201", "nas-bench-macro", "nas-bench-mr"])
def test_public_spaces_are_read(name):
    space = read_space(BENCHMARKS / name / "space.json")
    assert len(set(space.sample(50, seed=0))) == 50
