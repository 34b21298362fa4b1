"""Architecture strings, their one-hot encoding, labels, and the competition's two JSON files.

A string has 37 characters: the depth (`j`, `k`, `l` = 10, 11, 12 layers), then for each of 12 layers the number of
heads (`1`-`3`), the MLP ratio (`1`-`3`) and the embedding (always `1`); a layer past the depth is `000`.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

from files import InputError, first_line, read_file
from folders import TEST_FILE, TRAIN_FILE
from tasks import TASKS, find_task

DEPTHS = {"j": 10, "k": 11, "l": 12}
LAYERS, LENGTH, WIDTH = 12, 37, 10  # a string is 1 + 3 * LAYERS characters, each encoded as WIDTH numbers
ABSENT, INVALID = -1, -2


class DataError(InputError):
    """An architecture or a file that does not follow the competition's format."""


def _allowed(position):
    """Characters allowed at a position of a string, and their columns: {character: column}, ABSENT for `0`."""
    if position == 0:
        return {"j": 0, "k": 1, "l": 2}
    kind = (position - 1) % 3
    return {"0": ABSENT, "1": 9} if kind == 2 else {"0": ABSENT, **{str(c + 1): 3 + 3 * kind + c for c in range(3)}}


COLUMNS = np.full((LENGTH, 256), INVALID, np.int8)  # [position, character] -> column
for _position in range(LENGTH):
    for _character, _column in _allowed(_position).items():
        COLUMNS[_position, ord(_character)] = _column


# Indices of the 87 features that can be nonzero in a flattened encoding: 3 of depth, then in each layer 3 of heads, 3
# of the MLP ratio and 1 of the embedding, which is 1 where the layer is present.
FEATURES = [WIDTH * row + column for row in range(LENGTH) for column in range(WIDTH) if column in COLUMNS[row]]

ONE_HOT = np.eye(WIDTH + 1, WIDTH, dtype=np.float32)  # the last row, index ABSENT = -1, is zero


def check_architecture(architecture, key="architecture"):
    """Raise DataError, naming `key` and the position (0-36), unless `architecture` is a string of the search space."""
    if not isinstance(architecture, str):
        raise DataError(f"{key}: arch is {json.dumps(architecture)[:40]}: expected a string of {LENGTH} characters")
    if len(architecture) != LENGTH:
        raise DataError(f"{key}: arch has {len(architecture)} characters: expected {LENGTH}")
    for position, character in enumerate(architecture):
        allowed = sorted(_allowed(position))
        if position:
            absent = position > 3 * DEPTHS[architecture[0]]
            allowed = ["0"] if absent else allowed[1:]
        if character not in allowed:
            why = f" in layer {(position + 2) // 3}, depth {DEPTHS[architecture[0]]}" if position else ""
            raise DataError(f"{key}: arch position {position} is {character!r}: expected {' or '.join(allowed)}{why}")


def columns(architectures, keys=None):
    """Columns that encode the characters of n architecture strings: (n, 37) int8, ABSENT where a layer is absent.

    keys: names of the n strings, for messages. Raises DataError for a string outside the search space.
    """
    text = b""
    if all(isinstance(a, str) for a in architectures) and set(map(len, architectures)) <= {LENGTH}:
        text = "".join(architectures).encode("latin-1", "replace")
    if len(text) == LENGTH * len(architectures):
        codes = np.frombuffer(text, np.uint8).reshape(-1, LENGTH)
        chosen = COLUMNS.reshape(-1).take(codes + 256 * np.arange(LENGTH))
        depth = chosen[:, :1] + min(DEPTHS.values())
        wrong = (chosen == INVALID) | ((chosen == ABSENT) != (np.arange(LENGTH) > 3 * depth))
        if not wrong.any():
            return chosen
    for i, architecture in enumerate(architectures):
        check_architecture(architecture, keys[i] if keys else f"architecture {i}")
    raise AssertionError("an architecture passes one check and fails the other")


def encode(architectures):
    """One-hot encode architecture strings.

    architectures: n strings. Returns (n, 37, 10) float32: row 0 holds the depth in columns 0-2; each layer has a row
    for its heads (3-5), its MLP ratio (6-8) and its embedding (9); rows of absent layers are zero. Raises DataError for
    a string outside the search space.
    """
    return torch.from_numpy(ONE_HOT.take(columns(architectures), axis=0, mode="wrap"))


def sample_architectures(n, seed, exclude=()):
    """Draw n distinct architecture strings that are not in `exclude`: depth uniform, then each choice uniform.

    The same seed gives the same architectures on every machine and with every release of NumPy. Raises ValueError for
    a negative n.
    """
    if n < 0:
        raise ValueError(f"n is {n}: must not be negative")
    random = np.random.RandomState(seed)  # the legacy generator: NumPy has frozen its stream
    excluded, found = set(exclude), {}
    while len(found) < n:
        count = n - len(found)
        depth = random.randint(len(DEPTHS), size=count)
        codes = np.full((count, LENGTH), ord("1"), np.uint8)
        codes[:, 0] = ord("j") + depth
        layers = codes[:, 1:].reshape(count, LAYERS, 3)
        layers[:, :, :2] += random.randint(3, size=(count, LAYERS, 2)).astype(np.uint8)
        layers[np.arange(LAYERS) >= min(DEPTHS.values()) + depth[:, None]] = ord("0")
        text = codes.tobytes().decode()
        drawn = (text[i : i + LENGTH] for i in range(0, len(text), LENGTH))
        found.update((architecture, None) for architecture in drawn if architecture not in excluded)
    return list(found)


def load_entries(path):
    """Read a file of architectures: (architectures, content), n strings in the file's order and the JSON object.

    Only `arch` is checked. Raises DataError naming file, key and position, OSError where the file cannot be read.
    """

    def unique(pairs):
        entry = dict(pairs)
        if len(entry) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in entry if names.count(name) > 1)
            raise DataError(f"{path}: key '{twice}' occurs twice in one object: expected once")
        return entry

    try:
        content = json.loads(read_file(path).decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8: expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno} column {error.colno}: not JSON: {error.msg}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not JSON that can be read: {first_line(error)}") from None  # a number too long
    except RecursionError:
        raise DataError(f"{path}: nested too deeply: expected an object of architectures") from None
    if not isinstance(content, dict) or not content:
        raise DataError(f'{path}: expected an object of architectures, {{"arch1": {{...}}, ...}}')
    for name, entry in content.items():
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {name}: expected an object with 'arch' and the ranks")
        if "arch" not in entry:
            raise DataError(f"{path}: {name}: 'arch' is missing")
    architectures = [entry["arch"] for entry in content.values()]
    columns(architectures, [f"{path}: {name}" for name in content])
    return architectures, content


def load_train(path, tasks=None, note=lambda line: None):
    """Read a training file.

    tasks: list of tasks.Task, by default all that the file labels; note: function that is called with each message for
    the user. Returns (architectures, ranks): n strings in the file's order and {task name: (n,) int64 in [0, n)}, as
    `parse_labels`. Raises as load_entries and parse_labels.
    """
    architectures, content = load_entries(path)
    return architectures, parse_labels(path, content, tasks, note)


def labelled_tasks(path, content):
    """Tasks that at least one entry in the content of the file at `path` labels; raises DataError if there are none."""
    tasks = [task for task in TASKS if any(task.rank_key in entry for entry in content.values())]
    if not tasks:
        raise DataError(f"{path}: no entry has a label such as '{TASKS[0].rank_key}': label at least one task")
    return tasks


def parse_labels(path, content, tasks=None, note=lambda line: None):
    """Ranks of the labels in the content of the file at `path`: {task name: (n,) int64 in [0, n)}.

    Labels are any finite numbers. The rank of a label is the number of smaller labels of its task: ties share the
    lowest rank, and a permutation of 0 to n - 1 does not change. tasks, note: as load_train. Raises DataError for a
    task that only some entries label, a label that is not a finite number, and an architecture that occurs twice with
    different labels.
    """
    if tasks is None:
        tasks = labelled_tasks(path, content)
        if len(tasks) < len(TASKS):
            note(f"tasks labelled in {path}: {', '.join(task.name for task in tasks)}")
    first, ranks, ordered, tied = {}, {}, [], []
    for name, entry in content.items():
        other = first.setdefault(entry["arch"], name)
        for task in tasks:
            if task.rank_key not in entry:
                raise DataError(
                    f"{path}: {name}: '{task.rank_key}' is missing: label every entry or name other --tasks"
                )
            label = entry[task.rank_key]
            if not (type(label) is int or (type(label) is float and math.isfinite(label))):
                found = json.dumps(label)[:40]
                raise DataError(f"{path}: {name}: {task.rank_key} is {found}: expected a finite number")
            if content[other].get(task.rank_key) != label:
                raise DataError(f"{path}: {name}: the architecture of {other} with another {task.rank_key}")
    for task in tasks:
        labels = [entry[task.rank_key] for entry in content.values()]
        smaller = {}  # label -> how many are smaller; in Python's numbers, which compare integers of any size exactly
        for position, label in enumerate(sorted(labels)):
            smaller.setdefault(label, position)
        ranks[task.name] = np.array([smaller[label] for label in labels])
        if not all(type(label) is int and 0 <= label < len(labels) for label in labels):
            ordered.append(task.name)
        elif len(smaller) < len(labels):
            tied.append(task.name)
    if ordered:
        note(
            f"{', '.join(ordered)}: the labels are not the ranks 0 to {len(content) - 1}: only their order is used; "
            "if larger is better, pass --largest to test.py, rank.py, score.py, search.py and traverse.py"
        )
    if tied:
        note(f"some architectures share a rank, which is allowed: {', '.join(tied)}")
    return ranks


class ArchPerfDataset(torch.utils.data.Dataset):
    """Training or test file of the folder `root` as a torch Dataset, one item per architecture.

    With train=True an item is (encoding, rank), otherwise an encoding: (37, 10) float32; a rank is an int.
    target_type: the task, such as `cplfw` or `cplfw_rank`. Raises as load_train, load_entries and find_task.
    """

    def __init__(self, root, target_type, train=True):
        task = find_task(target_type)
        if train:
            architectures, ranks = load_train(Path(root) / TRAIN_FILE, [task])
            self.ranks = ranks[task.name].tolist()
        else:
            architectures, _ = load_entries(Path(root) / TEST_FILE)
            self.ranks = None
        self.encodings = encode(architectures)

    def __len__(self):
        return len(self.encodings)

    def __getitem__(self, index):
        return self.encodings[index] if self.ranks is None else (self.encodings[index], self.ranks[index])
