"""The description of a fitted predictor, and the scores of many architectures by several predictors at once."""

from typing import NamedTuple

import numpy as np
import torch

from common.files import InputError
from common.processes import one_thread
from dataset import encode
from network import Predictor
from space import DEPTHS, FEATURES, LENGTH, WIDTH, sample_architectures

CHUNK = 1024  # architectures encoded at a time: few enough for the cache
STANDARDISED = 10_000  # sampled architectures that give a predictor's mean and standard deviation


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
def score(models, architectures, device="cpu", names=None):
    """Score n architecture strings with k models: (k, n); lower is better. float32, with functions float64.

    models: k of Model, or functions from encodings (m, 37, 10) to (m,) real numbers; names: of the models, for
    messages. Memory beyond the result does not grow with n. Raises InputError for a string outside the search space, a
    score that is not finite, and a function that returns anything else than m real numbers.
    """
    names = names or [f"model {i}" for i in range(len(models))]
    described = [(i, model) for i, model in enumerate(models) if isinstance(model, Model)]
    functions = [(i, model) for i, model in enumerate(models) if not isinstance(model, Model)]
    quadratic = [(i, model.matrix.to(device, torch.float32)) for i, model in described if model.matrix.any()]
    networks = [network for _, model in described for network in model.networks]
    merged = merge_networks(networks, device) if networks else None
    owner = torch.tensor([i for i, model in described for _ in model.networks], device=device)
    weights = torch.tensor([weight for _, model in described for weight in model.weights], device=device)[:, None]

    scores = torch.empty(len(models), len(architectures), dtype=torch.float64 if functions else torch.float32)
    for start in range(0, len(architectures), CHUNK):
        encodings = encode(architectures[start : start + CHUNK])
        x = encodings.to(device).flatten(1)[:, FEATURES]
        values = torch.zeros(len(models), len(x), device=device)
        if networks:
            values.index_add_(0, owner, network_scores(x, *merged).mul_(weights))
        for i, matrix in quadratic:
            values[i] += (x @ matrix).mul_(x).sum(1)
        scores[:, start : start + CHUNK] = values
        for i, model in functions:
            scores[i, start : start + CHUNK] = _call(model, encodings, names[i])
    for name, row in zip(names, scores, strict=True):
        if not row.isfinite().all():
            raise InputError(f"{name}: {(~row.isfinite()).sum()} of {len(row)} scores are not finite: train it again")
    return scores


def _call(model, encodings, name):
    """Scores of the encodings by a function; raises InputError unless they are a real number each."""
    found = model(encodings.clone())
    expected = f"expected {len(encodings)} real numbers"
    try:
        found = torch.as_tensor(found)
    except Exception:
        raise InputError(f"{name}: its model returns a {type(found).__name__}: {expected}") from None
    is_real = found.layout == torch.strided and not found.is_complex() and found.dtype != torch.bool
    if not is_real or found.shape != encodings.shape[:1]:
        shape = " x ".join(map(str, found.shape)) or "one"
        raise InputError(f"{name}: its model returns {shape} {found.dtype}: {expected}")
    return found


def combine(models, device="cpu"):
    """One model whose score is the mean of the k models' standardised scores, or the only model; k Models or functions.

    Standardised scores: less their mean, divided by their standard deviation, over STANDARDISED sampled architectures.
    The deviation of a constant model counts as 1. Returns a Model of Models, and of functions a function.
    """
    if len(models) == 1:
        return models[0]
    scores = score(models, sample_architectures(STANDARDISED, seed=0), device).double().numpy()
    means, stds = scores.mean(1), scores.std(1)
    scales = [float(1 / (len(models) * std)) for std in np.where(np.ptp(scores, 1) > 0, stds, 1)]
    offset = float(-means @ scales)
    pairs = list(zip(scales, models, strict=True))
    if not isinstance(models[0], Model):
        return lambda encodings: (
            sum(scale * torch.as_tensor(model(encodings)).double() for scale, model in pairs) + offset
        )
    matrix = sum(scale * model.matrix for scale, model in pairs)
    matrix[range(len(DEPTHS)), range(len(DEPTHS))] += offset  # one of these features is 1, the others are 0
    weights = tuple(scale * weight for scale, model in pairs for weight in model.weights)
    return Model(matrix, tuple(network for model in models for network in model.networks), weights)
