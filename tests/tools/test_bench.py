import re
import shlex
import sys

import pytest
from helpers import ROOT, make_data, make_entries, save_checkpoint

import recipes
from common.files import InputError
from data.surrogate import generate
from dataset import load_train
from recipes.predictors import load, score_all
from space import columns, sample_architectures
from tasks import TRAIN_FILE, find_task
from tools import bench

TRAINED, RANKED = (make_entries(sample_architectures(n, seed=n)) for n in (500, 300))


@pytest.fixture
def measured(monkeypatch, capsys, tmp_path):
    """measured(part, *flags): the printed tables of a part, {title: [{column: cell} a row]}; and the commands run.

    On small data, everything once; whole commands are recorded instead, and said to take 1, 2, ... seconds.
    """
    commands = []

    def command(*words):
        commands.append(list(map(str, words)))
        return float(len(commands)), 100.0

    def make():
        make_data(tmp_path / "data", TRAINED, RANKED)

    settings = {"DATA": tmp_path / "data", "REPEATS": 1, "EPOCHS": 1, "WORKERS": (0,), "RANKED": 10, "command": command}
    for name, value in settings.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(generate, "make", make)
    monkeypatch.chdir(tmp_path)

    def run(part, *flags):
        monkeypatch.setattr(sys, "argv", ["bench.py", "--parts", part, *flags])
        bench.main()
        monkeypatch.chdir(tmp_path)  # the benchmark's own folder is gone
        printed = capsys.readouterr().out
        assert printed.startswith("Measured by `python tools/bench.py` on ")
        tables = {}
        for title, header, rows in re.findall(r"^(.*):\n\n(\|.*)\n\|-.*\n((?:\|.*\n)+)", printed, re.MULTILINE):
            names, *rows = ([cell.strip() for cell in row.split("|")[1:-1]] for row in [header, *rows.splitlines()])
            tables[title] = [dict(zip(names, row, strict=True)) for row in rows]
        return tables, commands

    return run


def test_whole_commands_are_what_the_table_says_with_flags_that_exist(measured, script):
    tables, commands = measured("commands")
    rows = tables["Whole commands"]
    assert [(row["seconds"], row["peak MiB"], row["ratio to the first"]) for row in rows] == [
        (str(i), "100", str(i)) for i in range(1, len(rows) + 1)
    ]
    for row, words in zip(rows[1:], commands[1:], strict=True):
        name, *flags = shlex.split(row["command"].strip("`"))
        if name != "import":
            assert (words[0], words[len(words) - len(flags) :]) == (str(ROOT / name), flags)
            help = script(name, "--help").stdout
            assert all(re.search(rf"{word}[ ,]", help) for word in words if word.startswith("--"))
    assert commands[1] == ["-c", "import torch"]
    exec(commands[0][1])  # imports torch, and reads the test file


def test_training_is_compared_with_the_plain_loop(measured):
    tables, commands = measured("training")
    rows = {row[""]: row for row in tables["Training, eight tasks"]}
    ours = {"400 epochs, whole command": 1.0, "1 epochs": (1 - 2) / 399}
    for name, seconds in ours.items():
        assert float(rows[name]["ours"]) == pytest.approx(seconds, rel=5e-3)
        assert float(rows[name]["ratio"]) == pytest.approx(float(rows[name]["its seconds"]) / seconds, rel=2e-2)
    once, whole = (float(rows[name]["its seconds"]) for name in ("1 epochs", "400 epochs, whole command"))
    assert whole == pytest.approx(400 * once, rel=2e-2)
    assert [words[0] for words in commands] == [str(ROOT / "main.py")] * 2
    assert commands[1] == [*commands[0], "--num_epochs", "1"]


def test_scoring_is_compared_with_plain_ways(measured):
    (title,), (rows,) = zip(*measured("scoring")[0].items(), strict=True)
    assert title == "Scoring 300 architectures with eight predictors"
    assert sorted((row[""], row["plain alternative"]) for row in rows) == [
        ("forward", "data loader, 0 workers, scaled up"),
        ("forward", "one tensor"),
        ("ranking", "linear search of 10, scaled up"),
        ("ranking", 'scipy\'s rankdata, method="min"'),
    ]
    ratios = [float(row["ratio"]) for row in rows]
    assert ratios == sorted(ratios)
    for row, ratio in zip(rows, ratios, strict=True):
        assert ratio == pytest.approx(float(row["its seconds"]) / float(row["ours"]), rel=2e-2)


def test_searches_are_compared_by_what_they_find(measured, monkeypatch, effects):
    record, evolve, sop = bench.command, bench.evolve, find_task("sop")

    def command(*words):
        """Train: the published predictor, or gp on the small data."""
        recipe, checkpoint = recipes.get(words[words.index("--recipe") + 1]), load(["sop"])[0].checkpoint
        if recipe.name == "gp":
            architectures, ranks = load_train(bench.DATA / TRAIN_FILE, ["sop"])
            checkpoint, _ = recipe.learn(sop, architectures, ranks["sop"])
        save_checkpoint(recipe.path("results", sop), recipe, sop, checkpoint)
        return record(*words)

    monkeypatch.setattr(bench, "command", command)
    monkeypatch.setattr(bench, "SEARCHED", ("sop",))
    monkeypatch.setattr(bench, "evolve", lambda function, evaluations, seed: evolve(function, 100, seed))
    (rows,) = measured("search")[0].values()
    architectures = [entry["arch"] for entry in RANKED.values()]
    true = generate.true_scores(effects["tasks"]["sop"], columns(architectures)) / 1e6
    scores = score_all(load(["sop"]), architectures)[0]
    best = f"{scores.min():.4f}", f"{true[scores.argmin()]:.4f}"
    assert (rows[2]["method"], rows[2]["predicted"], rows[2]["true"]) == ("best of 300 sampled", *best)
    for recipe, (exact, *others) in (("reference", rows[:3]), ("gp", rows[3:])):
        assert (exact["task"], exact["recipe"], exact["method"]) == ("sop", recipe, "exact search")
        assert all(float(exact["predicted"]) < float(other["predicted"]) for other in others)


def test_the_scale_goes_up_to_the_given_number(measured):
    (rows,) = measured("scale", "--scale_to", "2e4")[0].values()
    (row,) = rows
    assert row["architectures"] == "10,000"
    assert float(row["microseconds each"]) == pytest.approx(float(row["seconds"]) / 1e4 * 1e6, rel=2e-2)
    assert row["results"] == f"{10_000 * 8 * 12 / 2**20:.0f}"


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(InputError, match=r"-c import sys; sys.exit.3.: exit status 3$"):
        bench.command("-c", "import sys; sys.exit(3)")
    seconds, mib = bench.command("-c", "")
    assert seconds > 0 and mib > 1
