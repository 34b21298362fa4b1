"""The data: one-hot encoding of architectures, labels, the competition's two JSON files, and the folder they lie in."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.files import InputError, is_number, log, read_json, write_file
from common.paths import PUBLISHED, check_output, project_path
from space import VIT, Space, read_space
from tasks import OWN_NAMES, TASK_NAME, TASKS, TEST_FILE, TRAIN_FILE, TRUTH_FILE, find_task

SPACE_FILE = "space.json"
OWNER = ".data_folder"  # in a folder of results: the data folder that they are of


def encode(space, architectures):
    """One-hot encode architecture strings of a space.Space.

    architectures: n strings. Returns (n, rows, columns) float32, a row for each decision; of VIT (n, 37, 10): row 0
    holds the depth in columns 0-2; each layer has a row for its heads (3-5), its MLP ratio (6-8) and its embedding (9);
    rows of absent layers are zero. Raises InputError for a string outside the space.
    """
    one_hot = np.eye(space.shape[1] + 1, space.shape[1], dtype=np.float32)  # the last row, index ABSENT = -1, is zero
    return torch.from_numpy(one_hot.take(space.columns(space.parse(architectures)), axis=0, mode="wrap"))


def read_entries(path):
    """Read a file of architectures: its JSON object, {name: {"arch": ..., labels}}; raises InputError, OSError."""
    entries = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise InputError(f'{path}: expected an object of architectures, {{"arch1": {{...}}, ...}}')
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {name}: expected an object with 'arch' and the labels")
        if "arch" not in entry:
            raise InputError(f"{path}: {name}: 'arch' is missing")
    return entries


def digest(entries):
    """SHA-256 of a file's entries, written as json.dump does, as the competition wrote its file."""
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def load_entries(path, space=VIT):
    """Read a file of architectures of a space: (architectures, entries), n strings in the file's order, and its object.

    "arch" of an entry is a string or an object {decision: choice}. Labels are not checked. Raises InputError naming
    file, key and position, OSError where the file cannot be read.
    """
    entries = read_entries(path)
    choices = space.parse([entry["arch"] for entry in entries.values()], [f"{path}: {name}" for name in entries])
    return space.strings(choices), entries


def label_fields(path, entries):
    """Fields of `entries`, of the file at `path`, that label a task: {task name: field}, the eight known tasks first.

    Smaller values of `<task>_rank` are better, larger values of `<task>_accuracy`.
    Raises InputError where there is none, where a task has both, or where its name is not allowed.
    """
    fields, found = {}, list(dict.fromkeys(field for entry in entries.values() for field in entry))
    for field in found:
        task = re.sub(r"_(rank|accuracy)\Z", "", field)
        if task == field:
            continue
        if not re.fullmatch(TASK_NAME, task):
            raise InputError(f"{path}: field {field!r}: the name of a task consists of letters, digits, _ and -")
        if task in fields:
            raise InputError(f"{path}: both {fields[task]} and {field} label {task}: keep one of them")
        fields[task] = field
    if not fields:
        few = ", ".join(map(repr, found[:5]))
        raise InputError(f"{path}: labels no task: has the fields {few}: expected <task>_rank or <task>_accuracy")
    known = [task.name for task in TASKS if task.name in fields]
    return {name: fields[name] for name in dict.fromkeys([*known, *fields])}


class Labels(NamedTuple):
    """Labels of n different architectures on one task; smaller is better."""

    architectures: list  # n strings
    values: np.ndarray  # (n,) float64, means over the measurements of an architecture
    counts: np.ndarray  # (n,) int64, how many measurements
    ranks: np.ndarray  # (n,) int64 in [0, n): the number of smaller labels, so that ties share the lowest rank
    measured: bool  # the distances of the labels mean something: accuracies, not ranks

    @classmethod
    def of(cls, architectures, numbers, measured):
        """Labels of n architecture strings, smaller is better, None where there is none; repeated ones are averaged."""
        found = {}
        for architecture, number in zip(architectures, numbers, strict=True):
            if number is not None:
                found.setdefault(architecture, []).append(number)
        means = [each[0] if len(each) == 1 else sum(each) / len(each) for each in found.values()]
        counts = np.array([len(each) for each in found.values()], np.int64)
        return cls(list(found), np.array(means, float), counts, _rank(means), measured)

    def select(self, indices):
        """Some of them; the ranks stay as they are."""
        rows = (array[indices] for array in (self.values, self.counts, self.ranks))
        return Labels([self.architectures[i] for i in indices], *rows, self.measured)


def _numbers(path, entries, field):
    """Labels of a field, larger ones of `_accuracy` negated: a list, None where they are null; raises InputError."""
    sign, found = -1 if field.endswith("_accuracy") else 1, []
    for name, entry in entries.items():
        if field not in entry:
            raise InputError(f"{path}: {name}: '{field}' is missing: write null where it is not measured")
        label = entry[field]
        if label is not None and not is_number(label):
            raise InputError(f"{path}: {name}: {field} is {json.dumps(label)[:40]}: expected a finite number or null")
        found.append(label if label is None else sign * label)
    return found


def _rank(numbers):
    """Number of smaller ones of each of n numbers, (n,) int64; in Python's numbers, which compare exactly."""
    first = {}
    for position, number in enumerate(sorted(numbers)):
        first.setdefault(number, position)
    return np.array([first[number] for number in numbers], np.int64)


def _fields(path, entries, tasks):
    """Fields of the tasks as label_fields, by default all; raises InputError for a task that is not labelled."""
    fields = label_fields(path, entries)
    for name in tasks or ():
        if name not in fields:
            raise InputError(f"{path}: does not label the task '{name}': it labels {', '.join(fields)}")
    return {name: field for name, field in fields.items() if tasks is None or name in tasks}


def read_labels(path, entries, tasks=None):
    """Ranks of the labels in `entries`, of the file at `path`: {task name: (n,) int64 in [0, n)}, 0 is the best.

    Labels are any finite numbers. A rank is the number of better labels, the smaller ones of `<task>_rank` and the
    larger ones of `<task>_accuracy`: ties share the lowest rank, and a permutation of 0 to n - 1 in `<task>_rank` does
    not change. tasks: names, by default all that the file labels. Raises InputError as label_fields, and for a task
    that the file does not label or labels only in some entries, and a label that is not a number.
    """
    found = {}
    for task, field in _fields(path, entries, tasks).items():
        numbers = _numbers(path, entries, field)
        if None in numbers:
            name = list(entries)[numbers.index(None)]
            raise InputError(f"{path}: {name}: {field} is null: expected a label of every entry")
        found[task] = _rank(numbers)
    return found


def read_train(path, tasks=None, space=VIT):
    """Read a training file: (entries, {task name: field}, {task name: Labels}), as load_train, but of any labels."""
    architectures, entries = load_entries(path, space)
    fields, found = _fields(path, entries, tasks), {}
    for task, field in fields.items():
        found[task] = Labels.of(architectures, _numbers(path, entries, field), field.endswith("_accuracy"))
    return entries, fields, found


def load_train(path, tasks=None, space=VIT):
    """Read a training file: (entries, {task name: Labels}), architectures in the file's order.

    Entries whose label is null are left out; of an architecture that occurs several times the labels are averaged.
    tasks: names, by default all that the file labels. Raises as load_entries and label_fields, and InputError for a
    label that is not a number and where all labels of a task are equal.
    """
    entries, fields, found = read_train(path, tasks, space)
    if tasks is None and [*fields] != [task.name for task in TASKS]:
        log.info(f"tasks labelled in {path}: {', '.join(fields)}")
    for task, labels in found.items():
        field, is_accuracy = fields[task], labels.measured
        missing, repeated = len(entries) - labels.counts.sum(), (labels.counts > 1).sum()
        if missing:
            log.info(f"{path}: {field}: {missing} of {len(entries)} entries are not measured (null): left out")
        if repeated:
            log.info(f"{path}: {field}: {repeated} architectures are measured several times: their labels are averaged")
        if not labels.ranks.any():
            why = "all labels are equal" if len(labels.ranks) else "no entry is measured"
            raise InputError(f"{path}: {task}: {why}: there is no order to learn")
        if is_accuracy or set(labels.values.tolist()) - set(range(len(entries))):
            log.info(f"{field}: the {'largest' if is_accuracy else 'smallest'} label is the best")
        elif len(set(labels.ranks)) < len(labels.ranks):
            log.info(f"{field}: some architectures share a rank")
    return entries, found


def load_same(path, other_path, other):
    """Entries of the file `path`, in the order of `other`, the entries of the file `other_path`.

    Raises InputError unless both hold the same architectures under the same names, OSError.
    """
    entries = read_entries(path)
    for name in (*other, *entries):
        if name not in entries:
            raise InputError(f"{path}: {name} is missing: expected the {len(other)} architectures of {other_path}")
        if name not in other:
            raise InputError(f"{path}: {name} is not one of the {len(other)} architectures of {other_path}: remove it")
        found, expected = entries[name]["arch"], other[name]["arch"]
        if found != expected:
            raise InputError(f"{path}: {name}: arch is {json.dumps(found)}: expected {json.dumps(expected)}")
    return {name: entries[name] for name in other}


class Data(NamedTuple):
    """A folder of data: its files, and where the results and logs of what is trained on them go."""

    folder: Path
    name: str  # of the folder below results/ and logs/; empty for the project's data/ itself
    space: Space = VIT

    def _path(self, name):
        """Of the competition's file, or of the user's own where that is not there."""
        own = Path(self.folder, OWN_NAMES[name])
        return own if own.exists() or (self.name and not Path(self.folder, name).exists()) else Path(self.folder, name)

    @property
    def train_file(self):
        return self._path(TRAIN_FILE)

    @property
    def test_file(self):
        return self._path(TEST_FILE)

    @property
    def truth_file(self):
        return Path(self.folder, TRUTH_FILE)

    @property
    def results(self):
        return Path(project_path("results", self.name))

    @property
    def logs(self):
        return Path(project_path("logs", self.name))

    def check_owner(self, results=None):
        """Raise InputError where `results`, by default the data's, hold those of another folder of this name."""
        marker = self.results / OWNER
        if results or not self.name or not marker.exists():
            return
        owner = Path(project_path(), os.fsdecode(marker.read_bytes()))
        if owner.exists() and not os.path.samefile(owner, self.folder):
            message = f"{self.results}: holds results of {owner}: rename {self.folder}"
            raise InputError(message)

    def own(self):
        """Note that the data's results are of this folder."""
        if self.name:
            path, project = (Path(os.path.realpath(each)) for each in (self.folder, project_path()))
            owner = path.relative_to(project) if path.is_relative_to(project) else path
            write_file(self.results / OWNER, os.fsencode(owner))

    def output_name(self, *words):
        """Default name of an output in the current folder: the words, and the data's name after the first."""
        return "_".join(filter(None, [words[0], self.name, *words[1:]]))

    def check_output(self, path, inputs=()):
        """Make the folder of the output file `path`; raise where writing it would replace data, or one of `inputs`.

        Raises InputError, also where it lies in the published run; OSError where it cannot be written.
        """
        names = self.train_file, self.test_file, self.truth_file, Path(self.folder, SPACE_FILE)
        if Path(path).suffix == ".pth" and Path(path).exists():
            raise InputError(f"{path}: would replace a checkpoint: choose another name")
        check_output(path, [*names, *inputs])


def find_data(folder):
    """Find the data in a folder: Data, with the space that its space.json describes, by default VIT.

    Raises InputError where it is no folder, has the published run's name or another space.json than space.read_space
    takes; OSError.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder: expected the folder of {' or '.join(OWN_NAMES.values())}")
    name = Path(os.path.abspath(folder)).name
    if name == PUBLISHED:
        raise InputError(f"{folder}: results/{name} is the published run: give the folder another name")
    path = Path(folder, SPACE_FILE)
    space = read_space(path) if path.exists() else VIT
    for theirs, ours in OWN_NAMES.items():
        if Path(folder, theirs).exists() and Path(folder, ours).exists():
            log.info(f"{folder}: has {ours} and {theirs}: {ours} is used")
    return Data(Path(folder), "" if os.path.samefile(folder, project_path("data")) else name, space)


class ArchPerfDataset(torch.utils.data.Dataset):
    """Training or test file of the competition in the folder `root` as a torch Dataset, one item per architecture.

    With train=True an item is (encoding, rank), otherwise an encoding: (37, 10) float32; a rank is an int.
    target_type: the task, such as `cplfw` or `cplfw_rank`. Raises as load_train and load_entries.
    """

    def __init__(self, root, target_type, train=True):
        if train:
            _, found = load_train(Path(root) / TRAIN_FILE, [find_task(target_type).name])
            (labels,) = found.values()
            architectures, self.ranks = labels.architectures, labels.ranks.tolist()
        else:
            (architectures, _), self.ranks = load_entries(Path(root) / TEST_FILE), None
        self.encodings = encode(VIT, architectures)

    def __len__(self):
        return len(self.encodings)

    def __getitem__(self, index):
        return self.encodings[index] if self.ranks is None else (self.encodings[index], self.ranks[index])
