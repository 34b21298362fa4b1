"""The search space: ViT-Base architectures as strings, as columns of an encoding, and in real units.

A string has 37 characters: the depth, then for each of 12 layers a group of three: heads, MLP ratio, embedding width.
Groups past the depth are `000`. Heads have width 64, images of 224 x 224 are cut into 14 x 14 patches. The values are
those of the super-network (PaddlePaddle/VIMER, UFO/OneForAll, configs vitbasesuper_*).

Architectures differ in 25 decisions: the depth, and each layer's heads and MLP ratio. A layer option is one of the nine
combinations of heads and MLP ratio, 0 to 8 in the order of their codes; ABSENT (-1) stands for an absent layer.
"""

import json
from typing import NamedTuple

import numpy as np

from common.files import InputError

# Each character and what it stands for, the largest of heads and MLP ratio first.
DEPTHS = {"j": 10, "k": 11, "l": 12}
HEADS = {"1": 12, "2": 11, "3": 10}
MLP_RATIOS = {"1": 4.0, "2": 3.5, "3": 3.0}
EMBEDDINGS = {"1": 768}

MIN_DEPTH, LAYERS = min(DEPTHS.values()), max(DEPTHS.values())
LAYER_KINDS = (HEADS, MLP_RATIOS, EMBEDDINGS)
POSITION_KINDS = (DEPTHS, *LAYER_KINDS * LAYERS)  # what the character at each position of a string decides
LENGTH = len(POSITION_KINDS)  # 37
WIDTH = len(DEPTHS) + sum(map(len, LAYER_KINDS))  # 10 columns: 0-2 depth, 3-5 heads, 6-8 MLP ratio, 9 embedding
ABSENT, INVALID = -1, -2


def _columns():
    """Column that encodes each character at each position: (37, 256), ABSENT for `0`, INVALID for others."""
    found = np.full((LENGTH, 256), INVALID, np.int8)
    starts = np.cumsum([len(kind) for kind in (DEPTHS, HEADS, MLP_RATIOS)]).tolist()  # 3, 6, 9
    for position, (kind, start) in enumerate(zip(POSITION_KINDS, [0, *starts * LAYERS], strict=True)):
        for column, character in enumerate(kind, start):
            found[position, ord(character)] = column
    found[1:, ord("0")] = ABSENT
    return found


COLUMNS = _columns()
# The 87 features are the entries of a flattened 37 x 10 encoding that can be nonzero: 3 of the depth, then in each
# layer 3 of the heads, 3 of the MLP ratio, and 1 of the embedding, which is 1 where the layer is present.
FEATURES = [WIDTH * row + column for row in range(LENGTH) for column in range(WIDTH) if column in COLUMNS[row]]
# The decision that a feature belongs to, 0 to 24; ABSENT for the embedding, which nobody decides.
DECISIONS = 1 + 2 * LAYERS
_DECISION = [0, *(i for layer in range(LAYERS) for i in (1 + 2 * layer, 2 + 2 * layer, ABSENT))]  # by position
FEATURE_DECISION = np.array(_DECISION)[np.array(FEATURES) // WIDTH]

OPTIONS = len(HEADS) * len(MLP_RATIOS)
HEADS_CODE, RATIO_CODE = np.divmod(np.arange(OPTIONS), len(MLP_RATIOS))  # (9,) each, counted from 0
OPTION_HEADS, OPTION_RATIOS = np.array([*HEADS.values()])[HEADS_CODE], np.array([*MLP_RATIOS.values()])[RATIO_CODE]
# (9, 7): the features of a layer with each option.
OPTION_FEATURES = np.hstack(
    [np.eye(len(HEADS))[HEADS_CODE], np.eye(len(MLP_RATIOS))[RATIO_CODE], np.ones((OPTIONS, 1))]
)
NUM_ARCHITECTURES = sum(OPTIONS**depth for depth in DEPTHS.values())  # 317,297,380,491

EMBEDDING, HEAD_WIDTH, PATCHES = EMBEDDINGS["1"], 64, 14 * 14
TOKENS, PIXELS = PATCHES + 1, 3 * 16 * 16  # the patches and a class token; values per patch


def columns(architectures, keys=None):
    """Columns that encode the characters of n architecture strings: (n, 37) int8, ABSENT where a layer is absent.

    keys: names of the n strings, for messages. Raises InputError, which names the position, for a string outside the
    search space.
    """

    def fail(i, why):
        raise InputError(f"{keys[i] if keys else f'architecture {i}'}: arch {why}")

    if not (set(map(type, architectures)) <= {str} and set(map(len, architectures)) <= {LENGTH}):
        for i, architecture in enumerate(architectures):
            if not isinstance(architecture, str):
                fail(i, f"is {json.dumps(architecture)[:40]}: expected a string of {LENGTH} characters")
            if len(architecture) != LENGTH:
                fail(i, f"has {len(architecture)} characters: expected {LENGTH}")
    text = "".join(architectures).encode("latin-1", "replace")
    characters = np.frombuffer(text, np.uint8).reshape(-1, LENGTH)
    found = COLUMNS.reshape(-1).take(characters + 256 * np.arange(LENGTH))
    absent = np.arange(LENGTH) > len(LAYER_KINDS) * (found[:, :1] + MIN_DEPTH)
    wrong = (found == INVALID) | ((found == ABSENT) != absent)
    if wrong.any():
        i, position = np.argwhere(wrong)[0]
        expected = ["0"] if position and absent[i, position] else POSITION_KINDS[position]
        layer, depth = (position + 2) // len(LAYER_KINDS), DEPTHS.get(architectures[i][0])
        where = f" in layer {layer}, depth {depth}" if position else ""
        fail(i, f"position {position} is {architectures[i][position]!r}: expected {' or '.join(expected)}{where}")
    return found


def sample_architectures(n, seed, exclude=()):
    """Draw n distinct architecture strings that are not in `exclude`: depth uniform, then each layer option uniform.

    The same seed gives the same architectures on every machine and with every release of NumPy. Raises ValueError for
    a negative n.
    """
    if n < 0:
        raise ValueError(f"n is {n}: must not be negative")
    random = np.random.RandomState(seed)  # the legacy generator: NumPy has frozen its stream
    excluded, found = set(exclude), {}
    while len(found) < n:
        count = n - len(found)
        depth = MIN_DEPTH + random.randint(len(DEPTHS), size=count)
        heads, ratios = np.moveaxis(random.randint(len(HEADS), size=(count, LAYERS, 2)), 2, 0)
        options = np.where(np.arange(LAYERS) < depth[:, None], len(MLP_RATIOS) * heads + ratios, ABSENT)
        found.update((architecture, None) for architecture in strings(options) if architecture not in excluded)
    return list(found)


def layer_options(architectures):
    """Option of each layer of n strings, ABSENT where there is none: (n, 12) int64; raises InputError."""
    found = columns(architectures).astype(np.int64)[:, 1:].reshape(-1, LAYERS, len(LAYER_KINDS))
    heads, ratio = found[..., 0] - len(DEPTHS), found[..., 1] - len(DEPTHS) - len(HEADS)
    return np.where(found[..., 2] == ABSENT, ABSENT, len(MLP_RATIOS) * heads + ratio)


def strings(options):
    """Architecture strings with these layer options, (n, 12) integers, ABSENT where there is no layer: n strings."""
    present = options != ABSENT
    characters = np.full((len(options), LENGTH), ord("0"), np.uint8)
    characters[:, 0] = ord(min(DEPTHS)) + present.sum(1) - MIN_DEPTH
    layers = characters[:, 1:].reshape(-1, LAYERS, len(LAYER_KINDS))
    for i, code in enumerate((HEADS_CODE, RATIO_CODE, np.zeros_like(HEADS_CODE))):
        layers[..., i] += np.where(present, 1 + code[options], 0).astype(np.uint8)
    text = characters.tobytes().decode()
    return [text[i : i + LENGTH] for i in range(0, len(text), LENGTH)]


class Cost(NamedTuple):
    """A size of an architecture: base + the sum of its layers' entries in the table."""

    base: int
    table: np.ndarray  # (9,) int64, by layer option

    def of(self, options):
        """(n, 12) layer options -> (n,) int64."""
        return self.base + np.append(self.table, 0)[options].sum(1)


def _costs():
    """The two Costs: parameters, multiply-accumulates. A layer has embedding width d, all heads width a, its MLP h."""
    d, a, h = EMBEDDING, HEAD_WIDTH * OPTION_HEADS, (EMBEDDING * OPTION_RATIOS).astype(np.int64)
    qkv, projection, mlp, norm = (d + 1) * 3 * a, (a + 1) * d, (2 * d + 1) * h + d, 2 * d
    parameters = Cost((PIXELS + 1) * d + (1 + TOKENS) * d + norm, qkv + projection + mlp + 2 * norm)
    products = 4 * d * a + 2 * d * h + 2 * TOKENS * a  # of one token
    return parameters, Cost(PATCHES * PIXELS * d, TOKENS * products)


PARAMETERS, MACS = _costs()


def budgets(max_params=None, max_macs=None):
    """The given budgets, [(Cost, largest value)]; None is no budget. Raises InputError where nothing is within them."""
    given = [(cost, most) for cost, most in ((PARAMETERS, max_params), (MACS, max_macs)) if most is not None]
    if any(cost.base + MIN_DEPTH * cost.table.min() > most for cost, most in given):
        params, macs = (cost.base + MIN_DEPTH * cost.table.min() for cost in (PARAMETERS, MACS))
        smallest = f"{params:,} parameters and {macs:,} multiply-accumulates"
        raise InputError(f"no architecture is within the budget: the smallest has {smallest}")
    return given


class Architectures(NamedTuple):
    """n architectures in real units; entries of absent layers are 0."""

    layers: np.ndarray  # (n,) int64
    heads: np.ndarray  # (n, 12) int64
    mlp_ratios: np.ndarray  # (n, 12) float64
    parameters: np.ndarray  # (n,) int64, without a classification head: 85,798,656 of the largest
    macs: np.ndarray  # (n,) int64, multiply-accumulates for one image: 17.56e9 of the largest

    def layers_text(self, i):
        """Heads and MLP ratio of each layer of architecture i: "12/4 11/3.5 ..."."""
        pairs = zip(self.heads[i], self.mlp_ratios[i], strict=True)
        return " ".join(f"{heads}/{ratio:g}" for heads, ratio in pairs if heads)


def measure(architectures):
    """Measure n architecture strings: Architectures; raises InputError for a string outside the search space."""
    options = layer_options(architectures)
    heads, ratios = np.append(OPTION_HEADS, 0)[options], np.append(OPTION_RATIOS, 0)[options]
    return Architectures((heads > 0).sum(1), heads, ratios, PARAMETERS.of(options), MACS.of(options))
