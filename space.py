"""Search spaces: decisions, architectures as strings, as choices and as encodings; VIT, the competition's.

A space is a list of decisions: categorical (unordered), ordinal (ordered) or constant. A decision may be present only
for some choices of an earlier one, its parent. An architecture is a string with one character a decision: the choice,
or that there is none. In arrays a choice is its index, ABSENT (-1) where the decision is not present.

Decisions of one kind have the same type and choices, and names that differ in their number ("heads 1", "heads 12").
They share columns of the encoding, (decisions, columns), which is one-hot; rows of absent decisions are zero.
"""

import hashlib
import json
import math
import re
from functools import cached_property
from typing import NamedTuple

import numpy as np

from common.files import InputError, is_number, read_json, twice

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
ABSENT, INVALID = -1, -2
RESERVED = ("arch", "score", "decisions", "tasks")  # beside the costs in the JSON that commands write
TYPES = {"categorical": "choices", "ordinal": "sequence", "constant": "value"}  # with ConfigSpace's key of the choices
KEYS = {"name", "hyperparameters", "conditions", "forbiddens", "costs", "meta"} | {
    f"{name}_version" for name in ("format", "json_format", "python_module")
}
MAX_EXACT = 2**53  # integers up to here are exact in float64


class Decision(NamedTuple):
    """One decision, as a hyperparameter of ConfigSpace."""

    type: str  # categorical, ordinal or constant
    name: str
    choices: tuple  # JSON values
    kind: str = ""  # name of its kind, by default the decision's without its number
    parent: str | None = None  # name of the decision that it depends on
    when: tuple = ()  # choices of the parent for which it is present
    characters: str = CHARACTERS  # one for each choice


class Cost(NamedTuple):
    """A size of an architecture: base + the sum of its decisions' entries in the table."""

    base: float
    table: np.ndarray  # (decisions, most choices + 1), the last column 0; int64, or float64 where not all are integers

    def of(self, choices):
        """(n, decisions) choices -> (n,)."""
        return self.base + self.table[np.arange(len(self.table)), choices].sum(1)


class Space:
    """A search space. costs: {name: {"base": number, decision: a number a choice, ...}}, what is left out is 0.

    `shape` is the shape of an encoding, `features` are the entries of a flattened encoding that can be nonzero, and
    `feature_decision` has for each its decision, ABSENT for a constant, which nobody decides. `counts` has the number
    of choices, `parents` the decisions that others depend on, `kinds` {kind's number: its decisions in the order of
    the numbers in their names}.

    Raises InputError for a space that is not one.
    """

    def __init__(self, name, decisions, costs=None, absent="-"):
        self.name, self.decisions, self.absent = name, decisions, absent
        self.counts = np.array([len(decision.choices) for decision in decisions])
        self.positions = {decision.name: i for i, decision in enumerate(decisions)}
        if name := twice([decision.name for decision in decisions]):
            raise InputError(f"two decisions are called {name!r}: rename one")
        self.parent, self.allowed = [None] * len(decisions), {}
        for i, decision in enumerate(decisions):
            self._check(decision)
            if decision.parent is not None:
                self.parent[i] = self._parent(i, decision)
                choices, where = decisions[self.parent[i]].choices, f"{decision.name}: condition on {decision.parent}"
                when = [_index(choices, choice, where) for choice in decision.when]
                if not when:
                    raise InputError(f"{where}: has no values, so that {decision.name} is never present")
                self.allowed[i] = np.isin(np.arange(len(choices) + 1), when)  # the last is for an absent parent
        self.parents = sorted({parent for parent in self.parent if parent is not None})
        keys = [(_kind(d), d.type, *map(_json, d.choices)) for d in decisions]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self.kind = [numbers[key] for key in keys]
        widths = np.array([len(key) - 2 for key in numbers])
        self.starts = (np.cumsum(widths) - widths)[self.kind]  # first column of each decision
        self.shape = len(decisions), int(widths.sum())
        self.order = sorted(range(len(decisions)), key=lambda i: _number(decisions[i].name))
        self.kinds = {}
        for i in self.order:
            self.kinds.setdefault(self.kind[i], []).append(i)
        columns = [(i, start + c) for i, start in enumerate(self.starts) for c in range(self.counts[i])]
        self.features = [int(row * self.shape[1] + column) for row, column in columns]
        self.feature_decision = np.array([row if self.counts[row] > 1 else ABSENT for row, _ in columns])
        self._codes = np.full((len(decisions), 256), INVALID, np.int8)
        for i, decision in enumerate(decisions):
            for choice, character in zip(range(self.counts[i]), decision.characters, strict=False):
                self._codes[i, ord(character)] = choice
            if decision.parent is not None:
                self._codes[i, ord(absent)] = ABSENT
        self.costs = {name: self._cost(name, entries) for name, entries in (costs or {}).items()}

    def _check(self, decision):
        if decision.type not in TYPES:
            raise InputError(f"{decision.name}: its type is {decision.type!r}: expected {', '.join(TYPES)}")
        if not decision.choices:
            raise InputError(f"{decision.name}: has no choices")
        if len(decision.choices) > len(decision.characters):
            raise InputError(f"{decision.name}: has {len(decision.choices)} choices: at most {len(CHARACTERS)}")
        if choice := twice([_json(choice) for choice in decision.choices]):
            raise InputError(f"{decision.name}: the choice {choice} occurs twice")

    def _parent(self, i, decision):
        parent = self.positions.get(decision.parent)
        if parent is None:
            raise InputError(f"{decision.name}: depends on {decision.parent!r}, which is no decision")
        if parent >= i:
            raise InputError(f"{decision.name}: depends on {decision.parent}, which comes later: put that first")
        return parent

    def _cost(self, name, entries):
        if name in RESERVED:
            raise InputError(f"cost {name}: the name has another meaning: choose another")
        table, base = [[0] * self.counts.max() for _ in self.decisions], entries.get("base", 0)
        for decision, values in entries.items():
            if decision == "base":
                values, wanted = [values], 1
            elif decision in self.positions:
                wanted = self.counts[self.positions[decision]]
            else:
                raise InputError(f"cost {name}: {decision!r} is no decision")
            if not isinstance(values, list) or len(values) != wanted or not all(map(is_number, values)):
                raise InputError(f"cost {name}: {decision}: expected {wanted} finite numbers, one a choice")
            if decision != "base":
                table[self.positions[decision]][: len(values)] = values
        whole = all(type(value) is int for row in [[base], *table] for value in row)
        whole = whole and abs(base) + sum(max(map(abs, row)) for row in table) <= MAX_EXACT
        return Cost(
            base if whole else float(base), np.pad(np.array(table, np.int64 if whole else float), ((0, 0), (0, 1)))
        )

    @cached_property
    def size(self):
        """Number of architectures."""
        sizes = {None: 1}  # ways to make each decision and all that depends on it; None: those that depend on nothing
        for i in reversed(range(len(self.decisions))):
            children = [child for child in self.allowed if self.parent[child] == i]
            present = ([child for child in children if self.allowed[child][c]] for c in range(self.counts[i]))
            sizes[i] = sum(math.prod(sizes[child] for child in some) for some in present)
            if self.parent[i] is None:
                sizes[None] *= sizes[i]
        return sizes[None]

    @cached_property
    def digest(self):
        """SHA-256 of all that an encoding depends on."""
        described = [
            [d.type, d.name, d.choices, k, d.parent, d.when] for d, k in zip(self.decisions, self.kind, strict=True)
        ]
        return hashlib.sha256(_json(described).encode()).hexdigest()

    def present(self, choices):
        """Which decisions are present, by the choices of those that others depend on: (n, decisions) bool."""
        present = np.ones(choices.shape, bool)
        for child, allowed in self.allowed.items():
            parent = self.parent[child]
            present[:, child] = allowed[choices[:, parent]] & present[:, parent]
        return present

    def parse(self, architectures, keys=None):
        """Choices of n architectures: (n, decisions) int8.

        architectures: strings, or objects {decision: choice} of the present decisions; keys: their names, for messages.
        Raises InputError, which names the position or the decision, for one outside the space.
        """
        length = len(self.decisions)

        def error(i, why):
            return InputError(f"{keys[i] if keys else f'architecture {i}'}: arch {why}")

        if not (set(map(type, architectures)) <= {str} and set(map(len, architectures)) <= {length}):
            architectures = list(architectures)
            for i, architecture in enumerate(architectures):
                try:
                    architectures[i] = self._string(architecture)
                except InputError as why:
                    raise error(i, why) from None
        text = "".join(architectures).encode("latin-1", "replace")
        characters = np.frombuffer(text, np.uint8).reshape(-1, length)
        choices = self._codes.reshape(-1).take(characters + 256 * np.arange(length))
        present = self.present(choices)
        wrong = (choices == INVALID) | ((choices == ABSENT) == present)
        if wrong.any():
            i, position = np.argwhere(wrong)[0]
            decision, found = self.decisions[position], architectures[i][position]
            expected = " or ".join(
                decision.characters[: self.counts[position]] if present[i, position] else self.absent
            )
            if decision.parent is not None:
                parent = self.parent[position]
                expected += f", as {decision.parent} is {self.decisions[parent].choices[choices[i, parent]]}"
            raise error(i, f"position {position} ({decision.name}) is {found!r}: expected {expected}")
        return choices

    def _string(self, architecture):
        """String of an architecture, which may be an object {decision: choice}; raises InputError for another value."""
        length, choices = len(self.decisions), np.full((1, len(self.decisions)), ABSENT)
        if isinstance(architecture, str):
            if len(architecture) != length:
                raise InputError(f"has {len(architecture)} characters: expected {length}")
            return architecture
        if not isinstance(architecture, dict):
            what = _json(architecture)[:40]
            raise InputError(f"is {what}: expected a string of {length} characters or an object")
        for name in architecture:
            if name not in self.positions:
                raise InputError(f"has {name!r}, which is no decision of {self.name}")
        for i, decision in enumerate(self.decisions):
            if not self.present(choices)[0, i]:
                if decision.name in architecture:
                    raise InputError(f"has {decision.name!r}, which is not present: leave it out")
            elif decision.name in architecture:
                choices[0, i] = _index(decision.choices, architecture[decision.name], decision.name)
            elif self.counts[i] > 1:
                raise InputError(f"lacks {decision.name!r}")
            else:
                choices[0, i] = 0  # a constant
        return self.strings(choices)[0]

    def strings(self, choices):
        """Architecture strings with these choices, (n, decisions) integers: n strings."""
        length, width = len(self.decisions), 1 + self.counts.max()
        table = np.full((length, width), ord(self.absent), np.uint8)
        for i, decision in enumerate(self.decisions):
            table[i, 1 : 1 + self.counts[i]] = list(decision.characters[: self.counts[i]].encode())
        text = table.reshape(-1).take(choices + (1 + width * np.arange(length))).tobytes().decode()
        return [text[i : i + length] for i in range(0, len(text), length)]

    def columns(self, choices):
        """Columns that encode choices, ABSENT where a decision is absent: (n, decisions) int64."""
        return np.where(choices == ABSENT, ABSENT, choices + self.starts)

    def values(self, architecture):
        """What an architecture string stands for: {decision: choice} or {kind: [choices]}, without constants."""
        (choices,), groups = self.parse([architecture]), {}
        for i in self.order:
            if self.counts[i] > 1:
                groups.setdefault(_kind(self.decisions[i]), []).append(i)
        found = {}
        for kind, places in groups.items():
            chosen = [self.decisions[i].choices[choices[i]] for i in places if choices[i] != ABSENT]
            if len(places) > 1:
                found[kind] = chosen
            elif chosen:
                found[self.decisions[places[0]].name] = chosen[0]
        return found

    def measure(self, architectures):
        """Costs of n architectures: {name: (n,) array}."""
        choices = self.parse(architectures)
        return {name: cost.of(choices) for name, cost in self.costs.items()}

    def limits(self, budgets):
        """[(Cost, largest value)] of budgets {cost: largest value}; raises InputError where nothing is within one."""
        found = []
        for name, most in (budgets or {}).items():
            if name not in self.costs:
                raise InputError(f"no cost is called {name!r}: {self.name} has {', '.join(self.costs) or 'none'}")
            smallest = self.costs[name].of(self.cheapest(self.costs[name])[None])[0]
            if smallest > most:
                raise InputError(f"no architecture is within the budget: the smallest {name} is {smallest:,}")
            found.append((self.costs[name], most))
        return found

    def cheapest(self, cost):
        """Choices of the cheapest architecture: (decisions,)."""
        least = np.zeros(len(self.decisions))  # cost of each decision at its best with all that depends on it
        best = np.zeros(len(self.decisions), np.int64)
        for i in reversed(range(len(self.decisions))):
            totals = cost.table[i, : self.counts[i]].astype(float)
            for child, allowed in self.allowed.items():
                if self.parent[child] == i:
                    totals = totals + np.where(allowed[:-1], least[child], 0)
            best[i], least[i] = totals.argmin(), totals.min()
        return np.where(self.present(best[None])[0], best, ABSENT)

    def draw(self, count, random):
        """Choices of `count` architectures, each uniform: (count, decisions). random: a numpy.random.RandomState."""
        choices = np.zeros((count, len(self.decisions)), np.int64)
        free = [i for i in range(len(self.decisions)) if self.counts[i] > 1 and i not in self.parents]
        for i in self.parents:
            choices[:, i] = random.randint(self.counts[i], size=count)
        if free:
            same = len(set(self.counts[free])) == 1  # drawn alike, and faster
            counts = self.counts[free[0]] if same else self.counts[free]
            choices[:, free] = random.randint(counts, size=(count, len(free)))
        return np.where(self.present(choices), choices, ABSENT)

    def sample(self, n, seed, exclude=()):
        """Draw n distinct architecture strings that are not in `exclude`: each decision uniform, those that others
        depend on first.

        The same seed gives the same architectures on every machine and with every release of NumPy. Raises ValueError
        for a negative n, and where there are not so many.
        """
        excluded, found = set(exclude), {}
        if not 0 <= n <= self.size - len(excluded):
            raise ValueError(f"n is {n}: must be from 0 to {self.size - len(excluded)}")
        random = np.random.RandomState(seed)  # the legacy generator: NumPy has frozen its stream
        if self.size < 4 * (n + len(excluded)):  # rejection would take long
            left = [architecture for architecture in self.all() if architecture not in excluded]
            return [left[i] for i in random.permutation(len(left))[:n]]
        while len(found) < n:
            drawn = self.strings(self.draw(n - len(found), random))
            found.update((architecture, None) for architecture in drawn if architecture not in excluded)
        return list(found)

    def all(self):
        """All architecture strings, in the order of their choices."""
        rows = np.full((1, len(self.decisions)), ABSENT)
        for i in range(len(self.decisions)):
            present = self.present(rows)[:, i]
            repeats = np.where(present, self.counts[i], 1)
            rows = rows.repeat(repeats, 0)
            number = np.arange(len(rows)) - (np.cumsum(repeats) - repeats).repeat(repeats)
            rows[:, i] = np.where(present.repeat(repeats), number, ABSENT)
        return self.strings(rows)

    def some(self, n):
        """Architecture strings that stand for the space: all, or n sampled ones if there are more."""
        return self.all() if self.size <= n else self.sample(n, seed=0)


def _json(value):
    """A value as JSON, so that 1, 1.0 and true differ; NumPy's numbers count as Python's."""
    return json.dumps(value, default=lambda number: number.item(), sort_keys=True)


def _index(choices, value, where):
    """Place of a value among choices; raises InputError where it is none."""
    texts, text = [_json(choice) for choice in choices], _json(value)
    if text not in texts:
        raise InputError(f"{where} is {text[:40]}: expected {' or '.join(texts)}")
    return texts.index(text)


def _number(name):
    """The number at the end of a decision's name, by which its kind is in order; () for several numbers or none."""
    found = re.findall(r"\d+", name)
    return (int(found[-1]),) if len(found) == 1 and name.endswith(found[-1]) else ()


def _kind(decision):
    """Name of a decision's kind: as given, or its name without the number at the end, such as 12, _3 or 0-1."""
    return decision.kind or re.sub(r"[\W_]+\d+([\W_]\d+)*$|\d+$", "", decision.name)


def read_space(path):
    """Read a space from a file in ConfigSpace's JSON, with "costs"; raises InputError, which names it, and OSError."""
    content = read_json(path)
    try:
        return _from_json(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _from_json(content):
    content = content if isinstance(content, dict) else {}
    entries, conditions = content.get("hyperparameters"), content.get("conditions") or []
    if not isinstance(entries, list) or not isinstance(conditions, list):
        raise InputError('expected ConfigSpace\'s JSON: {"hyperparameters": [...], "conditions": [...]}')
    if content.get("forbiddens"):
        raise InputError("forbidden clauses are not supported: remove them, or make them conditions")
    if unknown := set(content) - KEYS:
        raise InputError(f"unknown key {min(unknown)!r}: expected hyperparameters, conditions, costs, name")
    decisions = {}
    for entry in entries:
        name, type_ = (entry.get(key) if isinstance(entry, dict) else None for key in ("name", "type"))
        if not isinstance(name, str) or not name:
            raise InputError(f"hyperparameter {len(decisions) + 1}: expected an object with a name")
        if type_ not in list(TYPES):  # it may be any JSON
            raise InputError(f"{name}: the type {_json(type_)} is not supported: expected {', '.join(TYPES)}")
        choices = entry.get(TYPES[type_])
        if type_ == "constant" and TYPES[type_] in entry:
            choices = [choices]
        if not isinstance(choices, list):
            raise InputError(f"{name}: {TYPES[type_]!r} is missing or no list")
        if name in decisions:
            raise InputError(f"two decisions are called {name!r}: rename one")
        meta = entry.get("meta")
        kind = meta.get("kind", "") if isinstance(meta, dict) else ""
        decisions[name] = Decision(type_, name, tuple(choices), str(kind))
    if not decisions:
        raise InputError("has no hyperparameters")
    for condition in conditions:
        child, type_ = (condition.get(key) if isinstance(condition, dict) else None for key in ("child", "type"))
        if child not in list(decisions):
            raise InputError(f"a condition is on {_json(child)}, which is no decision")
        if type_ not in ("EQ", "IN"):
            raise InputError(f"condition on {child}: the type {_json(type_)} is not supported: expected EQ or IN")
        if decisions[child].parent is not None:
            raise InputError(f"{child}: has two conditions: expected one")
        values = condition.get("values") if type_ == "IN" else [condition.get("value")]
        if not isinstance(values, list) or not isinstance(condition.get("parent"), str):
            raise InputError(f"{child}: expected a condition with a parent and its values")
        decisions[child] = decisions[child]._replace(parent=condition["parent"], when=tuple(values))
    costs = content.get("costs") or {}
    if not isinstance(costs, dict) or not all(isinstance(entries, dict) for entries in costs.values()):
        raise InputError('costs: expected {"name": {"base": number, "decision": [numbers], ...}, ...}')
    return Space(str(content.get("name") or "space"), list(decisions.values()), costs)


def _vit():
    """ViT-Base with 10 to 12 layers, the competition's: the values are those of its super-network (PaddlePaddle/VIMER,
    UFO/OneForAll, configs vitbasesuper_*), the largest of heads and MLP ratio first.

    Heads have width 64, images of 224 x 224 are cut into 14 x 14 patches. Costs are parameters, without a
    classification head, and multiply-accumulates for one image.
    """
    layers, heads, ratios, d = range(1, 13), (12, 11, 10), (4.0, 3.5, 3.0), 768
    tokens, pixels = 14 * 14 + 1, 3 * 16 * 16  # the patches and a class token; values per patch
    decisions = [Decision("ordinal", "depth", (10, 11, 12), characters="jkl")]
    params, macs = {"base": (pixels + 1) * d + (1 + tokens) * d + 2 * d}, {"base": 14 * 14 * pixels * d}
    for i in layers:
        condition = {"parent": "depth", "when": tuple(range(i, 13))} if i > 10 else {}
        decisions += [
            Decision("ordinal", f"heads {i}", heads, characters="123", **condition),
            Decision("ordinal", f"mlp_ratio {i}", ratios, characters="123", **condition),
            Decision("constant", f"embedding {i}", (d,), characters="1", **condition),
        ]
        widths = [64 * number for number in heads]  # of queries, of keys and of values
        hidden = [int(d * ratio) for ratio in ratios]  # of the MLP
        params[f"heads {i}"] = [(d + 1) * 3 * a + (a + 1) * d for a in widths]
        params[f"mlp_ratio {i}"] = [(2 * d + 1) * h + d for h in hidden]
        params[f"embedding {i}"] = [4 * d]
        macs[f"heads {i}"] = [tokens * (4 * d * a + 2 * tokens * a) for a in widths]
        macs[f"mlp_ratio {i}"] = [tokens * 2 * d * h for h in hidden]
    space = Space("ViT-Base", decisions, {"params": params, "macs": macs}, absent="0")
    space.digest = None  # which the published checkpoints do not have
    return space


VIT = _vit()
