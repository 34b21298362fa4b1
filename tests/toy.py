"""A small search space, which tests enumerate: 136 architectures."""

import numpy as np

from space import Decision, Space

BLOCKS = ("conv", "pool", "skip", "mix")
TOY = Space(
    "toy",
    [
        Decision("categorical", "stem", ("a", "b")),
        Decision("ordinal", "depth", (1, 2, 3)),
        Decision("categorical", "block 1", BLOCKS),
        Decision("categorical", "block 2", BLOCKS, parent="depth", when=(2, 3)),
        Decision("ordinal", "kernel", (3, 5, 7), parent="block 2", when=("conv", "mix")),
        Decision("constant", "width", (64,)),
    ],
    {
        "params": {"base": 7, "stem": [3, 1], "depth": [5, 0, 2], "block 1": [4, 1, 0, 4], "kernel": [1, 2, 9]},
        "latency": {"base": 0.1, "stem": [0.2, 0.1], "block 1": [0.3, 0.1, 0.2, 0.7], "block 2": [0.4, 0.3, 0, 0.1]},
    },
)


def one_hot(space, architecture):
    """Encoding of an architecture string: (rows, columns)."""
    rows = np.zeros(space.shape)
    for i, (character, decision) in enumerate(zip(architecture, space.decisions, strict=True)):
        if character in decision.characters[: len(decision.choices)] and character != space.absent:
            rows[i, space.starts[i] + decision.characters.index(character)] = 1
    return rows
