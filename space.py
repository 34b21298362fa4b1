"""The search space in real units: ViT-Base architectures, their layers, parameters and multiply-accumulates.

Embedding width 768, heads of width 64, images of 224 x 224 cut into 14 x 14 patches. The codes `1`, `2`, `3` of a
string stand for 12, 11, 10 heads and for MLP ratios of 4, 3.5, 3, so code 1 is the largest. The values are those of the
super-network (PaddlePaddle/VIMER, UFO/OneForAll, configs vitbasesuper_*).

A layer's choice is a number from 0 to 8: 3 * heads code + MLP ratio code, each code counted from 0. A cost, in
parameters or multiply-accumulates, is a sum: a base, and for each layer an entry in a table of the nine choices.
"""

from typing import NamedTuple

import numpy as np

from dataset import DEPTHS, LAYERS, LENGTH, columns
from files import InputError

HEADS, MLP_RATIOS = np.array([12, 11, 10]), np.array([4.0, 3.5, 3.0])
NUM_RATIOS = len(MLP_RATIOS)
CHOICES = len(HEADS) * NUM_RATIOS
HEADS_OF, RATIO_OF = np.repeat(HEADS, NUM_RATIOS), np.tile(MLP_RATIOS, len(HEADS))  # (9,) each, by choice
NUM_ARCHITECTURES = sum(CHOICES**depth for depth in DEPTHS.values())  # architectures in the space: 317,297,380,491
EMBEDDING, HEAD_WIDTH, PATCHES = 768, 64, 14 * 14
TOKENS, PIXELS = PATCHES + 1, 3 * 16 * 16  # the patches and a class token; values per patch


class Cost(NamedTuple):
    """A size of an architecture: base + the sum of its layers' entries in the table."""

    base: int
    table: np.ndarray  # (9,) int64, by choice

    def of(self, choices):
        """(n, 12) choices, -1 for an absent layer -> (n,) int64."""
        return self.base + np.append(self.table, 0)[choices].sum(1)


def _costs():
    """The two Costs: parameters, multiply-accumulates. A layer has embedding width d, all heads width a, its MLP h."""
    d, a, h = EMBEDDING, HEAD_WIDTH * HEADS_OF, (EMBEDDING * RATIO_OF).astype(np.int64)
    qkv, projection, mlp, norm = (d + 1) * 3 * a, (a + 1) * d, (2 * d + 1) * h + d, 2 * d
    parameters = Cost((PIXELS + 1) * d + (1 + TOKENS) * d + norm, qkv + projection + mlp + 2 * norm)
    products = 4 * d * a + 2 * d * h + 2 * TOKENS * a  # of one token
    return parameters, Cost(PATCHES * PIXELS * d, TOKENS * products)


PARAMETERS, MACS = _costs()


class BudgetError(InputError):
    """No architecture is within the budget."""


def check_budgets(max_params, max_macs):
    """Raise BudgetError where even the smallest architecture is above a budget; None is no budget."""
    params, macs = (cost.base + min(DEPTHS.values()) * cost.table[-1] for cost in (PARAMETERS, MACS))
    if (max_params is not None and max_params < params) or (max_macs is not None and max_macs < macs):
        smallest = f"{params:,} parameters and {macs:,} multiply-accumulates"
        raise BudgetError(f"no architecture is within the budget: the smallest has {smallest}")


class Architectures(NamedTuple):
    """n architectures in real units; entries of absent layers are 0."""

    layers: np.ndarray  # (n,) int64
    heads: np.ndarray  # (n, 12) int64
    mlp_ratios: np.ndarray  # (n, 12) float64
    parameters: np.ndarray  # (n,) int64, without a classification head: 85,798,656 of the largest
    macs: np.ndarray  # (n,) int64, multiply-accumulates for one image: 17.56e9 of the largest


def choices(architectures):
    """Choice of each layer of n strings, -1 where the layer is absent: (n, 12) int64; raises DataError."""
    codes = columns(architectures).astype(np.int64)[:, 1:].reshape(-1, LAYERS, 3)
    return np.where(codes[..., 2] < 0, -1, NUM_RATIOS * (codes[..., 0] - 3) + codes[..., 1] - 6)


def strings(choices):
    """Architecture strings with the given choices, (n, 12) integers, -1 where the layer is absent: n strings."""
    codes = np.full((len(choices), LENGTH), ord("0"), np.uint8)
    codes[:, 0] = ord(min(DEPTHS)) + (choices >= 0).sum(1) - min(DEPTHS.values())
    layers = codes[:, 1:].reshape(-1, LAYERS, 3)
    for i, code in enumerate((*np.divmod(choices, NUM_RATIOS), np.zeros_like(choices))):
        layers[..., i] += np.where(choices < 0, 0, 1 + code).astype(np.uint8)
    text = codes.tobytes().decode()
    return [text[i : i + LENGTH] for i in range(0, len(text), LENGTH)]


def measure(architectures):
    """Measure n architecture strings: Architectures; raises DataError for a string outside the search space."""
    chosen = choices(architectures)
    heads, ratios = np.append(HEADS_OF, 0)[chosen], np.append(RATIO_OF, 0)[chosen]
    return Architectures((chosen >= 0).sum(1), heads, ratios, PARAMETERS.of(chosen), MACS.of(chosen))


def layers_text(chosen):
    """Heads and MLP ratio of each layer of an architecture with these choices, (12,): "12/4 11/3.5 ..."."""
    return " ".join(f"{HEADS_OF[c]}/{RATIO_OF[c]:g}" for c in chosen if c >= 0)
