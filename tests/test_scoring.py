import numpy as np
import pytest
import torch
from conftest import model_of

from dataset import DataError, encode, sample_architectures
from network import Predictor
from scoring import CHUNK, Model, score


@pytest.fixture(scope="module")
def predictors():
    torch.manual_seed(0)
    return [Predictor().eval() for _ in range(3)]


@pytest.mark.parametrize("n", [1, 7, CHUNK, CHUNK + 1])
def test_scores_equal_those_of_each_predictor(predictors, n):
    architectures = sample_architectures(n, seed=n)
    scores = score([model_of(predictor.state_dict()) for predictor in predictors], architectures)
    assert scores.shape == (3, n)
    with torch.no_grad():
        expected = torch.stack([predictor(encode(architectures)) for predictor in predictors])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_a_bad_architecture_is_refused(predictors):
    with pytest.raises(DataError, match="architecture 1: arch has 3 characters"):
        score([model_of(predictors[0].state_dict())], [*sample_architectures(1, seed=0), "l11"])


def test_models_of_every_kind_are_scored_together(predictors):
    """A quadratic form, weighted networks, both, and a function of encodings, each by a plain computation."""
    architectures = sample_architectures(CHUNK + 3, seed=4)
    torch.manual_seed(1)
    matrix, states = torch.randn(87, 87).double(), [predictor.state_dict() for predictor in predictors]
    models = [
        Model(matrix),
        Model(torch.zeros(87, 87).double(), (states[0], states[2]), (0.25, -2.0)),
        Model(matrix, (states[1],), (3.0,)),
        lambda encodings: encodings.flatten(1).sum(1),
    ]
    encodings = encode(architectures)
    features = encodings.flatten(1)[:, encode(sample_architectures(500, seed=0)).flatten(1).any(0)].double()
    quadratic = torch.tensor([row @ matrix @ row for row in features])
    with torch.no_grad():
        a, b, c = (predictor(encodings) for predictor in predictors)
    expected = [
        quadratic,
        0.25 * a - 2 * c,
        quadratic + 3 * b,
        torch.tensor([len(s.replace("0", "")) for s in architectures]),
    ]
    for row, values in zip(score(models, architectures), expected, strict=True):
        np.testing.assert_allclose(row, values, rtol=1e-4, atol=1e-3)
