"""Scoring many architectures with several predictors at once, and the submission made of the scores."""

import json

import torch

from checkpoint import write_whole
from dataset import USED, encode
from metrics import ranks
from network import Predictor, one_thread

CHUNK = 4096  # architectures encoded at a time: memory stays small, the matrices stay large


def networks(state_dicts, device="cpu"):
    """k state dicts of Predictor -> a function from x, the (n, 87) USED part of n encodings, to (k, n) scores."""
    predictors = []
    for state_dict in state_dicts:
        predictors.append(Predictor())
        predictors[-1].load_state_dict(state_dict)
    layers = [
        (torch.stack([linear.weight.t() for linear in layer]), torch.stack([linear.bias[None] for linear in layer]))
        for layer in zip(*(predictor.double().linears() for predictor in predictors), strict=True)
    ]
    # Nothing but sums lies between the encoding and the second linear layer's output: one map, merged in float64.
    (weight0, bias0), (weight1, bias1) = layers[:2]
    position = torch.stack([predictor.pos(torch.zeros(1, 37, 10)).flatten(1) for predictor in predictors]).double()
    layers[:2] = [((weight0 @ weight1)[:, USED], (position @ weight0 + bias0) @ weight1 + bias1)]
    layers = [(weight.float().to(device), bias.float().to(device)) for weight, bias in layers]

    def scores(x):
        hidden = x.expand(len(predictors), -1, -1)
        for i, (weight, bias) in enumerate(layers):
            hidden = torch.baddbmm(bias, hidden, weight)
            if i < len(layers) - 1:
                hidden.relu_()
        return hidden.squeeze(2)

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
