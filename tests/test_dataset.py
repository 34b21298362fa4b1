"""Ranks by their definition, what is refused by file, key and position, and where data and outputs lie."""

import gzip
import hashlib
import json
import math
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import one_hot

from common import paths
from common.files import InputError
from dataset import ArchPerfDataset, Data, Labels, digest, find_data, load_entries, load_same, load_train, read_labels
from space import VIT
from tasks import TEST_FILE, TRAIN_FILE

ARCHITECTURES = VIT.sample(5, seed=3)


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
    ("{}".encode("utf-16"), "not JSON, but UTF-16: save it as UTF-8"),
    (gzip.compress(b"{}"), "not JSON, but compressed by gzip: unpack it"),
    (b"<!DOCTYPE html>", "not JSON, but HTML or XML"),
    (b"version https://git-lfs.github.com/spec/v1", "not JSON, but a pointer of Git LFS"),
    (b'{"arch1": {"x": 1, "arch": "a", "arch": "b"}}', "key 'arch' occurs twice in one object"),
    ([1], "expected an object of architectures"),
    ({}, "expected an object of architectures"),
    ({"arch1": 3}, "arch1: expected an object with 'arch'"),
    ({"arch1": {"sop_rank": 1}}, "arch1: 'arch' is missing"),
    (changed(arch="j"), "arch2: arch has 1 characters"),
    (changed(sop_rank="3"), 'arch2: sop_rank is "3": expected a finite number or null'),
    (changed(sop_rank=math.nan), "arch2: sop_rank is NaN: expected a finite number or null"),
    (changed(sop_rank=10**400), "arch2: sop_rank is 1000"),
    (changed(sop_rank=True), "arch2: sop_rank is true: expected a finite number"),
    (changed(sop_accuracy=1), "both sop_rank and sop_accuracy label sop: keep one of them"),
    (changed(veri_rank=1), "arch1: 'veri_rank' is missing: write null where it is not measured"),
    (changed(sop_rank_rank=1), "field 'sop_rank_rank': the name of a task consists of letters, digits, _ and -"),
    (
        entries_of([0, 1], "note"),
        "labels no task: has the fields 'arch', 'note': expected <task>_rank or <task>_accuracy",
    ),
    (entries_of([5, 5.0, None], "sop_accuracy"), "sop: all labels are equal: there is no order to learn"),
    (entries_of([None, None], "sop_accuracy"), "sop: no entry is measured: there is no order to learn"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=range(len(REFUSED)))
def test_bad_content_is_named_by_file_key_and_position(write, content, message):
    with pytest.raises(InputError, match=f"train.json: {message}"):
        load_train(write(content))


@pytest.mark.parametrize(
    "labels",
    [
        [-0.5, 0.25, -0.501, 1e-300, 0.0],
        [2**60 + 1, 2**60, 2**60 + 2, 2.0**60],  # equal as floats
    ],
    ids=range(2),
)
def test_a_rank_is_the_number_of_better_labels(labels):
    for field, is_better in (("sop_rank", operator.lt), ("sop_accuracy", operator.gt)):
        ranks = read_labels("f", entries_of(labels, field))["sop"]
        assert ranks.tolist() == [sum(is_better(other, label) for other in labels) for label in labels]


def test_it_is_said_how_labels_are_read(write, train_entries, caplog):
    caplog.set_level("INFO")
    load_train(write(train_entries))  # the eight tasks, with permutations
    assert not caplog.messages
    entries = entries_of([0, 1, 4, None, 1], "sop_accuracy")
    entries["arch3"]["arch"] = entries["arch1"]["arch"]
    path = write(entries)
    load_train(path)
    load_train(write(entries_of([1, 0, 1])), ["sop"])
    assert caplog.messages == [
        f"tasks labelled in {path}: sop",
        f"{path}: sop_accuracy: 1 of 5 entries are not measured (null): left out",
        f"{path}: sop_accuracy: 1 architectures are measured several times: their labels are averaged",
        "sop_accuracy: the largest label is the best",
        "sop_rank: some architectures share a rank",
    ]


def test_labels_of_other_tasks_are_not_read_and_the_known_tasks_come_first(write):
    entries = entries_of([81.5, 80, 84.5], "my-Task_2_accuracy")
    for entry, rank in zip(entries.values(), (0, 1, 0.0), strict=True):
        entry |= {"other_rank": -rank, "sop_rank": rank, "veri_accuracy": math.nan}
        entry |= {"rank": None, "sop_rank_interval": []}
    entries["arch3"]["arch"] = entries["arch1"]["arch"]
    path = write(entries)
    _, found = load_train(path, ["other", "my-Task_2", "sop", "sop"])
    assert [(name, each.values.tolist(), each.ranks.tolist()) for name, each in found.items()] == [
        ("sop", [0, 1], [0, 1]),
        ("my-Task_2", [-83, -80], [0, 1]),
        ("other", [0, -1], [1, 0]),
    ]
    assert [each.counts.tolist() for each in found.values()] == [[2, 1]] * 3
    assert [each.measured for each in found.values()] == [False, True, False]
    with pytest.raises(InputError, match=r"does not label the task 'x': it labels veri, sop, my-Task_2, other$"):
        load_train(path, ["sop", "x"])


def test_some_labels_keep_their_ranks():
    labels = Labels.of(ARCHITECTURES, [5, 1, 4, 2, 3], measured=True).select([2, 0])
    assert labels.architectures == [ARCHITECTURES[2], ARCHITECTURES[0]]
    assert [labels.values.tolist(), labels.ranks.tolist(), labels.counts.tolist()] == [[4, 5], [3, 4], [1, 1]]


def test_a_folder_says_its_space_and_may_hold_objects(tmp_path, caplog):
    caplog.set_level("INFO")
    space = {"hyperparameters": [{"type": "categorical", "name": "a", "choices": ["x", 1]}]}
    (tmp_path / "space.json").write_text(json.dumps(space))
    entries = {"one": {"arch": {"a": 1}, "t_accuracy": 0.5}, "two": {"arch": "0", "t_accuracy": 0.25}}
    (tmp_path / "train.json").write_text(json.dumps(entries))
    data = find_data(tmp_path)
    read, found = load_train(data.train_file, space=data.space)
    assert (read, found["t"].architectures) == (entries, ["1", "0"])
    assert not [message for message in caplog.messages if "is used" in message]
    (tmp_path / TRAIN_FILE).touch()
    assert find_data(tmp_path).train_file == tmp_path / "train.json"
    assert caplog.messages[-1] == f"{tmp_path}: has train.json and {TRAIN_FILE}: train.json is used"
    with pytest.raises(InputError, match=r"space\.json: line 1"):
        (tmp_path / "space.json").write_text("{")
        find_data(tmp_path)


def test_data_are_the_same_by_content(write):
    entries = entries_of([1, 2, 3])
    path = write(entries)
    bytes_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text("\ufeff" + json.dumps(entries, indent=2))  # with a byte order mark
    assert digest(load_entries(path)[1]) == bytes_digest != digest(entries_of([1, 2, 4]))


def test_entries_of_the_same_architectures_are_put_in_the_same_order(write):
    other = entries_of([1, 2, 3])
    one, two, three = other.values()
    assert list(load_same(write(dict(reversed(other.items()))), "other", other)) == list(other)
    for entries, message in (
        ({"arch1": one, "arch3": three}, "arch2 is missing: expected the 3 architectures of other"),
        (other | {"arch4": one}, "arch4 is not one of the 3 architectures of other: remove it"),
        (other | {"arch2": three}, 'arch2: arch is "' + three["arch"] + '": expected "' + two["arch"] + '"'),
    ):
        with pytest.raises(InputError, match=f"train.json: {message}"):
            load_same(write(entries), "other", other)


def test_items_of_the_torch_dataset(data_folder, train_entries):
    training, testing = ArchPerfDataset(data_folder, "veri_rank"), ArchPerfDataset(data_folder, "veri", train=False)
    for (encoding, rank), entry in zip(training, train_entries.values(), strict=True):
        assert (encoding.dtype, rank) == (torch.float32, entry["veri_rank"])
        np.testing.assert_array_equal(encoding, one_hot(VIT, entry["arch"]))
    last = list(json.loads((data_folder / TEST_FILE).read_text()).values())[-1]
    np.testing.assert_array_equal(testing[len(testing) - 1], one_hot(VIT, last["arch"]))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder that stands in for the project's, with an empty data/."""
    root = tmp_path / "root"
    (root / "data" / "mine").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(paths, "__file__", str(root / "common" / "paths.py"))
    return root


@pytest.mark.parametrize(
    ("given", "name", "file"),
    [("data/", "", TRAIN_FILE), ("data/mine", "mine", "train.json"), ("latest", "latest", "train.json")],
)
def test_the_folder_of_the_data_gives_its_name_to_the_outputs(root, given, name, file):
    (root / "latest").symlink_to("data/mine")
    data = find_data(given)
    assert (data.train_file, data.space) == (Path(given, file), VIT)
    assert (data.results, data.logs) == (Path("results", name), Path("logs", name))
    assert data.output_name("test", "gp") == (f"test_{name}_gp" if name else "test_gp")


def test_results_of_another_folder_of_the_same_name_are_refused(root):
    for folder in ("one/latest", "two/latest"):
        (root / folder).mkdir(parents=True)
    one, two = (find_data(folder) for folder in ("one/latest", "two/latest"))
    (root / "results" / "latest").mkdir(parents=True)
    one.own()
    one.check_owner()
    two.check_owner("elsewhere")
    with pytest.raises(InputError, match=r"^results/latest: holds results of one/latest: rename two/latest"):
        two.check_owner()
    (root / "one").rename(root / "moved")  # its owner is gone: nobody's results are mixed
    two.check_owner()


def test_a_folder_that_cannot_be_used_is_said(root):
    (root / "published").mkdir()
    (root / "file").touch()
    for name, message in (
        ("published", "results/published is the published run: give the folder another name"),
        ("file", "no such folder: expected the folder of train.json or test.json"),
    ):
        with pytest.raises(InputError, match=f"^{name}: {message}"):
            find_data(name)


def test_an_output_that_would_replace_data_or_a_checkpoint_is_refused(root):
    data = Data(root, "root")
    for path in (data.train_file, data.test_file, root / "truth.json", root / "space.json", "input"):
        with pytest.raises(InputError, match=r"would replace .*, which this command reads or writes"):
            data.check_output(path, ["input"])
    (root / "link").symlink_to("results/published")
    for path in ("link/new", "logs/published/x"):
        with pytest.raises(InputError, match=f"{path}: part of the published run, which stays as it is"):
            data.check_output(path)
    data.check_output("results/new/sop_gp.pth")
    (root / "sop_gp.pth").touch()
    with pytest.raises(InputError, match="would replace a checkpoint"):
        data.check_output("sop_gp.pth")
