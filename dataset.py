"""The data: one-hot encoding of architectures, labels, the competition's two JSON files, and the folder they lie in."""

import json
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.files import InputError, first_line, log, read_file
from common.paths import PUBLISHED, check_output, project_path
from space import WIDTH, columns
from tasks import TASK_NAME, TASKS, TEST_FILE, TRAIN_FILE, TRUTH_FILE, find_task

ONE_HOT = np.eye(WIDTH + 1, WIDTH, dtype=np.float32)  # the last row, index ABSENT = -1, is zero


def encode(architectures):
    """One-hot encode architecture strings.

    architectures: n strings. Returns (n, 37, 10) float32: row 0 holds the depth in columns 0-2; each layer has a row
    for its heads (3-5), its MLP ratio (6-8) and its embedding (9); rows of absent layers are zero. Raises InputError
    for a string outside the search space.
    """
    return torch.from_numpy(ONE_HOT.take(columns(architectures), axis=0, mode="wrap"))


def load_entries(path):
    """Read a file of architectures: (architectures, entries), n strings in the file's order and its JSON object.

    Labels are not checked. Raises InputError naming file, key and position, OSError where the file cannot be read.
    """
    entries = _read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise InputError(f'{path}: expected an object of architectures, {{"arch1": {{...}}, ...}}')
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {name}: expected an object with 'arch' and the labels")
        if "arch" not in entry:
            raise InputError(f"{path}: {name}: 'arch' is missing")
    architectures = [entry["arch"] for entry in entries.values()]
    columns(architectures, [f"{path}: {name}" for name in entries])
    return architectures, entries


def _read_json(path):
    def unique(pairs):
        entry = dict(pairs)
        if len(entry) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in entry if names.count(name) > 1)
            raise InputError(f"{path}: key '{twice}' occurs twice in one object: expected once")
        return entry

    def finite(text):
        number = float(text)
        if not math.isfinite(number):
            raise InputError(f"{path}: holds {text[:40]}: expected a finite number")
        return number

    try:
        text = read_file(path).decode("utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8: expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} column {error.colno}: not JSON: {error.msg}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # a number too long; nested too deeply
        raise InputError(f"{path}: not JSON that can be read: {first_line(error)}") from None


def label_fields(path, entries):
    """Fields of `entries`, of the file at `path`, that label a task: {task name: field}, the eight known tasks first.

    `<task>_rank` holds labels of which smaller ones are better, `<task>_accuracy` those of which larger ones are.
    Raises InputError where there is none, where a task has both, or where its name is not allowed.
    """
    fields, found = {}, list(dict.fromkeys(field for entry in entries.values() for field in entry))
    for field in found:
        match = re.fullmatch(r"(.*)_(?:rank|accuracy)", field, re.DOTALL)
        if match and not re.fullmatch(TASK_NAME, match[1]):
            raise InputError(f"{path}: field {field!r}: the name of a task consists of letters, digits, _ and -")
        if match and match[1] in fields:
            raise InputError(f"{path}: both {fields[match[1]]} and {field} label {match[1]}: keep one of them")
        if match:
            fields[match[1]] = field
    if not fields:
        few = ", ".join(map(repr, found[:5]))
        raise InputError(f"{path}: labels no task: has the fields {few}: expected <task>_rank or <task>_accuracy")
    known = [task.name for task in TASKS if task.name in fields]
    return {name: fields[name] for name in dict.fromkeys([*known, *fields])}


def read_labels(path, entries, tasks=None):
    """Ranks of the labels in `entries`, of the file at `path`: {task name: (n,) int64 in [0, n)}, 0 is the best.

    Labels are any finite numbers. A rank is the number of better labels, the smaller ones of `<task>_rank` and the
    larger ones of `<task>_accuracy`: ties share the lowest rank, and a permutation of 0 to n - 1 in `<task>_rank` does
    not change. tasks: names, by default all that the file labels. Raises InputError as label_fields, and for a task
    that the file does not label or labels only in some entries, a label that is not a number, and an architecture that
    occurs twice with different labels.
    """
    fields = label_fields(path, entries)
    for name in tasks or ():
        if name not in fields:
            raise InputError(f"{path}: does not label the task '{name}': it labels {', '.join(fields)}")
    fields = {name: fields[name] for name in fields if tasks is None or name in tasks}
    return {name: _rank_labels(path, entries, name, field) for name, field in fields.items()}


def _rank_labels(path, entries, task, field):
    labels, first = [], {}
    for name, entry in entries.items():
        if field not in entry:
            raise InputError(f"{path}: {name}: '{field}' is missing: label every entry, or leave the task out")
        label = entry[field]
        if type(label) not in (int, float):
            raise InputError(f"{path}: {name}: {field} is {json.dumps(label)[:40]}: expected a finite number")
        other = first.setdefault(entry["arch"], name)
        if entries[other][field] != label:
            raise InputError(f"{path}: {name}: the architecture of {other} with another {field}")
        labels.append(label)
    larger = field.endswith("_accuracy")
    better = {}  # label -> how many are better; in Python's numbers, which compare integers of any size exactly
    for position, label in enumerate(sorted(labels, reverse=larger)):
        better.setdefault(label, position)
    if larger or set(better) - set(range(len(labels))):
        log.info(
            f"{field}: only the order of these labels counts, the {'largest' if larger else 'smallest'} is the best"
        )
    elif len(better) < len(labels):
        log.info(f"{field}: some architectures share a rank")
    return np.array([better[label] for label in labels])


def load_train(path, tasks=None):
    """Read a training file: (architectures, labels), n strings in the file's order and the ranks as read_labels.

    tasks: names, by default all that the file labels. Raises as load_entries and read_labels, and InputError where all
    labels of a task are equal.
    """
    architectures, entries = load_entries(path)
    labels = read_labels(path, entries, tasks)
    if tasks is None and [*labels] != [task.name for task in TASKS]:
        log.info(f"tasks labelled in {path}: {', '.join(labels)}")
    for name, ranks in labels.items():
        if not ranks.any():
            raise InputError(f"{path}: {name}: all labels are equal: there is no order to learn")
    return architectures, labels


def load_same(path, other_path, other):
    """Entries of the file `path`, in the order of `other`, the entries of the file `other_path`.

    Raises InputError unless both hold the same architectures under the same names, OSError.
    """
    _, entries = load_entries(path)
    for name in (*other, *entries):
        if name not in entries:
            raise InputError(f"{path}: {name} is missing: expected the {len(other)} architectures of {other_path}")
        if name not in other:
            raise InputError(f"{path}: {name} is not one of the {len(other)} architectures of {other_path}: remove it")
        if entries[name]["arch"] != other[name]["arch"]:
            raise InputError(f"{path}: {name}: arch is {entries[name]['arch']}: expected {other[name]['arch']}")
    return {name: entries[name] for name in other}


class Data(NamedTuple):
    """A folder of data: its files, and where the results and logs of what is trained on them go."""

    folder: Path
    name: str  # of the folder below results/ and logs/; empty for the project's data/ itself

    @property
    def train_file(self):
        return Path(self.folder, TRAIN_FILE)

    @property
    def test_file(self):
        return Path(self.folder, TEST_FILE)

    @property
    def truth_file(self):
        return Path(self.folder, TRUTH_FILE)

    @property
    def results(self):
        return Path(project_path("results", self.name))

    @property
    def logs(self):
        return Path(project_path("logs", self.name))

    def output_name(self, *words):
        """Default name of an output in the current folder: the words, and the data's name after the first."""
        return "_".join(filter(None, [words[0], self.name, *words[1:]]))

    def check_output(self, path, inputs=()):
        """Make the folder of the output file `path`; raise where writing it would replace data, or one of `inputs`.

        Raises InputError, also where it lies in the published run; OSError where it cannot be written.
        """
        check_output(path, [self.train_file, self.test_file, self.truth_file, *inputs])


def find_data(folder):
    """Find the data in a folder: Data. Raises InputError where it is no folder, or has the published run's name."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder: expected the folder of {TRAIN_FILE} or {TEST_FILE}")
    name = Path(os.path.realpath(folder)).name
    if name == PUBLISHED:
        raise InputError(f"{folder}: results/{name} is the published run: give the folder another name")
    return Data(Path(folder), "" if os.path.samefile(folder, project_path("data")) else name)


class ArchPerfDataset(torch.utils.data.Dataset):
    """Training or test file of the folder `root` as a torch Dataset, one item per architecture.

    With train=True an item is (encoding, rank), otherwise an encoding: (37, 10) float32; a rank is an int.
    target_type: the task, such as `cplfw` or `cplfw_rank`. Raises as load_train and load_entries.
    """

    def __init__(self, root, target_type, train=True):
        if train:
            name = find_task(target_type).name
            architectures, labels = load_train(Path(root) / TRAIN_FILE, [name])
            self.ranks = labels[name].tolist()
        else:
            architectures, _ = load_entries(Path(root) / TEST_FILE)
            self.ranks = None
        self.encodings = encode(architectures)

    def __len__(self):
        return len(self.encodings)

    def __getitem__(self, index):
        return self.encodings[index] if self.ranks is None else (self.encodings[index], self.ranks[index])
