"""Ranks by their definition, what is refused by file, key and position, and where data and outputs lie."""

import json
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import one_hot

import dataset
from common.files import InputError
from data.surrogate import generate
from dataset import ArchPerfDataset, Data, find_data, load_entries, load_same, load_train, read_labels
from space import sample_architectures
from tasks import TEST_FILE, TRAIN_FILE

ARCHITECTURES = sample_architectures(5, seed=3)


def entries_of(labels, field="sop_rank"):
    """An entry for each label, of different architectures."""
    return {f"arch{i + 1}": {"arch": ARCHITECTURES[i], field: label} for i, label in enumerate(labels)}


def changed(**fields):
    """Entries of three ranked architectures; the second one has other fields."""
    entries = entries_of([0, 1, 2])
    entries["arch2"] |= fields
    return entries


@pytest.fixture
def write(tmp_path):
    """Write entries, or bytes, as a file: its path."""

    def write(content):
        path = tmp_path / "train.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def test_a_test_file_needs_no_labels_and_keeps_what_it_has(write):
    entries = {"b": {"arch": ARCHITECTURES[0], "cplfw_rank": "no rank"}, "a": {"x": None, "arch": ARCHITECTURES[1]}}
    architectures, read = load_entries(write(entries))
    assert architectures == ARCHITECTURES[:2]
    assert json.dumps(read) == json.dumps(entries)


REFUSED = [
    (b'{"arch1": {"arch": ', "line 1 column 20: not JSON: Expecting value"),
    (b'{"arch\xff": {}}', "byte 6 is not UTF-8: expected a JSON file"),
    (b"[" * 100_000, "not JSON that can be read: .*recursion"),
    (b'{"a": [-1e999]}', "holds -1e999: expected a finite number"),
    (b'{"a": {"note": NaN}}', "holds NaN: expected a finite number"),
    (b'{"arch1": {"x": 1, "arch": "a", "arch": "b"}}', "key 'arch' occurs twice in one object"),
    ([1], "expected an object of architectures"),
    ({}, "expected an object of architectures"),
    ({"arch1": 3}, "arch1: expected an object with 'arch'"),
    ({"arch1": {"sop_rank": 1}}, "arch1: 'arch' is missing"),
    (changed(arch="j"), "arch2: arch has 1 characters"),
    (changed(arch=ARCHITECTURES[0]), "arch2: the architecture of arch1 with another sop_rank"),
    (changed(sop_rank="3"), 'arch2: sop_rank is "3": expected a finite number'),
    (changed(sop_rank=True), "arch2: sop_rank is true: expected a finite number"),
    (changed(sop_accuracy=1), "both sop_rank and sop_accuracy label sop: keep one of them"),
    (changed(veri_rank=1), "arch1: 'veri_rank' is missing: label every entry, or leave veri out of --tasks"),
    (changed(sop_rank_rank=1), "field 'sop_rank_rank': the name of a task consists of letters, digits, _ and -"),
    (
        entries_of([0, 1], "note"),
        "labels no task: has the fields 'arch', 'note': expected <task>_rank or <task>_accuracy",
    ),
    (entries_of([5, 5.0], "sop_accuracy"), "sop: all labels are equal: there is no order to learn"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=range(len(REFUSED)))
def test_bad_content_is_named_by_file_key_and_position(write, content, message):
    with pytest.raises(InputError, match=f"train.json: {message}"):
        load_train(write(content))


@pytest.mark.parametrize(
    "labels",
    [
        [-0.5, 0.25, -0.501, 1e-300, 0.0],
        [10**400, -(10**400), 10**400 - 3, 7],  # too large for a float
        [2**60 + 1, 2**60, 2**60 + 2, 2.0**60],  # equal as floats
    ],
    ids=range(3),
)
def test_a_rank_is_the_number_of_better_labels(labels):
    for field, is_better in (("sop_rank", operator.lt), ("sop_accuracy", operator.gt)):
        ranks = read_labels("f", entries_of(labels, field))["sop"]
        assert ranks.tolist() == [sum(is_better(other, label) for other in labels) for label in labels]


def test_it_is_said_how_labels_are_read(write, train_entries, caplog):
    caplog.set_level("INFO")
    load_train(write(train_entries))  # the eight tasks, with permutations
    assert not caplog.messages
    read_labels("f", entries_of([1, 0, 1]))
    read_labels("f", entries_of([1, 2, 3]))
    path = write(entries_of([0, 1, 2], "sop_accuracy"))
    load_train(path)
    load_train(path, ["sop"])
    assert caplog.messages == [
        "sop_rank: some architectures share a rank",
        "sop_rank: only the order of these labels counts, the smallest is the best",
        "sop_accuracy: only the order of these labels counts, the largest is the best",
        f"tasks labelled in {path}: sop",
        "sop_accuracy: only the order of these labels counts, the largest is the best",
    ]


def test_labels_of_other_tasks_are_not_read_and_the_known_tasks_come_first(write):
    entries = entries_of([81.5, 80, 81.5], "my-Task_2_accuracy")
    for entry, rank in zip(entries.values(), (0, 1, 0.0), strict=True):
        entry |= {"other_rank": -rank, "sop_rank": rank, "veri_accuracy": None, "rank": None, "sop_rank_interval": []}
    entries["arch3"]["arch"] = entries["arch1"]["arch"]  # measured twice, with the same labels
    path = write(entries)
    _, labels = load_train(path, ["other", "my-Task_2", "sop", "sop"])
    expected = [("sop", [0, 2, 0]), ("my-Task_2", [0, 2, 0]), ("other", [1, 0, 1])]
    assert [(name, ranks.tolist()) for name, ranks in labels.items()] == expected
    with pytest.raises(InputError, match=r"does not label the task 'x': it labels veri, sop, my-Task_2, other$"):
        load_train(path, ["sop", "x"])


def test_entries_of_the_same_architectures_are_put_in_the_same_order(write):
    other = entries_of([1, 2, 3])
    one, two, three = other.values()
    assert list(load_same(write(dict(reversed(other.items()))), "other", other)) == list(other)
    for entries, message in (
        ({"arch1": one, "arch3": three}, "arch2 is missing: expected the 3 architectures of other"),
        (other | {"arch4": one}, "arch4 is not one of the 3 architectures of other: remove it"),
        (other | {"arch2": three}, f"arch2: arch is {three['arch']}: expected {two['arch']}"),
    ):
        with pytest.raises(InputError, match=f"train.json: {message}"):
            load_same(write(entries), "other", other)


def test_items_of_the_torch_dataset(data_folder, train_entries):
    training, testing = ArchPerfDataset(data_folder, "veri_rank"), ArchPerfDataset(data_folder, "veri", train=False)
    for (encoding, rank), entry in zip(training, train_entries.values(), strict=True):
        assert (encoding.dtype, rank) == (torch.float32, entry["veri_rank"])
        np.testing.assert_array_equal(encoding, one_hot(entry["arch"]))
    last = list(json.loads((data_folder / TEST_FILE).read_text()).values())[-1]
    np.testing.assert_array_equal(testing[len(testing) - 1], one_hot(last["arch"]))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder that stands in for the project's, with an empty data/ and the surrogate's folder."""
    root = tmp_path / "root"
    (root / "data" / "surrogate").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(dataset, "__file__", str(root / "dataset.py"))
    monkeypatch.setattr(generate, "FOLDER", root / "data" / "surrogate")
    monkeypatch.setattr(generate, "make", (root / "made").touch)
    return root


@pytest.mark.parametrize(
    ("file", "given", "folder", "name"),
    [
        (TRAIN_FILE, None, "data", ""),
        (TEST_FILE, None, "data", ""),
        ("other", None, "data/surrogate", "surrogate"),
        ("other", "data/", "data", ""),
        ("other", "link", "link", "surrogate"),
    ],
)
def test_the_folder_of_the_data_gives_its_name_to_the_outputs(root, caplog, file, given, folder, name):
    caplog.set_level("INFO")
    (root / "data" / file).touch()
    (root / "link").symlink_to("data/surrogate")
    data = find_data(given)
    what = "the surrogate benchmark, as data lacks the competition's files" if name else "the competition files"
    assert caplog.messages == ([] if given else [f"data: {folder}, {what}"])
    assert (data.train_file, data.test_file) == (Path(folder, TRAIN_FILE), Path(folder, TEST_FILE))
    assert (data.results, data.logs) == (Path("results", name), Path("logs", name))
    assert data.output_name("test", "gp") == ("test_surrogate_gp" if name else "test_gp")
    assert (root / "made").exists() == data.is_surrogate == (name == "surrogate")


def test_a_folder_that_cannot_be_used_is_said(root):
    (root / "published").mkdir()
    (root / "link").symlink_to("published")
    (root / "file").touch()
    for name, message in (
        ("link", "results/published is the published run: give the folder another name"),
        ("file", f"no such folder: expected the folder of {TRAIN_FILE} or {TEST_FILE}"),
    ):
        with pytest.raises(InputError, match=f"^--data_path {name}: {message}"):
            find_data(name)


def test_an_output_that_would_replace_data_or_the_published_run_is_refused(root):
    data = Data(root, "root")
    for path in (data.train_file, data.test_file, root / "truth.json", generate.EFFECTS, "input"):
        with pytest.raises(InputError, match=r"would replace .*, which this command reads or writes"):
            data.check_output(path, ["input"])
    (root / "link").symlink_to("results/published")
    for path in ("link/new", "logs/published/x"):
        with pytest.raises(InputError, match=f"{path}: part of the published run, which stays as it is"):
            data.check_output(path)
    data.check_output("results/new/sop_gp.pth")
