import json
import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, make_data, make_entries, one_hot

import dataset
from common.files import InputError
from data.surrogate import generate
from dataset import ArchPerfDataset, encode, find_data, load_entries, load_same, load_train, read_labels
from space import sample_architectures
from tasks import TASKS, TEST_FILE, TRAIN_FILE

ARCHITECTURES = sample_architectures(6, seed=9)
NAMES = [task.name for task in TASKS]


@pytest.fixture(autouse=True)
def every_message(caplog):
    caplog.set_level("INFO")


def test_encoding_equals_a_walk_along_the_string():
    architectures = sample_architectures(500, seed=3)
    encodings = encode(architectures)
    assert encodings.dtype == torch.float32
    np.testing.assert_array_equal(encodings, [one_hot(architecture) for architecture in architectures])
    assert encode([]).shape == (0, 37, 10)


def entries_of(labels, field="sop_rank"):
    """An entry for each label, of different architectures."""
    architectures = sample_architectures(len(labels), seed=9)
    return {f"arch{i}": {"arch": a, field: x} for i, (a, x) in enumerate(zip(architectures, labels, strict=True), 1)}


@pytest.fixture
def write(tmp_path):
    """Write entries, text or bytes as a file: its path."""

    def write(content):
        path = tmp_path / "train.json"
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_training_file_keeps_its_order_and_ranks(data_folder, train_entries, caplog):
    architectures, labels = load_train(data_folder / TRAIN_FILE)
    assert architectures == [entry["arch"] for entry in train_entries.values()]
    assert list(labels) == NAMES
    for task in TASKS:
        assert labels[task.name].dtype == np.int64
        assert labels[task.name].tolist() == [entry[task.rank_key] for entry in train_entries.values()]
    assert not caplog.messages


def test_a_test_file_needs_no_labels_and_keeps_what_it_has(write):
    entries = {"b": {"arch": ARCHITECTURES[0], "cplfw_rank": "no rank"}, "a": {"x": None, "arch": ARCHITECTURES[1]}}
    architectures, read = load_entries(write(entries))
    assert architectures == ARCHITECTURES[:2]
    assert json.dumps(read) == json.dumps(entries)


NOTHING = [
    ("", "line 1 column 1: not JSON: Expecting value"),
    ('{"arch1": {"arch": ', "line 1 column 20: not JSON"),
    ("[]", "expected an object of architectures"),
    ("{}", "expected an object of architectures"),
    ("7", "expected an object of architectures"),
    ('{"arch1": 3}', "arch1: expected an object with 'arch'"),
    ('{"arch1": {"sop_rank": 1}}', "arch1: 'arch' is missing"),
    ('{"arch1": {"arch": null}}', "arch1: arch is null: expected a string"),
    ('{"arch1": {}, "arch1": {}}', "key 'arch1' occurs twice in one object"),
    ('{"arch1": {"arch": "a", "arch": "b"}}', "key 'arch' occurs twice in one object"),
    ("[" * 100_000, "not JSON that can be read: .*recursion"),
    ('{"a": ' + "9" * 5000 + "}", "not JSON that can be read: Exceeds the limit"),
    (b"\0" * 9, "line 1 column 1: not JSON"),
    (b'{"arch\xff": {}}', "byte 6 is not UTF-8: expected a JSON file"),
]


@pytest.mark.parametrize(("text", "message"), NOTHING, ids=range(len(NOTHING)))
def test_a_malformed_file_is_refused(write, text, message):
    for load in (load_train, load_entries):
        with pytest.raises(InputError, match=f"train.json: {message}"):
            load(write(text))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "[1, NaN]", '{"a": [-1e999]}'])
def test_what_is_no_number_in_json_is_refused_anywhere(write, value):
    for field in ("sop_rank", "note"):
        path = write(f'{{"arch1": {{"arch": "{ARCHITECTURES[0]}", "{field}": {value}}}}}')
        with pytest.raises(InputError, match=r"train.json: .*finite number"):
            load_entries(path)


@pytest.mark.parametrize("label", ["3", None, True, [3], {}])
def test_a_label_that_is_no_number_is_named(write, label):
    with pytest.raises(InputError, match=r"train.json: arch2: sop_rank is .*: expected a finite number"):
        load_train(write(entries_of([1, label, 2])))


LABELS = {
    "permutation": [2, 0, 1, 3],
    "shared ranks": [0, 2, 2, 0, 1],
    "floats": [-0.5, 0.25, -0.501, 1e-300, 0.0],
    "too large for a float": [10**400, -(10**400), 10**400 - 3, 7],
    "equal as floats": [2**60 + 1, 2**60, 2**60 + 2, 2.0**60],
    "of both types": [1e300, -1e300, 5, 5.0, 4],
    "negative": [-1, -1, -2],
    "from one": [1, 3, 2],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_rank_is_the_number_of_better_labels(labels, caplog):
    for field, is_better in (("sop_rank", operator.lt), ("sop_accuracy", operator.gt)):
        caplog.clear()
        found = read_labels("f", entries_of(labels, field))
        assert list(found) == ["sop"]
        assert found["sop"].tolist() == [sum(is_better(other, label) for other in labels) for label in labels]
        best = "largest" if field == "sop_accuracy" else "smallest"
        said = [f"{field}: only the order of these labels counts, the {best} is the best"]
        if field == "sop_rank" and labels is LABELS["permutation"]:
            said = []
        if field == "sop_rank" and labels is LABELS["shared ranks"]:
            said = ["sop_rank: some architectures share a rank"]
        assert caplog.messages == said


def test_a_file_may_label_any_tasks_and_the_known_ones_come_first(write, caplog):
    entries = entries_of([81.5, 80, 79.25], "my-Task_2_accuracy")
    for i, entry in enumerate(entries.values()):
        entry |= {"sop_rank": i, "other_rank": 2 - i, "veri_accuracy": i, "rank": None, "sop_rank_interval": [0, 1]}
    path = write(entries)
    _, labels = load_train(path)
    expected = {"veri": [2, 1, 0], "sop": [0, 1, 2], "my-Task_2": [0, 1, 2], "other": [2, 1, 0]}
    assert {name: ranks.tolist() for name, ranks in labels.items()} == expected
    assert list(labels) == list(expected)
    assert caplog.messages[-1] == f"tasks labelled in {path}: veri, sop, my-Task_2, other"
    entries["arch2"]["veri_accuracy"] = None
    caplog.clear()
    _, labels = load_train(write(entries), ["other", "sop"])  # only the named ones are looked at
    assert list(labels) == ["sop", "other"]
    assert not caplog.messages
    with pytest.raises(InputError, match=r"does not label the task 'x': it labels veri, sop, my-Task_2, other$"):
        load_train(path, ["sop", "x"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no entry has a label, such as 'sop_rank' or 'sop_accuracy'"),
        ({"sop_rank": 0, "sop_accuracy": 1}, "both sop_rank and sop_accuracy label sop: keep one of them"),
        ({"new_accuracy": 0, "new_rank": 1}, "both new_accuracy and new_rank label new"),
        ({"_rank": 0}, "field '_rank': the name of a task consists of letters, digits, _ and -"),
        ({"my task_rank": 0}, "field 'my task_rank': the name"),
        ({"../x_accuracy": 0}, "field '../x_accuracy': the name"),
        ({"\N{OHM SIGN}_rank": 0}, "field '\N{OHM SIGN}_rank': the name"),
        ({"a\nb_rank": 0}, r"field 'a\\nb_rank': the name"),
        ({"sop_rank_rank": 0}, "field 'sop_rank_rank': the name"),  # find_task("sop_rank") is sop
    ],
)
def test_fields_that_label_no_task_or_one_twice_are_refused(write, fields, message):
    entries = entries_of([0, 1], "note")
    entries["arch2"] |= fields  # of any entry
    with pytest.raises(InputError, match=f"train.json: {message}"):
        load_train(write(entries))


def test_a_task_is_labelled_in_every_entry(write):
    entries = entries_of([0, 1, 2])
    del entries["arch2"]["sop_rank"]
    with pytest.raises(
        InputError, match="arch2: 'sop_rank' is missing: label every entry, or leave sop out of --tasks"
    ):
        load_train(write(entries))


def test_a_repeated_architecture_has_the_same_labels(write):
    entries = entries_of([3, 1, 2, 3.0])
    entries["arch4"]["arch"] = entries["arch1"]["arch"]
    assert load_train(write(entries))[1]["sop"].tolist() == [2, 0, 1, 2]
    entries["arch4"]["sop_rank"] = 4
    with pytest.raises(InputError, match="arch4: the architecture of arch1 with another sop_rank"):
        load_train(write(entries))


@pytest.mark.parametrize("field", ["sop_rank", "sop_accuracy"])
@pytest.mark.parametrize("labels", [[7], [0], [5, 5.0, 5]])
def test_labels_without_an_order_are_refused(write, labels, field):
    entries = entries_of(labels, field)
    with pytest.raises(InputError, match=r"train.json: sop: all labels are equal: there is no order to learn"):
        load_train(write(entries))
    assert read_labels("f", entries)["sop"].tolist() == [0] * len(labels)  # as true ranks they will do


def test_entries_of_the_same_architectures_are_put_in_the_same_order(write):
    other = entries_of([1, 2, 3])
    assert list(load_same(write(dict(reversed(other.items()))), "other", other)) == list(other)
    for changed, message in (
        ({"arch1": other["arch1"], "arch3": other["arch3"]}, "arch2 is missing: expected the 3 architectures of other"),
        (other | {"arch4": other["arch1"]}, "arch4 is not one of the 3 architectures of other: remove it"),
        (
            other | {"arch2": other["arch3"]},
            f"arch2: arch is {other['arch3']['arch']}: expected {other['arch2']['arch']}",
        ),
    ):
        with pytest.raises(InputError, match=f"train.json: {message}"):
            load_same(write(changed), "other", other)


def test_items_of_the_torch_dataset(data_folder, train_entries):
    training, testing = ArchPerfDataset(data_folder, "veri_rank"), ArchPerfDataset(data_folder, "veri", train=False)
    assert (len(training), len(testing)) == (200, 300)
    encodings, ranks = next(iter(torch.utils.data.DataLoader(training, batch_size=200)))
    np.testing.assert_array_equal(encodings, [one_hot(entry["arch"]) for entry in train_entries.values()])
    assert ranks.tolist() == [entry["veri_rank"] for entry in train_entries.values()]
    last = list(json.loads((data_folder / TEST_FILE).read_text()).values())[-1]
    np.testing.assert_array_equal(testing[299], one_hot(last["arch"]))
    with pytest.raises(InputError, match="does not label the task 'imagenet': it labels cplfw, "):
        ArchPerfDataset(data_folder, "imagenet")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder that stands in for the project's, with an empty data/ and the surrogate's folder."""
    folder = tmp_path / "root"
    (folder / "data" / "surrogate").mkdir(parents=True)
    monkeypatch.setattr(dataset, "__file__", str(folder / "dataset.py"))
    monkeypatch.setattr(generate, "FOLDER", folder / "data" / "surrogate")
    monkeypatch.setattr(generate, "EFFECTS", folder / "data" / "surrogate" / "effects.json")
    monkeypatch.setattr(generate, "make", lambda: (generate.FOLDER / TRAIN_FILE).write_text("made"))
    monkeypatch.chdir(folder)
    return folder


def outputs(data):
    """Where the results and logs of the data go, and two submissions, with a recipe of its own and without."""
    return str(data.results), str(data.logs), data.output_name("test", "gp"), data.output_name("traverse")


OF_COMPETITION = ("results", "logs", "test_gp", "traverse")
OF_SURROGATE = ("results/surrogate", "logs/surrogate", "test_surrogate_gp", "traverse_surrogate")


@pytest.mark.parametrize("names", [(TRAIN_FILE, TEST_FILE), (TRAIN_FILE,), (TEST_FILE,)])
def test_one_of_the_competitions_files_is_enough_to_use_their_folder(root, names, caplog):
    for name in names:
        (root / "data" / name).write_text("{}")
    data = find_data()
    assert (data.train_file, data.test_file) == (Path("data", TRAIN_FILE), Path("data", TEST_FILE))
    assert outputs(data) == outputs(find_data(root / "data")) == OF_COMPETITION
    assert not data.is_surrogate
    assert caplog.messages == ["data: data, the competition files"]
    assert not (root / "data" / "surrogate" / TRAIN_FILE).exists()


def test_without_them_the_surrogate_is_made_and_used(root, caplog):
    data = find_data()
    assert outputs(data) == OF_SURROGATE
    assert (data.folder, data.is_surrogate) == (Path("data/surrogate"), True)
    assert caplog.messages == ["data: data/surrogate, the surrogate benchmark, as data lacks the competition's files"]
    assert data.train_file.read_text() == "made"


def test_a_named_folder_is_used_and_gives_its_name_to_the_outputs(root, caplog, monkeypatch):
    (root / "data" / TRAIN_FILE).write_text("{}")
    (root / "elsewhere" / "one").mkdir(parents=True)
    (root / "two").mkdir()
    (root / "link").symlink_to("data/surrogate")
    monkeypatch.chdir(root / "elsewhere")
    for folder in ("one", "one/", "./one/.", "../elsewhere/one"):
        assert outputs(find_data(folder)) == ("../results/one", "../logs/one", "test_one_gp", "traverse_one")
    assert outputs(find_data("../two"))[:2] == ("../results/two", "../logs/two")
    monkeypatch.chdir(root / "two")
    assert outputs(find_data("."))[2:] == ("test_two_gp", "traverse_two")
    monkeypatch.chdir(root)
    assert outputs(find_data("data/")) == OF_COMPETITION
    for folder in ("data/surrogate/", "link"):
        generate.FOLDER.joinpath(TRAIN_FILE).unlink(missing_ok=True)
        data = find_data(folder)
        assert outputs(data) == OF_SURROGATE
        assert data.is_surrogate and data.train_file.read_text() == "made"
    assert not caplog.messages


def test_a_folder_that_cannot_be_used_is_said(root):
    (root / "published").mkdir()
    (root / "link").symlink_to("published")
    for name in ("published", "link"):
        with pytest.raises(InputError, match=f"--data_path {name}: results/published is the published run: give the"):
            find_data(name)
    (root / "file").write_text("")
    for name in ("file", "nowhere", ""):
        with pytest.raises(
            InputError, match=f"--data_path {name}: no such folder: expected the folder of {TRAIN_FILE}"
        ):
            find_data(name)


def test_an_output_that_would_replace_data_or_the_published_run_is_refused(root):
    folder = make_data(root / "own", make_entries(ARCHITECTURES))
    data, message = find_data(folder), r"would replace .*, which this command reads or writes: choose another name"
    (root / "input").write_text("")
    for name in (
        folder / ".." / "own" / TRAIN_FILE,
        folder / TEST_FILE,
        folder / "truth.json",
        "input",
        "data/surrogate/effects.json",
    ):
        with pytest.raises(InputError, match=message):
            data.check_output(name, ["input"])
    (root / "r").symlink_to("results/published")
    for name in ("results/published/new.pth", "logs/published/x/y", "r/new.pth"):
        with pytest.raises(InputError, match=f"{name}: part of the published run, which stays as it is"):
            data.check_output(name)
    data.check_output("results/new/sop_gp.pth")
    assert (root / "results" / "new").is_dir()
    assert sorted(path.name for path in root.iterdir()) == ["data", "input", "own", "r", "results"]


def test_the_projects_paths_are_relative_to_the_current_folder(monkeypatch):
    monkeypatch.chdir(ROOT / "results")
    assert dataset.project_path("data", "surrogate") == "../data/surrogate"
