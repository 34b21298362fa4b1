import pytest

import space
from dataset import DataError, sample_architectures

LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000" * 2


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


def test_the_largest_is_vit_b_16():
    measured = space.measure([LARGEST])
    assert measured.parameters[0] == 85_798_656
    assert measured.macs[0] / 1e9 == pytest.approx(17.56, abs=0.005)
    assert (measured.layers[0], measured.heads[0].tolist(), measured.mlp_ratios[0].tolist()) == (
        12,
        [12] * 12,
        [4.0] * 12,
    )
    assert space.NUM_ARCHITECTURES == 317_297_380_491


def test_units_of_a_mixed_architecture():
    measured = space.measure(["j" + "231" + "121" + "331" * 8 + "000" * 2])
    assert measured.layers.tolist() == [10]
    assert measured.heads[0].tolist() == [11, 12] + [10] * 8 + [0, 0]
    assert measured.mlp_ratios[0].tolist() == [3.0, 3.5] + [3.0] * 8 + [0, 0]


def test_strings_undo_choices():
    architectures = sample_architectures(500, seed=3)
    assert space.strings(space.choices(architectures)) == architectures
    with pytest.raises(DataError, match="architecture 0"):
        space.choices(["x"])
