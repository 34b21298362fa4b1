import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dataset
from dataset import (
    ArchPerfDataset,
    DataError,
    check_architecture,
    encode,
    load_entries,
    load_train,
    sample_architectures,
)
from tasks import TASKS, SettingError

DEEPEST = "l" + "111" * 12


def walk(architecture):
    """Encode one string by walking along it."""
    encoding = np.zeros((37, 10), np.float32)
    encoding[0, "jkl".index(architecture[0])] = 1
    for layer in range(12):
        heads, ratio, embedding = architecture[1 + 3 * layer : 4 + 3 * layer]
        if embedding == "1":
            encoding[1 + 3 * layer, 2 + int(heads)] = 1
            encoding[2 + 3 * layer, 5 + int(ratio)] = 1
            encoding[3 + 3 * layer, 9] = 1
    return encoding


def test_encoding_equals_a_walk_along_the_string():
    architectures = sample_architectures(500, seed=3)
    encodings = encode(architectures)
    assert encodings.shape == (500, 37, 10)
    assert encodings.dtype == torch.float32
    np.testing.assert_array_equal(encodings, [walk(architecture) for architecture in architectures])


def test_no_architecture_encodes_as_nothing():
    assert encode([]).shape == (0, 37, 10)


BAD_ARCHITECTURES = [
    ("m" + DEEPEST[1:], "position 0 is 'm': expected j or k or l"),
    (DEEPEST[:1] + "0" + DEEPEST[2:], "position 1 is '0': expected 1 or 2 or 3 in layer 1, depth 12"),
    (DEEPEST[:5] + "4" + DEEPEST[6:], "position 5 is '4': expected 1 or 2 or 3 in layer 2, depth 12"),
    (DEEPEST[:6] + "2" + DEEPEST[7:], "position 6 is '2': expected 1 in layer 2, depth 12"),
    ("j" + "111" * 11 + "000", "position 31 is '1': expected 0 in layer 11, depth 10"),
    ("l" + "111" * 11 + "000", "position 34 is '0': expected 1 or 2 or 3 in layer 12, depth 12"),
    ("k" + "000" + "111" * 11, "position 1 is '0': expected 1 or 2 or 3 in layer 1, depth 11"),
    (DEEPEST[:9] + "\N{FULLWIDTH DIGIT ONE}" + DEEPEST[10:], "position 9 is '\N{FULLWIDTH DIGIT ONE}'"),
    (DEEPEST[:9] + "\0" + DEEPEST[10:], "position 9"),
    (DEEPEST[:-1], "arch has 36 characters: expected 37"),
    (DEEPEST + "1", "arch has 38 characters: expected 37"),
    ("", "arch has 0 characters"),
    (7, "arch is 7: expected a string"),
    (None, "arch is null: expected a string"),
]


@pytest.mark.parametrize(("architecture", "message"), BAD_ARCHITECTURES)
def test_a_bad_architecture_is_named_with_its_position(architecture, message):
    with pytest.raises(DataError) as caught:
        check_architecture(architecture, "arch7")
    assert f"arch7: arch {message}".replace("arch arch", "arch") in str(caught.value)
    with pytest.raises(DataError) as caught_in_many:
        dataset.columns([DEEPEST, architecture, DEEPEST], ["arch6", "arch7", "arch8"])
    assert str(caught_in_many.value) == str(caught.value)


def test_good_architectures_pass_the_check():
    for architecture in sample_architectures(100, seed=0):
        check_architecture(architecture)


def test_samples_are_distinct_reproducible_and_none_of_the_excluded():
    first = sample_architectures(300, seed=5)
    assert len(set(first)) == 300
    assert sample_architectures(300, seed=5) == first
    assert sample_architectures(300, seed=6) != first
    other = sample_architectures(300, seed=5, exclude=first[:100])
    assert len(set(other)) == 300
    assert not set(other) & set(first[:100])
    assert sample_architectures(0, seed=5) == []
    with pytest.raises(ValueError, match="must not be negative"):
        sample_architectures(-1, seed=5)


def test_samples_are_uniform_in_depth_and_in_each_choice():
    architectures = sample_architectures(9000, seed=7)
    for position in (0, 1, 2, 16, 17, 28, 29):
        counts = Counter(architecture[position] for architecture in architectures)
        assert len(counts) == 3
        assert all(abs(count - 3000) < 5 * 45 for count in counts.values())  # five standard deviations
    assert {architecture[3] for architecture in architectures} == {"1"}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_training_file_keeps_its_order(data_folder, train_content):
    architectures, ranks = load_train(data_folder / dataset.TRAIN_FILE)
    assert architectures == [entry["arch"] for entry in train_content.values()]
    for task in TASKS:
        assert ranks[task.name].tolist() == [entry[task.rank_key] for entry in train_content.values()]


def test_the_test_file_is_returned_as_it_is_and_its_ranks_never_read(data_folder):
    path = data_folder / dataset.TEST_FILE
    content = json.loads(path.read_text())
    content["arch201"]["cplfw_rank"] = "not a rank"
    architectures, read = load_entries(write(path, content))
    assert read == content
    assert list(read) == list(content)
    assert architectures == [entry["arch"] for entry in content.values()]


@pytest.mark.parametrize("label", ["3", None, True, float("nan"), float("inf"), [3], {}])
def test_a_label_that_is_no_finite_number_is_named(tmp_path, train_content, label):
    train_content["arch7"]["veri_rank"] = label
    with pytest.raises(DataError, match=r"train.json: arch7: veri_rank is .*: expected a finite number"):
        load_train(write(tmp_path / "train.json", train_content))


@pytest.mark.parametrize(
    "labels",
    [
        [-0.5 + 0.001 * i for i in range(200)],
        [10**400 - 3 * i for i in range(200)],  # too large for a float
        [2**60 + i // 2 for i in range(200)],  # ties; equal in float64
        [i % 7 / 3 for i in range(200)],
        [1e300, -1e300, 5, 5.0, *range(196)],
    ],
    ids=("floats", "huge", "close", "ties", "mixed"),
)
def test_the_order_of_any_labels_is_used(tmp_path, train_content, labels):
    for entry, label in zip(train_content.values(), labels, strict=True):
        entry["veri_rank"] = label
    notes = []
    _, ranks = load_train(write(tmp_path / "train.json", train_content), None, notes.append)
    assert ranks["veri"].tolist() == [sum(other < label for other in labels) for label in labels]
    assert notes == [
        "veri: the labels are not the ranks 0 to 199: only their order is used; if larger is better, pass --largest to "
        "test.py, rank.py, score.py, search.py and traverse.py"
    ]


def test_a_task_may_be_absent_from_the_whole_file(tmp_path, train_content):
    for entry in train_content.values():
        for task in TASKS[2:]:
            del entry[task.rank_key]
    path, notes = write(tmp_path / "train.json", train_content), []
    _, ranks = load_train(path, None, notes.append)
    assert list(ranks) == ["cplfw", "vehicleid"]
    assert notes == [f"tasks labelled in {path}: cplfw, vehicleid"]
    with pytest.raises(DataError, match=r"arch1: 'sop_rank' is missing: label every entry or name other --tasks"):
        load_train(path, [TASKS[-1]])
    for entry in train_content.values():
        del entry["cplfw_rank"], entry["vehicleid_rank"]
    with pytest.raises(DataError, match=r"no entry has a label such as 'cplfw_rank'"):
        load_train(write(path, train_content))


def test_only_the_named_tasks_are_looked_at(tmp_path, train_content):
    train_content["arch7"]["veri_rank"] = None
    _, ranks = load_train(write(tmp_path / "train.json", train_content), [TASKS[-1]])
    assert list(ranks) == ["sop"]


def test_shared_ranks_are_allowed(tmp_path, train_content):
    train_content["arch7"]["veri_rank"] = train_content["arch8"]["veri_rank"]
    load_train(write(tmp_path / "train.json", train_content))


@pytest.mark.parametrize(
    ("load", "key"), [(load_train, "arch"), (load_train, "sop_rank"), (load_entries, "arch")], ids=("1", "2", "3")
)
def test_a_missing_field_is_named(tmp_path, train_content, load, key):
    del train_content["arch9"][key]
    with pytest.raises(DataError, match=f"train.json: arch9: '{key}' is missing"):
        load(write(tmp_path / "train.json", train_content))


def test_a_repeated_architecture_must_have_the_same_ranks(tmp_path, train_content):
    train_content["arch9"] = dict(train_content["arch4"])
    load_train(write(tmp_path / "train.json", train_content))
    train_content["arch9"]["sop_rank"] += 1 if train_content["arch9"]["sop_rank"] < 199 else -1
    with pytest.raises(DataError, match="arch9: the architecture of arch4 with another sop_rank"):
        load_train(write(tmp_path / "train.json", train_content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 column 1: not JSON"),
        ('{"arch1": {"arch": ', "line 1 column 20: not JSON"),
        ("[]", "expected an object of architectures"),
        ("{}", "expected an object of architectures"),
        ("7", "expected an object of architectures"),
        ('{"arch1": 3}', "arch1: expected an object"),
        ('{"arch1": {}, "arch1": {}}', "key 'arch1' occurs twice"),
        ('{"arch1": {"arch": "a", "arch": "b"}}', "key 'arch' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("load", [load_train, load_entries])
def test_a_malformed_file_is_refused(tmp_path, load, text, message):
    with pytest.raises(DataError, match=f"train.json: {message}"):
        load(write(tmp_path / "train.json", text))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "train.json").write_bytes(b'{"arch\xff": {}}')
    with pytest.raises(DataError, match="byte 6 is not UTF-8"):
        load_train(tmp_path / "train.json")


def test_dataset_items(data_folder, train_content):
    training = ArchPerfDataset(data_folder, "veri_rank")
    assert len(training) == 200
    encoding, rank = training[3]
    np.testing.assert_array_equal(encoding, walk(train_content["arch4"]["arch"]))
    assert rank == train_content["arch4"]["veri_rank"]
    testing = ArchPerfDataset(data_folder, "veri", train=False)
    assert len(testing) == 300
    assert testing[299].shape == (37, 10)
    encodings, ranks = next(iter(DataLoader(training, batch_size=8)))
    assert encodings.shape == (8, 37, 10)
    assert ranks.tolist() == [entry["veri_rank"] for entry in list(train_content.values())[:8]]
    with pytest.raises(SettingError):
        ArchPerfDataset(data_folder, "imagenet")
