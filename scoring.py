"""Scoring many architectures with several predictors at once, and the submission made of the scores."""

import json

import torch

from checkpoint import write_whole
from dataset import DEPTHS, USED, encode
from metrics import ranks
from network import Predictor, one_thread

CHUNK = 1024  # architectures encoded at a time: few enough for the cache


def networks(state_dicts, device="cpu"):
    """k state dicts of Predictor -> a function from x, the (n, 87) USED part of n encodings, to (k, n) scores."""
    predictors = []
    for state_dict in state_dicts:
        predictors.append(Predictor())
        predictors[-1].load_state_dict(state_dict)
    weights, biases = [], []
    for layer in zip(*(predictor.double().linears() for predictor in predictors), strict=True):
        weights.append(torch.stack([linear.weight.t() for linear in layer]))  # (k, in, out)
        biases.append(torch.stack([linear.bias[None] for linear in layer]))  # (k, 1, out)
    # Nothing but sums lies between the encoding and the second linear layer's output: one map, merged in float64.
    position = torch.stack([predictor.pos(torch.zeros(1, 37, 10)).flatten(1) for predictor in predictors]).double()
    bias = (position @ weights[0] + biases[0]) @ weights[1] + biases[1]
    merged = (weights[0] @ weights[1])[:, USED]
    merged[:, : len(DEPTHS)] += bias  # every architecture has one depth: adding to all three is adding a bias, but free
    merged, *weights = (weight.float().to(device) for weight in (merged, *weights[2:]))
    biases = [bias.float().to(device) for bias in biases[2:]]

    def scores(x):
        hidden = torch.bmm(x.expand(len(predictors), -1, -1), merged).relu_()
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            hidden = torch.baddbmm(bias, hidden, weight).relu_()
        # Transposed: a product with one row is faster than one with one column.
        return torch.baddbmm(biases[-1], weights[-1].transpose(1, 2), hidden.transpose(1, 2)).squeeze(1)

    return scores


def evaluate(function, k, architectures, device="cpu"):
    """(k, n) float32: what `function`, from (m, 87) to (k, m), makes of the USED encodings of n architecture strings.

    Memory beyond the result does not grow with n. Raises DataError for a string outside the search space.
    """
    scores = torch.empty(k, len(architectures))
    for start in range(0, len(architectures), CHUNK):
        x = encode(architectures[start : start + CHUNK]).flatten(1)[:, USED].to(device)
        scores[:, start : start + CHUNK] = function(x)
    return scores


@one_thread()
@torch.inference_mode()
def score(state_dicts, architectures, device="cpu"):
    """Score n architecture strings with k predictors in eval mode: (k, n) float32.

    state_dicts: k state dicts of Predictor. Memory and errors as `evaluate`.
    """
    return evaluate(networks(state_dicts, device), len(state_dicts), architectures, device)


def write_submission(name, content, tasks, scores):
    """Write Track2_submitA_<name>.json in the current folder and return its path.

    content: the test file's, as dataset.load_test returns it; the rank fields of k `tasks` are filled in, in place.
    scores: (k, n), a row a task. Raises InputError where a score is NaN, OSError.
    """
    for task, row in zip(tasks, scores, strict=True):
        for entry, rank in zip(content.values(), ranks(row).tolist(), strict=True):
            entry[task.rank_key] = rank
    path = f"Track2_submitA_{name}.json"
    write_whole(path, json.dumps(content).encode())
    return path
