"""Scores of described models and of functions, against plain computations."""

import numpy as np
import pytest
import torch

from common.files import InputError
from dataset import encode
from engine.model import CHUNK, combine, score
from network import Predictor
from recipes.base import Model
from space import VIT

ARCHITECTURES = VIT.sample(CHUNK + 3, seed=4)
MATRIX = torch.randn(87, 87, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 100
torch.manual_seed(0)
PREDICTORS = [Predictor(*VIT.shape).eval() for _ in range(3)]
NETWORKS = [predictor.state_dict() for predictor in PREDICTORS]


def layers(encodings):
    return encodings[:, :, 9].sum(1)


@pytest.mark.parametrize("n", [0, 1, CHUNK + 3])
def test_models_of_every_kind_are_scored_together(n):
    encodings = encode(VIT, ARCHITECTURES[:n])
    with torch.no_grad():
        a, b, c = (predictor(encodings).numpy() for predictor in PREDICTORS)
    quadratic = np.array([x @ MATRIX.numpy() @ x for x in encodings.flatten(1)[:, VIT.features].double().numpy()])
    depths = np.array([10 + "jkl".index(string[0]) for string in ARCHITECTURES[:n]])
    pairs = [
        (Model(VIT, None, NETWORKS[:1], (1.0,)), a),
        (Model(VIT, MATRIX), quadratic),
        (Model(VIT, MATRIX, NETWORKS[1:], (0.25, -2.0)), quadratic + 0.25 * b - 2 * c),
        (Model(VIT, function=lambda encodings: encodings.zero_().sum((1, 2))), 0 * depths),  # changes only its own copy
        (Model(VIT, function=lambda e: 1e9 + layers(e).double() / 1000), 1e9 + depths / 1000),
    ]
    scores = score([model for model, _ in pairs], ARCHITECTURES[:n])
    np.testing.assert_allclose(scores, [expected for _, expected in pairs], rtol=0, atol=1e-6)
    assert score([Model(VIT, MATRIX)], ARCHITECTURES[:n]).dtype == torch.float32


@pytest.mark.parametrize(
    ("convert", "returned"),
    [
        (lambda scores: scores[:, None], "7 x 1 torch.float32"),
        (lambda scores: scores.sum(), "one torch.float32"),
        (lambda scores: scores + 0j, "7 torch.complex64"),
        (lambda scores: scores > 11, "7 torch.bool"),
        (lambda scores: scores.to_sparse(), "7 torch.float32"),
        (lambda scores: "scores", "a str"),
    ],
)
def test_a_function_that_returns_anything_but_real_numbers_is_refused(convert, returned):
    with pytest.raises(InputError, match=f"^task b: its model returns {returned}: expected 7 real numbers$"):
        score(
            [Model(VIT, function=f) for f in (layers, lambda e: convert(layers(e)))],
            ARCHITECTURES[:7],
            names=["task a", "task b"],
        )


def test_scores_that_are_not_finite_are_refused():
    deep = sum(string[0] == "l" for string in ARCHITECTURES)
    with pytest.raises(InputError, match=f"^model 1: {deep} of {CHUNK + 3} scores are not finite: train it again$"):
        score([Model(VIT, function=f) for f in (layers, lambda e: (12 - layers(e)).log())], ARCHITECTURES)
    huge = {name: value * 1e20 for name, value in NETWORKS[0].items()}
    with pytest.raises(InputError, match=r"^model 0: 7 of 7 scores are not finite"):
        score([Model(VIT, None, (huge,), (1.0,))], ARCHITECTURES[:7])


@pytest.mark.parametrize("constant", [0.0, 1e9 + 0.1])
@pytest.mark.parametrize("described", [True, False])
def test_combined_scores_are_the_mean_of_the_standardised_ones(constant, described):
    models = [
        Model(VIT, function=lambda encodings: layers(encodings).numpy()),
        Model(VIT, function=lambda encodings: 1e6 * encodings[:, 1, 3]),
        Model(VIT, function=lambda encodings: torch.full((len(encodings),), constant).double()),
    ]
    if described:
        depth = torch.diag((torch.arange(87) < 3).double())  # of one depth a feature is 1
        models = [
            Model(VIT, MATRIX, NETWORKS[:2], (3.0, 1.0)),
            Model(VIT, None, NETWORKS[2:], (-1e-4,)),
            Model(VIT, float(np.float32(constant)) * depth),
        ]
    scores = score(models, [*VIT.sample(10_000, seed=0), *ARCHITECTURES]).double().numpy()
    sample = scores[:, :10_000]
    stds = np.where(np.ptp(sample, 1) > 0, sample.std(1), 1)
    standardised = (scores[:, 10_000:].T - sample.mean(1)) / stds
    for weights in (None, [1.0, 0.0, 2.5]):
        combined, expected = combine(models, weights), np.average(standardised, 1, weights)
        assert (combined.function is None) == described
        np.testing.assert_allclose(score([combined], ARCHITECTURES)[0], expected, rtol=0, atol=2e-5)
    assert combine(models[:1]) is models[0]
