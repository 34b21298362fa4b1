import io
import json
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, make_data, save_checkpoint
from scipy.stats import norm

import recipes
from dataset import encode, load_train
from network import Predictor
from space import FEATURES, sample_architectures
from tasks import TRAIN_FILE, find_task

LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000000"
ARCHITECTURES = [*sample_architectures(4, seed=9), LARGEST, SMALLEST]
SAMPLE = sample_architectures(100_000, seed=0)
NAMES = ("sop", "own-1")


@pytest.fixture
def rank(script):
    """rank(*flags, text=standard input): the answer of tools/rank.py in the temporary folder."""

    def run(*flags, text=b""):
        before = lambda: setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))  # noqa: E731
        return script("tools/rank.py", *flags, before=before)

    return run


@pytest.fixture
def own(tmp_path):
    """Flags for gp's predictors of two tasks, in r/: of sop the fewer 1s the better, of own-1 the more; with noise."""
    random, entries = np.random.RandomState(0), {}
    for i, arch in enumerate(sample_architectures(150, seed=1)):
        label = arch.count("1") + 2 * random.randn()
        entries[f"a{i}"] = {"arch": arch, "own-1_accuracy": label, "sop_rank": label + random.randn()}
    folder, recipe = make_data(tmp_path / "mine", entries), recipes.get("gp")
    architectures, ranks = load_train(folder / TRAIN_FILE)
    for name in NAMES:
        fitted, _ = recipe.learn(find_task(name), architectures, ranks[name])
        save_checkpoint(recipe.path(tmp_path / "r", find_task(name)), recipe, find_task(name), fitted)
    return ("--data_path", folder, "--results_path", "r", "--recipe", "gp")


def test_shares_and_intervals_are_those_of_each_tasks_process(rank, own, tmp_path):
    answer = rank("-", *own, "--json", text="\n".join(ARCHITECTURES).encode())
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.endswith("CVPR_2022_NAS_Track2_train.json: sop, own-1; used all the same\n")
    entries = json.loads(answer.stdout)
    assert [entry["arch"] for entry in entries] == ARCHITECTURES
    for name in NAMES:
        fitted = torch.load(tmp_path / "r" / f"{name}_gp.pth", weights_only=True)
        matrix, constant, std, warp = (fitted[key].numpy() for key in ("matrix", "constant", "std", "warp"))
        x, sample = (encode(some).flatten(1)[:, FEATURES].double().numpy() for some in (ARCHITECTURES, SAMPLE))
        scores, others = (((rows @ matrix) * rows).sum(1) for rows in (x, sample))
        for entry, score in zip(entries, scores, strict=True):
            ends = score + constant + std * norm.ppf([0.1, 0.9])
            low, high = np.floor(100_000 * norm.cdf(np.log1p(np.maximum(warp * ends, -1)) / warp)).clip(max=99_999)
            assert entry["tasks"][name] == {
                "beats": pytest.approx((others > score).mean(), abs=3e-5),  # float32
                "interval": pytest.approx([1 - (high + 1) / 100_000, 1 - low / 100_000], abs=3e-5),
            }
    largest, smallest = (entries[ARCHITECTURES.index(arch)]["tasks"] for arch in (LARGEST, SMALLEST))
    assert smallest["sop"]["beats"] > 0.99 > 0.01 > largest["sop"]["beats"]
    assert smallest["own-1"]["beats"] < 0.01 < 0.99 < largest["own-1"]["beats"]


def test_the_published_predictors_and_the_text(rank, data_folder):
    answer = rank(ARCHITECTURES[0], SMALLEST, "--data_path", data_folder, "--tasks", "veri", "sop")
    assert answer.returncode == 0, answer.stderr
    said, *lines = answer.stdout.splitlines()
    assert "published" in said
    for part, arch in ((lines[:6], ARCHITECTURES[0]), (lines[6:], SMALLEST)):
        assert part[0] == arch
        for line, name in zip(part[4:], ("veri", "sop"), strict=True):
            task, predictor = find_task(name), Predictor().eval()
            checkpoint = torch.load(ROOT / "results" / "published" / f"{name}_final.pth", weights_only=True)
            predictor.load_state_dict(checkpoint["snapshots"][task.snapshot]["state_dict"])
            with torch.no_grad():
                share = (predictor(encode(SAMPLE)) > predictor(encode([arch]))).float().mean().item()
            word, percent, unit = line.split()
            assert (word, float(percent), unit) == (name, pytest.approx(100 * share, abs=3e-3), "%")
    assert lines[7:10] == [
        f"  10 layers, heads/MLP ratio: {' '.join(['10/3'] * 10)}",
        "  55.88 M parameters, 11.46 G multiply-accumulates",
        "  beats of 100,000 sampled architectures, by prediction:",
    ]


def test_text_and_json_say_the_same_with_intervals(rank, own):
    flags = (LARGEST, ARCHITECTURES[0], *own, "--tasks", "own-1")
    entry, other = json.loads(rank(*flags, "--json").stdout)
    assert (entry["heads"], entry["mlp_ratios"], entry["params"]) == ([12] * 12, [4.0] * 12, 85_798_656)
    assert entry["macs"] == pytest.approx(17.56e9, rel=1e-3)
    beats, (low, high) = other["tasks"]["own-1"].values()
    lines = rank(*flags).stdout.splitlines()
    assert lines[-2].endswith("by prediction; the interval of the true share is too narrow for the best of many:")
    assert (
        lines[-1]
        == f"    own-1       {100 * beats:7.3f} %   {100 * low:.1f} to {100 * high:.1f} % with probability 0.8"
    )


def test_of_a_predictor_that_gives_one_score_to_all_nothing_is_said(rank, own, tmp_path):
    path = tmp_path / "r" / "own-1_gp.pth"
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"matrix": checkpoint["matrix"] * 0}, path)
    text = rank(LARGEST, *own).stdout
    assert "r/own-1_gp.pth: gives one score to all architectures: it ranks nothing\n" in text
    assert text.splitlines()[-1].split() == ["own-1", "nothing", "is", "known"]
    (entry,) = json.loads(rank(LARGEST, *own, "--json").stdout)
    assert entry["tasks"].pop("own-1") == {"beats": None}
    assert set(entry["tasks"]["sop"]) == {"beats", "interval"}


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["x" + "111" * 12], b"", "architecture 1: arch position 0 is 'x': expected j or k or l"),
        ([LARGEST, "j1"], b"", "architecture 2: arch has 2 characters: expected 37"),
        (
            ["-"],
            f"{LARGEST}\nl{'111' * 11}119\n".encode(),
            "standard input: line 2: arch position 36 is '9': expected 1",
        ),
        (["-"], b"\xff" * 37, "standard input: line 1: arch position 0 is '"),
        (["-"], b"", "standard input: is empty: expected one architecture string per line"),
        ([LARGEST, "--device", "nowhere"], b"", "--device nowhere: "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(rank, data_folder, arguments, text, message):
    answer = rank(*arguments, "--data_path", data_folder, text=text)
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
    assert answer.stderr.startswith(f"rank.py: {message}")
