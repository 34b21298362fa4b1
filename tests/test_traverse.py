import json
import re

import numpy as np
import pytest
import torch
from conftest import REFERENCE_RECIPE, choose, make_content
from scipy.stats import kendalltau

import dataset
from network import Predictor
from tasks import TASKS, find_task
from tools import traverse

TRAVERSE = ("tools/traverse.py", "--data_path", "data", "--results_path", "r", "--tasks", "veri", "sop")


@pytest.fixture
def trained(script, data_folder):
    """Checkpoints of two tasks in r/, with about 12 snapshots each."""
    flags = ("--results_path", "r", "--log_path", "l", "--num_epochs", 12, "--batch_size", 8, "--val_interval", 1)
    assert script("main.py", "--data_path", data_folder, "--tasks", "veri", "sop", *flags).returncode == 0


def test_with_a_truth_file_it_prints_the_tau_of_every_snapshot(script, trained, data_folder, tmp_path):
    architectures, _ = dataset.load_entries(data_folder / dataset.TEST_FILE)
    truth = make_content(architectures, start=201, seed=6)
    (tmp_path / "truth.json").write_text(json.dumps(dict(reversed(truth.items()))))
    answer = script(*TRAVERSE, "--top", 5, "--truth", "truth.json")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].split() == ["k", "veri", "sop", "mean"]
    encodings, printed = dataset.encode(architectures), np.array([line.split() for line in lines[1:6]], float)
    assert printed[:, 0].tolist() == [1, 2, 3, 4, 5]
    for column, task in enumerate((find_task("veri"), find_task("sop")), 1):
        curve = dict(REFERENCE_RECIPE.load(tmp_path / "r" / f"{task.name}_final.pth", task)["validate_ktau"])
        true = [entry[task.rank_key] for entry in truth.values()]
        taus = []
        for k in range(1, 6):
            predictor = Predictor().eval()
            predictor.load_state_dict(choose(tmp_path / "r" / f"{task.name}_final.pth", task, -k).state_dict)
            with torch.no_grad():
                taus.append(kendalltau(predictor(encodings), true).statistic)
        assert printed[:, column] == pytest.approx(taus, abs=2e-4)
        on_validation, best = sorted(set(curve.values()), reverse=True), int(printed[:, column].argmax())
        expected = [best + 1, printed[best, column], on_validation[best], printed[0, column], on_validation[0]]
        name, *cells = lines[7 + column].split()
        assert name == task.name
        assert [float(cell) for cell in cells] == pytest.approx(expected, abs=1e-4)
    assert printed[:, 3] == pytest.approx(printed[:, 1:3].mean(1), abs=1e-4)
    assert not list(tmp_path.glob("Track2_*"))


@pytest.mark.parametrize("flags", [(), ("--largest",)])
def test_without_one_it_writes_the_submissions(script, trained, tmp_path, flags):
    answer = script(*TRAVERSE, "--top", 2, *flags)
    assert answer.returncode == 0, answer.stderr
    names = [f"Track2_submitA_traverse_{k}.json" for k in (1, 2)]
    assert answer.stdout.splitlines() == names
    for k, name in enumerate(names, 1):
        script("test.py", *TRAVERSE[1:], "--model_path_index", -k, *flags)
        assert (tmp_path / name).read_bytes() == (tmp_path / "Track2_submitA_test_final.json").read_bytes()


def test_a_constant_predictor_is_never_the_best():
    nan = float("nan")
    text = traverse.table(TASKS[:1], np.array([[0.5], [0.4], [nan]]), np.array([[nan], [-0.1], [-0.2]]))
    assert text.splitlines()[-1].split() == ["cplfw", "2", "-0.1000", "0.4000", "nan", "0.5000"]


def test_more_than_there_are_or_another_truth_is_refused(script, trained, train_content, tmp_path):
    answer = script(*TRAVERSE, "--top", 99)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert re.search(r"_final\.pth: no snapshot -\d+: it holds \d+, ", answer.stderr)
    (tmp_path / "truth.json").write_text(json.dumps(train_content))
    answer = script(*TRAVERSE, "--top", 1, "--truth", "truth.json")
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert answer.stderr.startswith("traverse.py: truth.json: arch201 is missing")
    answer = script(*TRAVERSE, "--top", 1, "--truth", "")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert not list(tmp_path.glob("*traverse*"))
