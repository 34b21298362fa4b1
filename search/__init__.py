"""Search of the whole space: exact, by branch and bound, or by evolution."""

from typing import NamedTuple

import numpy as np


class SearchResult(NamedTuple):
    """The best architectures, best first, and the account of all others that proves it."""

    architectures: list  # strings
    scores: np.ndarray  # float64
    bounded: int  # architectures ruled out by a bound
    over_budget: int  # ruled out by a budget
    scored: int  # scored one by one
    left: int  # not examined
    gap: float  # no architecture beats the first by more than this; 0 where they are proven to be the best
    interrupted: bool  # by Ctrl-C or the time limit


class ParetoFront(NamedTuple):
    """The best architecture for every value of a cost, from the cheapest architecture to the best."""

    architectures: list  # strings
    scores: np.ndarray  # float64
