"""The space: sizes by a walk through the modules, strings refused by position, samples that are uniform."""

from collections import Counter

import numpy as np
import pytest
from helpers import one_hot

import space
from common.files import InputError
from space import sample_architectures

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


def test_sizes_equal_a_walk_through_the_modules():
    architectures = [*sample_architectures(300, seed=0), LARGEST, SMALLEST]
    measured = space.measure(architectures)
    assert list(zip(measured.parameters, measured.macs, strict=True)) == list(map(walk, architectures))


def test_the_units_of_vit_b_16_and_of_a_smaller_one():
    params, macs = walk(LARGEST)
    assert (params, round(macs / 1e9, 2)) == (85_798_656, 17.56)
    measured = space.measure([MIXED])
    assert measured.layers == [10]
    assert measured.heads.tolist() == [[11, 12] + [10] * 8 + [0, 0]]
    assert measured.mlp_ratios.tolist() == [[3, 3.5] + [3] * 8 + [0, 0]]
    assert measured.layers_text(0) == "11/3 12/3.5" + " 10/3" * 8


def test_a_layer_option_is_a_number_for_heads_and_ratio():
    assert space.layer_options([MIXED]).tolist() == [[5, 1] + [8] * 8 + [-1, -1]]
    architectures = sample_architectures(500, seed=3)
    assert space.strings(space.layer_options(architectures)) == architectures


def test_features_are_the_entries_that_can_be_nonzero_and_belong_to_decisions():
    encodings = np.array([one_hot(architecture).ravel() for architecture in sample_architectures(300, seed=4)])
    assert encodings.any(0).nonzero()[0].tolist() == space.FEATURES
    of_layers = [[1 + 2 * i] * 3 + [2 + 2 * i] * 3 + [-1] for i in range(12)]
    assert space.FEATURE_DECISION.tolist() == sum(of_layers, [0] * 3)
    assert space.DECISIONS == 25


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("m" + LARGEST[1:], "position 0 is 'm': expected j or k or l"),
        ("l0" + LARGEST[2:], "position 1 is '0': expected 1 or 2 or 3 in layer 1, depth 12"),
        (LARGEST[:6] + "2" + LARGEST[7:], "position 6 is '2': expected 1 in layer 2, depth 12"),
        (SMALLEST[:31] + "1" + SMALLEST[32:], "position 31 is '1': expected 0 in layer 11, depth 10"),
        (LARGEST[:36] + "\N{FULLWIDTH DIGIT ONE}", "position 36 is '\N{FULLWIDTH DIGIT ONE}': expected 1 in layer 12"),
        (LARGEST + "1", "has 38 characters: expected 37"),
        (None, "is null: expected a string of 37 characters"),
    ],
)
def test_a_bad_architecture_is_named_with_its_position(architecture, message):
    for keys, name in ((["arch6", "arch7", "arch8"], "arch7"), (None, "architecture 1")):
        with pytest.raises(InputError, match=f"^{name}: arch {message}"):
            space.columns([LARGEST, architecture, SMALLEST], keys)


def test_samples_are_distinct_reproducible_and_none_of_the_excluded():
    first = sample_architectures(300, seed=5)
    assert sample_architectures(300, seed=5) == first != sample_architectures(300, seed=6)
    other = sample_architectures(300, seed=5, exclude=first[:100])
    assert len({*first[:100], *other}) == 400
    assert sample_architectures(0, seed=5) == []
    with pytest.raises(ValueError, match="must not be negative"):
        sample_architectures(-1, seed=5)


def test_samples_are_uniform_in_depth_and_in_each_decision():
    architectures = sample_architectures(9000, seed=7)
    for position in (0, 1, 2, 28, 29):
        counts = Counter(architecture[position] for architecture in architectures)
        assert len(counts) == 3
        assert all(abs(count - 3000) < 5 * 45 for count in counts.values())  # five standard deviations


def test_a_budget_below_the_smallest_architecture_is_refused():
    params, macs = walk(SMALLEST)
    assert space.budgets(params, macs) == [(space.PARAMETERS, params), (space.MACS, macs)]
    for budget in ((params - 1, None), (None, macs - 1)):
        with pytest.raises(InputError, match=rf"the smallest has {params:,} parameters and {macs:,} multiply"):
            space.budgets(*budget)
