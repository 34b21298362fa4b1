"""Score many architectures with several models at once."""

from typing import NamedTuple

import torch

from dataset import DEPTHS, FEATURES, LENGTH, WIDTH, encode
from network import Predictor, one_thread

CHUNK = 1024  # architectures encoded at a time: few enough for the cache


class Model(NamedTuple):
    """Score of an architecture with features x: x A x + the weighted sum of the networks' scores.

    A high score predicts a high rank number, that is a bad architecture.
    """

    matrix: torch.Tensor  # (87, 87) float64, A
    networks: tuple = ()  # state dicts of network.Predictor
    weights: tuple = ()  # a float for each network


def merge_networks(state_dicts, device="cpu", dtype=torch.float32):
    """Stack k state dicts of Predictor in eval mode as four layers on the 87 features.

    The first two linear layers have no nonlinearity between them: they are merged, in float64, into one map, which
    takes in the positional encoding and the bias as well. Returns (weights, biases): weights (k, in, out) of four
    layers, biases (k, 1, out) of the last three.
    """
    predictors = []
    for state_dict in state_dicts:
        predictors.append(Predictor())
        predictors[-1].load_state_dict(state_dict)
    weights, biases = [], []
    for layer in zip(*(predictor.double().linears() for predictor in predictors), strict=True):
        weights.append(torch.stack([linear.weight.t() for linear in layer]))  # (k, in, out)
        biases.append(torch.stack([linear.bias[None] for linear in layer]))  # (k, 1, out)
    nothing = torch.zeros(1, LENGTH, WIDTH)
    position = torch.stack([predictor.pos(nothing).flatten(1) for predictor in predictors]).double()
    bias = (position @ weights[0] + biases[0]) @ weights[1] + biases[1]
    merged = (weights[0] @ weights[1])[:, FEATURES]
    merged[:, : len(DEPTHS)] += bias  # an architecture has one depth: adding to all three adds the bias, at no cost
    return [w.to(device, dtype) for w in (merged, *weights[2:])], [b.to(device, dtype) for b in biases[2:]]


def network_scores(x, weights, biases):
    """Scores of n architectures with features x (n, 87) by the k networks of merge_networks: (k, n)."""
    hidden = torch.bmm(x.expand(len(weights[0]), -1, -1), weights[0]).relu_()
    for weight, bias in zip(weights[1:-1], biases[:-1], strict=True):
        hidden = torch.baddbmm(bias, hidden, weight).relu_()
    # Transposed: a product with one row is faster than one with one column.
    return torch.baddbmm(biases[-1], weights[-1].transpose(1, 2), hidden.transpose(1, 2)).squeeze(1)


@one_thread()
@torch.inference_mode()
def score(models, architectures, device="cpu"):
    """Score n architecture strings with k models: (k, n) float32; lower is better.

    models: k of Model, or functions from encodings (m, 37, 10) to (m,) scores. Memory beyond the result does not grow
    with n. Raises DataError for a string outside the search space.
    """
    described = [(i, model) for i, model in enumerate(models) if isinstance(model, Model)]
    functions = [(i, model) for i, model in enumerate(models) if not isinstance(model, Model)]
    quadratic = [(i, model.matrix.to(device, torch.float32)) for i, model in described if model.matrix.any()]
    networks = [network for _, model in described for network in model.networks]
    merged = merge_networks(networks, device) if networks else None
    owner = torch.tensor([i for i, model in described for _ in model.networks], device=device)
    weights = torch.tensor([weight for _, model in described for weight in model.weights], device=device)[:, None]

    scores = torch.empty(len(models), len(architectures))
    for start in range(0, len(architectures), CHUNK):
        encodings = encode(architectures[start : start + CHUNK])
        x = encodings.to(device).flatten(1)[:, FEATURES]
        values = torch.zeros(len(models), len(x), device=device)
        if networks:
            values.index_add_(0, owner, network_scores(x, *merged).mul_(weights))
        for i, matrix in quadratic:
            values[i] += (x @ matrix).mul_(x).sum(1)
        for i, model in functions:
            values[i] = model(encodings)
        scores[:, start : start + CHUNK] = values
    return scores
