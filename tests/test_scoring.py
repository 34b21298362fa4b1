import numpy as np
import pytest
import torch

from dataset import DataError, encode, sample_architectures
from network import Predictor
from scoring import CHUNK, score


@pytest.fixture(scope="module")
def predictors():
    torch.manual_seed(0)
    return [Predictor().eval() for _ in range(3)]


@pytest.mark.parametrize("n", [1, 7, CHUNK, CHUNK + 1])
def test_scores_equal_those_of_each_predictor(predictors, n):
    architectures = sample_architectures(n, seed=n)
    scores = score([predictor.state_dict() for predictor in predictors], architectures)
    assert scores.shape == (3, n)
    with torch.no_grad():
        expected = torch.stack([predictor(encode(architectures)) for predictor in predictors])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_a_bad_architecture_is_refused(predictors):
    with pytest.raises(DataError, match="architecture 1: arch has 3 characters"):
        score([predictors[0].state_dict()], [*sample_architectures(1, seed=0), "l11"])
