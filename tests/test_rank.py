import io
import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

import checkpoint
import dataset
import recipes
import space
from files import sha256
from network import Predictor
from tasks import find_task
from tools import rank

ARCHITECTURES = [*dataset.sample_architectures(4, seed=9), "l" + "111" * 12, "j" + "331" * 10 + "000000"]

PUBLISHED = ("--results_path", ROOT / "results" / "published")  # said, since --largest is for checkpoints of one's own


@pytest.fixture
def ranked(monkeypatch, capsys, data_folder):
    """ranked(*flags, text=standard input) -> standard output."""

    def run(*flags, text=b""):
        monkeypatch.setattr(sys, "argv", ["rank.py", *map(str, flags), "--data_path", str(data_folder)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert rank.main() is None
        return capsys.readouterr().out

    return run


@torch.no_grad()
def published_scores(name, architectures):
    """(n,) by the published predictor itself."""
    recipe, task = recipes.get("reference"), find_task(name)
    content = recipe.load(recipe.path(ROOT / "results" / "published", task), task)
    predictor = Predictor().eval()
    predictor.load_state_dict(content["snapshots"][content["index"]]["state_dict"])
    return predictor(dataset.encode(architectures)).numpy()


def test_the_shares_are_a_plain_count_and_the_units_those_of_the_space(ranked):
    answers = json.loads(ranked(*ARCHITECTURES, "--tasks", "veri", "sop", "--json"))
    flags = ("--tasks", "veri", "sop", "--json", "--largest", *PUBLISHED)
    opposite = json.loads(ranked("-", *flags, text=list_text().encode()))
    assert [answer["arch"] for answer in answers] == [answer["arch"] for answer in opposite] == ARCHITECTURES
    sample = dataset.sample_architectures(100_000, seed=0)
    for name in ("veri", "sop"):
        scores, others = published_scores(name, ARCHITECTURES), published_scores(name, sample)
        shares = [answer["tasks"][name]["beats"] for answer in answers]
        assert shares == pytest.approx([sum(others > score) / 100_000 for score in scores], abs=3e-5)  # rounding
        flipped = [answer["tasks"][name]["beats"] for answer in opposite]
        assert flipped == pytest.approx([sum(others < score) / 100_000 for score in scores], abs=3e-5)
        assert set(answers[0]["tasks"][name]) == {"beats"}
    measured = space.measure(ARCHITECTURES)
    for i, answer in enumerate(answers):
        layers = {"j": 10, "k": 11, "l": 12}[answer["arch"][0]]
        assert answer["heads"] == measured.heads[i, :layers].tolist()
        assert answer["mlp_ratios"] == measured.mlp_ratios[i, :layers].tolist()
        assert (answer["params"], answer["macs"]) == (measured.parameters[i], measured.macs[i])


def list_text():
    return "\n".join(ARCHITECTURES) + "\n"


def test_the_text_says_the_same(ranked):
    text = ranked(ARCHITECTURES[-1], "--tasks", "sop")
    (answer,) = json.loads(ranked(ARCHITECTURES[-1], "--tasks", "sop", "--json"))
    assert f"{ARCHITECTURES[-1]}\n  10 layers, heads/MLP ratio: {' '.join(['10/3'] * 10)}\n" in text
    assert "  55.88 M parameters, 11.46 G multiply-accumulates\n" in text
    assert text.splitlines()[-1].split() == ["sop", f"{100 * answer['tasks']['sop']['beats']:.3f}", "%"]


def test_intervals_are_those_of_the_recipe_as_shares(ranked, data_folder, train_content, tmp_path):
    task, recipe = find_task("sop"), recipes.get("gp")
    encodings = dataset.encode([entry["arch"] for entry in train_content.values()])
    ranks = np.array([entry["sop_rank"] for entry in train_content.values()])
    header = recipe.header(task, sha256(data_folder / dataset.TRAIN_FILE), "cpu")
    (tmp_path / "r").mkdir()
    checkpoint.save(recipe.path(tmp_path / "r", task), header | recipe.fit(task, encodings, ranks))
    flags = ("--recipe", "gp", "--results_path", tmp_path / "r", "--tasks", "sop")
    answers = json.loads(ranked(*ARCHITECTURES, *flags, "--json"))
    content = recipe.load(recipe.path(tmp_path / "r", task), task)
    x = dataset.encode(ARCHITECTURES).double().flatten(1)[:, dataset.FEATURES]
    low, high = recipe.rank_interval(content, (x @ content["matrix"] * x).sum(1), 100_000, 0.8)
    for answer, first, last in zip(answers, low.tolist(), high.tolist(), strict=True):
        expected = [1 - (last + 1) / 100_000, 1 - first / 100_000]
        assert answer["tasks"]["sop"]["interval"] == pytest.approx(expected, abs=3e-5)
    ends = [100 * end for end in answers[0]["tasks"]["sop"]["interval"]]
    assert "   {:.1f} to {:.1f} % with probability 0.8".format(*ends) in ranked(ARCHITECTURES[0], *flags)
    for answer, other in zip(answers, json.loads(ranked(*ARCHITECTURES, *flags, "--json", "--largest")), strict=True):
        above, below = answer["tasks"]["sop"]["interval"], other["tasks"]["sop"]["interval"]
        assert [1 - end for end in above[::-1]] == pytest.approx(below)


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["x" + "111" * 12], b"", "architecture 1: arch position 0 is 'x': expected j or k or l"),
        ([ARCHITECTURES[0], "j1"], b"", "architecture 2: arch has 2 characters: expected 37"),
        (["-"], list_text().encode() + b"\xff" * 37, "standard input: line 7: arch position 0 is"),
        (["-"], b"", "standard input: is empty"),
    ],
)
def test_a_bad_string_is_named(ranked, arguments, text, message):
    with pytest.raises(rank.InputError, match=message):
        ranked(*arguments, text=text)


def test_a_bad_string_at_the_command_line_is_one_line_and_status_2(script):
    answer = script("tools/rank.py", "-", input=f"{ARCHITECTURES[0]}\nl{'111' * 11}119\n")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == (
        "rank.py: standard input: line 2: arch position 36 is '9': expected 1 in layer 12, depth 12\n"
    )
