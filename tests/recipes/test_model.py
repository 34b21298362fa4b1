"""Scores of described models and of functions, against plain computations."""

import numpy as np
import pytest
import torch

from common.files import InputError
from dataset import encode
from network import Predictor
from recipes.model import CHUNK, Model, combine, score
from space import FEATURES, sample_architectures

ARCHITECTURES, NOTHING = sample_architectures(CHUNK + 3, seed=4), torch.zeros(87, 87, dtype=torch.float64)
MATRIX = torch.randn(87, 87, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def predictors():
    torch.manual_seed(0)
    return [Predictor().eval() for _ in range(3)]


@pytest.mark.parametrize("n", [0, 1, 7, CHUNK, CHUNK + 1])
def test_scores_equal_those_of_each_predictor(predictors, n):
    scores = score([Model(NOTHING, (each.state_dict(),), (1.0,)) for each in predictors], ARCHITECTURES[:n])
    with torch.no_grad():
        expected = torch.stack([predictor(encode(ARCHITECTURES[:n])) for predictor in predictors])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def active_layers(encodings):
    return encodings[:, :, 9].sum(1)


def quadratic(architectures):
    x = encode(architectures).flatten(1)[:, FEATURES].double()
    return np.array([row @ MATRIX @ row for row in x])


def test_models_of_every_kind_are_scored_together(predictors):
    a, b, c = (predictor.state_dict() for predictor in predictors)
    networks, both = Model(NOTHING, (a, c), (0.25, -2.0)), Model(MATRIX, (b,), (3.0,))
    models = [Model(MATRIX), networks, lambda encodings: encodings.zero_().sum((1, 2)), active_layers, both]
    with torch.no_grad():
        a, b, c = (predictor(encode(ARCHITECTURES)).numpy() for predictor in predictors)
    matrix, layers = quadratic(ARCHITECTURES), [10 + "jkl".index(string[0]) for string in ARCHITECTURES]
    expected = [matrix, 0.25 * a - 2 * c, 0 * matrix, layers, matrix + 3 * b]
    np.testing.assert_allclose(score(models, ARCHITECTURES), expected, rtol=1e-4, atol=1e-3)


def test_close_scores_of_a_function_stay_distinct():
    expected = (np.random.RandomState(0).permutation(len(ARCHITECTURES)) * 1e-3 + 1e9).tolist()
    numbers = iter(expected)
    scores = score([lambda encodings: np.array([next(numbers) for _ in encodings])], ARCHITECTURES)
    assert scores[0].tolist() == expected


@pytest.mark.parametrize(
    ("convert", "returned"),
    [
        (lambda scores: scores[:, None], "7 x 1 torch.float32"),
        (lambda scores: scores[1:], "6 torch.float32"),
        (lambda scores: scores.sum(), "one torch.float32"),
        (lambda scores: scores + 0j, "7 torch.complex64"),
        (lambda scores: scores > 11, "7 torch.bool"),
        (lambda scores: None, ""),
        (lambda scores: "scores", ""),
        (lambda scores: [None] * 7, ""),
        (torch.Tensor.to_sparse, ""),
    ],
)
def test_a_function_that_returns_anything_but_real_numbers_is_refused(convert, returned):
    with pytest.raises(InputError, match=f"task b: its model returns {returned}.*: expected 7 real numbers"):
        score([active_layers, lambda e: convert(active_layers(e))], ARCHITECTURES[:7], names=["task a", "task b"])


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused(predictors, number):
    def some(encodings):
        return torch.where(active_layers(encodings) == 12, number, 0)

    deep = sum(string[0] == "l" for string in ARCHITECTURES)
    with pytest.raises(InputError, match=f"model 1: {deep} of {CHUNK + 3} scores are not finite: train it again"):
        score([active_layers, some], ARCHITECTURES)
    huge = {name: value * 1e20 for name, value in predictors[0].state_dict().items()}
    with pytest.raises(InputError, match="model 0: 7 of 7 scores are not finite"):
        score([Model(NOTHING, (huge,), (1.0,))], ARCHITECTURES[:7])


def test_a_bad_architecture_is_refused():
    with pytest.raises(InputError, match="architecture 1: arch has 3 characters"):
        score([Model(MATRIX)], [ARCHITECTURES[0], "l11"])


def standardised(scores):
    """scores: of 10,000 sampled architectures and then of ARCHITECTURES; constant ones are 0."""
    sample = scores[:10_000]
    return (scores[10_000:] - sample.mean()) / ((np.ptp(sample) and sample.std()) or 1)


@pytest.mark.parametrize("kinds", ["described", "functions"])
@pytest.mark.parametrize("constant", [0.0, 1 / 3, 1e9 + 0.1])
def test_combined_scores_are_the_mean_of_the_standardised_ones(predictors, kinds, constant):
    architectures = [*sample_architectures(10_000, seed=0), *ARCHITECTURES]
    with torch.no_grad():
        network = predictors[0](encode(architectures)).numpy()
    matrix, layers = quadratic(architectures), np.array([10.0 + "jkl".index(string[0]) for string in architectures])
    state = predictors[0].state_dict()
    depth = torch.diag((torch.arange(87) < 3).double())  # of one depth a feature is 1
    described = [
        (Model(MATRIX, (state,), (3.0,)), matrix + 3 * network),
        (Model(NOTHING, (state,), (-1e-4,)), -1e-4 * network),
        (Model(float(np.float32(constant)) * depth), 0 * layers),
    ]
    functions = [
        (active_layers, layers),
        (lambda encodings: active_layers(encodings).numpy() * 1e6, 1e6 * layers),
        (lambda encodings: torch.full((len(encodings),), constant, dtype=torch.float64), 0 * layers),
    ]
    pairs = {"described": described, "functions": functions}[kinds]
    combined = combine([model for model, _ in pairs])
    assert isinstance(combined, Model) == (kinds == "described")
    expected = np.mean([standardised(scores) for _, scores in pairs], 0)
    np.testing.assert_allclose(score([combined], ARCHITECTURES)[0], expected, rtol=0, atol=2e-5)


def test_an_only_model_is_combined_with_nothing():
    models = [Model(MATRIX)]
    assert combine(models) is models[0]
