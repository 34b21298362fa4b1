"""A space small enough to enumerate: five decisions of two to four choices, with a condition within a condition."""

import numpy as np

from space import Decision, Space

TOY = Space(
    "toy",
    [
        Decision("categorical", "stem", ("conv", "patch")),
        Decision("constant", "width", (64,)),
        Decision("ordinal", "size 1", (8, 16, 32)),
        Decision("ordinal", "size 2", (8, 16, 32), parent="stem", when=("patch",)),
        Decision("categorical", "block", ("a", "b", 1, True), parent="size 2", when=(16, 32)),
    ],
    {
        "params": {"base": 100, "stem": [5, 7], "width": [3], "size 1": [1, 2, 4], "size 2": [10, 20, 40]},
        "ms": {"size 1": [0.1, 0.7, 0.2], "block": [-0.3, 0.25, 0.5, 0.1]},
    },
)


def one_hot(space, architecture):
    """Encode one string by walking along it: (decisions, columns) float32."""
    kinds = {}
    for decision in space.decisions:
        kinds.setdefault((decision.name.rstrip(" 0123456789"), decision.choices), len(decision.choices))
    encoding = np.zeros((len(space.decisions), sum(kinds.values())), np.float32)
    for row, (decision, character) in enumerate(zip(space.decisions, architecture, strict=True)):
        start = 0
        for kind, width in kinds.items():
            if kind == (decision.name.rstrip(" 0123456789"), decision.choices):
                break
            start += width
        if character != space.absent:
            encoding[row, start + decision.characters.index(character)] = 1
    return encoding
