import json
import os

import numpy as np
import pytest
from helpers import make_entries
from scipy.stats import kendalltau

from dataset import load_entries
from engine.predictors import load, score_all
from tasks import TEST_FILE
from tools import traverse

TASK_NAMES = ("veri", "sop")
WHERE = ("--data_path", "data", "--results_path", "r", "--tasks", *TASK_NAMES)


@pytest.fixture
def run(script, data_folder):
    """run(*flags): the command, after training; the checkpoints of veri and sop in r/ hold over ten snapshots each."""
    flags = ("--log_path", "l", "--num_epochs", 40, "--batch_size", 8, "--val_interval", 1)
    assert script("main.py", *WHERE, *flags).returncode == 0
    return lambda *flags, **options: script("tools/traverse.py", *WHERE, *flags, **options)


def test_the_table_shows_every_tau_and_the_best_snapshot_that_has_one():
    validation, test = [[0.5, 0.7], [0.4, 0.6], [0.3, 0.5]], [[np.nan, 0.1], [-1, 0.3], [-1, 0.2]]
    assert traverse.table(TASK_NAMES, np.array(validation), np.array(test)).splitlines() == [
        " k          veri         sop        mean",
        " 1           nan      0.1000         nan",
        " 2       -1.0000      0.3000     -0.3500",
        " 3       -1.0000      0.2000     -0.4000",
        "",
        "task        best k     tau  on validation   k = 1: tau  on validation",
        "veri             2 -1.0000         0.4000          nan         0.5000",
        "sop              2  0.3000         0.6000       0.1000         0.7000",
    ]


def test_with_a_truth_file_it_prints_the_tau_of_every_snapshot(run, data_folder, tmp_path):
    architectures, _ = load_entries(data_folder / TEST_FILE)
    truth = make_entries(architectures, start=201, seed=6)
    (tmp_path / "truth.json").write_text(json.dumps(dict(reversed(truth.items()))))
    test, validation = np.empty((5, 2)), np.empty((5, 2))
    for k in range(5):
        predictors = load(TASK_NAMES, results=tmp_path / "r", snapshot=-k - 1)
        for i, (predictor, scores) in enumerate(zip(predictors, score_all(predictors, architectures), strict=True)):
            true = [entry[predictor.task.rank_key] for entry in truth.values()]
            test[k, i] = kendalltau(scores, true).statistic
            validation[k, i] = sorted({tau for _, tau in predictor.checkpoint["validate_ktau"]})[-k - 1]
    answer = run("--top", 5, "--truth", "truth.json", env=os.environ)  # in a new Python
    assert answer.stdout == f"{traverse.table(TASK_NAMES, validation, test)}\n", answer.stderr
    assert not list(tmp_path.glob("Track2_*"))


def test_without_one_it_writes_the_submissions_of_test_py(run, script, tmp_path):
    names = [f"Track2_submitA_traverse_data_{k}.json" for k in range(1, 11)]
    assert run().stdout.splitlines() == names
    for k in (1, 10):
        assert script("test.py", *WHERE, "--model_path_index", -k, "--save_name", k).returncode == 0
        assert (tmp_path / names[k - 1]).read_bytes() == (tmp_path / f"Track2_submitA_{k}.json").read_bytes()


def test_mistakes_are_one_line_and_nothing_is_written(run, train_entries, tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(train_entries))
    link = tmp_path / "Track2_submitA_x_2.json"
    link.symlink_to("r/sop_final.pth")
    for flags, message in (
        (("--top", 99), "_final.pth: no snapshot -"),
        (("--truth", "truth.json"), "truth.json: arch201 is missing"),
        (("--save_name", "x"), f"{link.name}: would replace r/sop_final.pth"),
    ):
        answer = run(*flags)
        assert (answer.returncode, answer.stdout, message in answer.stderr) == (2, "", True)
    assert list(tmp_path.glob("Track2_*")) == [link]
