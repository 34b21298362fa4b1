"""Scores of many architectures by several fitted models at once."""

import numpy as np
import torch

from common.files import InputError
from common.processes import one_thread
from dataset import encode
from network import merge_networks, network_scores
from recipes.base import Model

CHUNK = 1024  # architectures encoded at a time: few enough for the cache
STANDARDISED = 10_000  # sampled architectures that give a predictor's mean and standard deviation


@one_thread()
@torch.inference_mode()
def score(models, architectures, device="cpu", names=None):
    """Score n architecture strings with k models of a space: (k, n) float32, with functions float64; lower is better.

    models: k of recipes.base.Model; names: of the models, for messages. Memory beyond the result does not grow with n.
    Raises InputError for a string outside the search space, a score that is not finite, and a function that returns
    anything else than m real numbers.
    """
    names, space = names or [f"model {i}" for i in range(len(models))], models[0].space
    matrices = [(i, model.matrix) for i, model in enumerate(models) if model.matrix is not None]
    quadratic = [(i, matrix.to(device, torch.float32)) for i, matrix in matrices]
    functions = [(i, model.function) for i, model in enumerate(models) if model.function]
    networks = [network for model in models for network in model.networks]
    merged = merge_networks(networks, space, device) if networks else None
    owner = torch.tensor([i for i, model in enumerate(models) for _ in model.networks], device=device)
    weights = torch.tensor([weight for model in models for weight in model.weights], device=device)[:, None]

    scores = torch.empty(len(models), len(architectures), dtype=torch.float64 if functions else torch.float32)
    for start in range(0, len(architectures), CHUNK):
        try:
            encodings = encode(space, architectures[start : start + CHUNK])
        except InputError:
            space.parse(architectures)  # its message counts from the first of all
            raise
        x = encodings.to(device).flatten(1)[:, space.features]
        values = torch.zeros(len(models), len(x), device=device)
        if networks:
            values.index_add_(0, owner, network_scores(x, *merged).mul_(weights))
        for i, matrix in quadratic:
            values[i] += (x @ matrix).mul_(x).sum(1)
        scores[:, start : start + CHUNK] = values
        for i, function in functions:
            scores[i, start : start + CHUNK] = _call(function, encodings, names[i])
    for name, row in zip(names, scores, strict=True):
        if not row.isfinite().all():
            raise InputError(f"{name}: {(~row.isfinite()).sum()} of {len(row)} scores are not finite: train it again")
    return scores


def _call(function, encodings, name):
    """Scores of the encodings by a function; raises InputError unless they are a real number each."""
    found = function(encodings.clone())
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


def combine(models, weights=None, device="cpu"):
    """One model whose score is the mean of the k models' standardised scores, or the only model.

    weights: k numbers >= 0, by default equal ones, for a weighted mean. Standardised scores: minus their mean, divided
    by their standard deviation, over STANDARDISED sampled architectures. The deviation of a constant model counts as 1.
    """
    if len(models) == 1:
        return models[0]
    space = models[0].space
    scores = score(models, space.some(STANDARDISED), device).double().numpy()
    means, stds = scores.mean(1), scores.std(1)
    weights = np.array(weights or [1.0] * len(models))
    scales = (weights / (weights.sum() * np.where(np.ptp(scores, 1) > 0, stds, 1))).tolist()
    offset = float(-means @ scales)
    if any(model.function for model in models):
        pairs = [(scale, model.function) for scale, model in zip(scales, models, strict=True)]

        def function(encodings):
            return sum(scale * torch.as_tensor(function(encodings)).double() for scale, function in pairs) + offset

        return Model(space, function=function)
    matrix = torch.zeros(len(space.features), len(space.features), dtype=torch.float64)
    for scale, model in zip(scales, models, strict=True):
        matrix += 0 if model.matrix is None else scale * model.matrix
    first = range(space.counts[0])  # of these features one is 1, the others are 0
    matrix[first, first] += offset
    factors = tuple(scale * weight for scale, model in zip(scales, models, strict=True) for weight in model.weights)
    return Model(space, matrix, tuple(network for model in models for network in model.networks), factors)
