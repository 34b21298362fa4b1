import json
import re

import numpy as np
import pytest
import torch
from helpers import make_entries
from scipy.stats import kendalltau

from dataset import encode, load_entries
from network import Predictor
from tasks import TEST_FILE
from tools import traverse

TRAVERSE = ("tools/traverse.py", "--data_path", "data", "--results_path", "r", "--tasks", "veri", "sop")


@pytest.fixture
def trained(script, data_folder, tmp_path):
    """Checkpoints of veri and sop in r/, with about 12 snapshots each: {task name: checkpoint}."""
    flags = ("--log_path", "l", "--num_epochs", 12, "--batch_size", 8, "--val_interval", 1)
    assert script("main.py", *TRAVERSE[1:], *flags).returncode == 0
    return {name: torch.load(tmp_path / "r" / f"{name}_final.pth", weights_only=True) for name in ("veri", "sop")}


def test_with_a_truth_file_it_prints_the_tau_of_every_snapshot(script, trained, data_folder, tmp_path):
    architectures, _ = load_entries(data_folder / TEST_FILE)
    truth = make_entries(architectures, start=201, seed=6)
    for entry in truth.values():
        entry["sop_accuracy"] = -entry.pop("sop_rank")
    (tmp_path / "truth.json").write_text(json.dumps(dict(reversed(truth.items()))))
    answer = script(*TRAVERSE, "--top", 5, "--truth", "truth.json")
    assert answer.returncode == 0, answer.stderr
    said, *lines = answer.stdout.splitlines()
    assert said == "sop_accuracy: only the order of these labels counts, the largest is the best"
    assert lines[0].split() == ["k", "veri", "sop", "mean"]
    encodings, printed = encode(architectures), np.array([line.split() for line in lines[1:6]], float)
    assert printed[:, 0].tolist() == [1, 2, 3, 4, 5]
    for column, (name, checkpoint) in enumerate(trained.items(), 1):
        true = [entry[f"{name}_rank"] if name == "veri" else -entry[f"{name}_accuracy"] for entry in truth.values()]
        taus = []
        for k in range(1, 6):
            predictor = Predictor().eval()
            predictor.load_state_dict(checkpoint["snapshots"][-k]["state_dict"])
            with torch.no_grad():
                taus.append(kendalltau(predictor(encodings), true).statistic)
        assert printed[:, column] == pytest.approx(taus, abs=2e-4)
        on_validation = sorted({tau for _, tau in checkpoint["validate_ktau"]}, reverse=True)
        best = int(printed[:, column].argmax())
        expected = [best + 1, printed[best, column], on_validation[best], printed[0, column], on_validation[0]]
        word, *cells = lines[7 + column].split()
        assert word == name
        assert [float(cell) for cell in cells] == pytest.approx(expected, abs=1e-4)
    assert printed[:, 3] == pytest.approx(printed[:, 1:3].mean(1), abs=1e-4)
    assert not list(tmp_path.glob("Track2_*"))


@pytest.mark.parametrize(("flags", "name"), [((), "traverse_data"), (("--save_name", "x"), "x")])
def test_without_one_it_writes_the_submissions_of_test_py(script, trained, tmp_path, flags, name):
    answer = script(*TRAVERSE, "--top", 2, *flags)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [f"Track2_submitA_{name}_{k}.json" for k in (1, 2)]
    for k, written in enumerate(answer.stdout.splitlines(), 1):
        assert script("test.py", *TRAVERSE[1:], "--model_path_index", -k, "--save_name", k).returncode == 0
        assert (tmp_path / written).read_bytes() == (tmp_path / f"Track2_submitA_{k}.json").read_bytes()


def test_a_constant_predictor_is_never_the_best():
    nan = float("nan")
    text = traverse.table(["cplfw"], np.array([[0.5], [0.4], [nan]]), np.array([[nan], [-0.1], [-0.2]]))
    assert text.splitlines()[-1].split()[-5:] == ["2", "-0.1000", "0.4000", "nan", "0.5000"]


def test_mistakes_are_one_line_and_nothing_is_written(script, trained, train_entries, tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(train_entries))
    for flags, message in (
        (("--top", 99), r"r/\w+_final\.pth: no snapshot -\d+: it holds \d+, "),
        (("--top", 1, "--truth", "truth.json"), "truth.json: arch201 is missing"),
        (("--top", 1, "--truth", ""), ""),
    ):
        answer = script(*TRAVERSE, *flags)
        assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
        assert re.match(f"traverse.py: {message}", answer.stderr)
    assert not list(tmp_path.glob("*traverse*"))
    (tmp_path / "Track2_submitA_traverse_data_2.json").symlink_to("r/sop_final.pth")
    answer = script(*TRAVERSE, "--top", 2)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("traverse.py: Track2_submitA_traverse_data_2.json: would replace r/sop_final.pth")
    assert len(list(tmp_path.glob("*traverse*"))) == 1
