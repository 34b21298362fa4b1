"""tools/rank.py: its JSON by the functions behind it, its text by the JSON, and the mistakes that it names."""

import io
import json
import os
import sys

import pytest
import torch
from helpers import make_data

from engine.predictors import load, shares_beaten, shares_intervals
from space import measure, sample_architectures

LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000000"


@pytest.fixture
def rank(script, data_folder):
    """rank(*flags, text=standard input): the answer of tools/rank.py in the temporary folder."""

    def run(*flags, text=b"", **options):
        before = lambda: setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))  # noqa: E731
        return script("tools/rank.py", *flags, "--data_path", data_folder, before=before, **options)

    return run


@pytest.fixture
def own(script, data_folder):
    """Flags for gp's predictors of sop and veri, in r/, learnt from two labels each."""
    fields = zip((LARGEST, SMALLEST), (0, 1), strict=True)
    make_data(data_folder, {arch: {"arch": arch, "sop_rank": label, "veri_accuracy": label} for arch, label in fields})
    flags = ("--results_path", "r", "--recipe", "gp", "--tasks", "sop", "veri")
    answer = script("main.py", "--data_path", data_folder, "--log_path", "l", *flags)
    assert answer.returncode == 0, answer.stderr
    return flags


def test_the_json_has_sizes_and_of_each_task_the_share_and_its_interval(rank, own, tmp_path):
    architectures = [*sample_architectures(4, seed=9), LARGEST, SMALLEST]
    answer = rank("-", *own, "--json", text="\n".join(architectures).encode())
    few = [f"{name}: learnt from 2 labels" for name in ("sop", "veri")]
    assert [line.split(": with")[0] for line in answer.stderr.splitlines()] == few
    entries, predictors = json.loads(answer.stdout), load(["sop", "veri"], recipe="gp", results=tmp_path / "r")
    scores, shares = shares_beaten(predictors, architectures)
    assert shares[0, 4] > 0.9 > 0.1 > shares[0, 5] and shares[1, 4] < 0.1 < 0.9 < shares[1, 5]
    intervals, sizes = shares_intervals(predictors, scores).tolist(), measure(architectures)
    for i, (architecture, entry) in enumerate(zip(architectures, entries, strict=True)):
        assert entry == {
            "arch": architecture,
            "heads": [13 - int(code) for code in architecture[1::3] if code != "0"],
            "mlp_ratios": [4.5 - int(code) / 2 for code in architecture[2::3] if code != "0"],
            "params": sizes.parameters[i],
            "macs": sizes.macs[i],
            "tasks": {
                "sop": {"beats": shares[0, i], "interval": intervals[0][i]},
                "veri": {"beats": shares[1, i], "interval": intervals[1][i]},
            },
        }


def test_the_text_has_a_line_for_each_task(rank, own):
    said, text = rank(SMALLEST, "--tasks", "sop", "veri", env=os.environ).stdout.split("\n", 1)
    shares = 100 * shares_beaten(load(["sop", "veri"]), [SMALLEST])[1][:, 0]
    assert "published" in said
    assert text == (
        f"{SMALLEST}\n"
        f"  10 layers, heads/MLP ratio: {' '.join(['10/3'] * 10)}\n"
        "  55.88 M parameters, 11.46 G multiply-accumulates\n"
        "  beats of 100,000 sampled architectures, by prediction:\n"
        f"    sop         {shares[0]:7.3f} %\n"
        f"    veri        {shares[1]:7.3f} %\n"
    )
    flags = (LARGEST, SMALLEST, *own)
    beats, (low, high) = json.loads(rank(*flags, "--json").stdout)[1]["tasks"]["veri"].values()
    *_, title, _, line = rank(*flags).stdout.splitlines()
    assert title.endswith("by prediction; the interval of the true share is too narrow for the best of many:")
    interval = f"{100 * low:.1f} to {100 * high:.1f} % with probability 0.8"
    assert line == f"    veri        {100 * beats:7.3f} %   {interval}"


def test_of_a_predictor_that_gives_one_score_to_all_nothing_is_said(rank, own, tmp_path):
    path = tmp_path / "r" / "veri_gp.pth"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"matrix": checkpoint["matrix"] * 0}, path)
    lines = rank(LARGEST, *own).stdout.splitlines()
    assert "r/veri_gp.pth: gives one score to all architectures: it ranks nothing" in lines
    assert lines[-1] == "    veri        nothing is known"
    assert "interval" in lines[-3]
    tasks = json.loads(rank(LARGEST, *own, "--json").stdout)[0]["tasks"]
    assert tasks["veri"] == {"beats": None}


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ([LARGEST, "j1"], b"", "architecture 2: arch has 2 characters: expected 37"),
        (["-"], LARGEST.encode() + b"\nj1", "standard input: line 2: arch has 2 characters: expected 37"),
        (["-"], b"\xff" * 37, "standard input: line 1: arch position 0 is '"),
        (["-"], b"", "standard input: is empty: expected one architecture string per line"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(rank, arguments, text, message):
    answer = rank(*arguments, text=text)
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
    assert answer.stderr.startswith(f"rank.py: {message}")
