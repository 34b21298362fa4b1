import re
import sys

import pytest
from helpers import ROOT, make_data, make_entries

from common.files import InputError
from data.surrogate import generate
from engine.predictors import load, score_all
from space import columns, sample_architectures
from tools import bench

TRAINED, RANKED = (make_entries(sample_architectures(n, seed=n)) for n in (500, 300))
# Everything once, the whole commands in 100, 100 / 2, 100 / 3, ... seconds, all else in 2 seconds.
TABLES = """
Whole commands:

| command | seconds | peak MiB | ratio to the first |
|---|--:|--:|--:|
| `import torch`, reading the test file | 100 | 7 | 1 |
| `import torch` | 50 | 7 | 0.5 |
| `main.py --help` | 33.3 | 7 | 0.333 |
| `test.py` | 25 | 7 | 0.25 |
| `main.py --recipe gp` | 20 | 7 | 0.2 |
| `test.py --recipe gp` | 16.7 | 7 | 0.167 |
| `tools/search.py --tasks sop` | 14.3 | 7 | 0.143 |
| `tools/search.py --tasks sop --pareto` | 12.5 | 7 | 0.125 |

Training, eight tasks:

|  | plain alternative | its seconds | ours | ratio |
|---|--:|--:|--:|--:|
| 400 epochs, whole command | loop, 0 loader workers, scaled up | 400 | 11.1 | 36 |
| 2 epochs | loop, 0 loader workers | 2 | 0.00558 | 358 |

Peak memory of a process: 7 MiB.

Scoring 300 architectures with eight predictors:

|  | plain alternative | its seconds | ours | ratio |
|---|--:|--:|--:|--:|
| forward | one tensor | 2 | 2 | 1 |
| ranking | scipy's rankdata, method="min" | 2 | 2 | 1 |
| forward | data loader, 0 workers, scaled up | 16 | 2 | 8 |
| ranking | linear search of 10, scaled up | 60 | 2 | 30 |
"""


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The whole commands that the benchmark would run, on small data; those without a script it does run."""
    commands, run_command = [], bench.command

    def command(*words):
        commands.append(list(map(str, words)))
        if words[0] == "-c":
            run_command(*words)
        return 100 / len(commands), 7.0

    settings = {"DATA": make_data(tmp_path / "data", TRAINED, RANKED), "command": command, "REPEATS": 1, "EPOCHS": 2}
    settings |= {"timed": lambda function, *args: (2.0, function(*args)), "WORKERS": (0,), "RANKED": 10}
    for name, value in settings.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(generate, "make", lambda: None)
    monkeypatch.chdir(tmp_path)
    return commands


def test_the_commands_have_their_flags_and_are_compared_with_plain_ways(commands, script, capsys, monkeypatch):
    flags = ("--parts", "training", "commands", "scale", "scoring", "--scale_to", "2e5")
    monkeypatch.setattr(sys, "argv", ["bench.py", *flags])
    bench.main()
    monkeypatch.undo()  # the benchmark's own folder is gone
    tables, scale = capsys.readouterr().out.split("\nStrings to ranks")
    assert tables.split("; medians of 1.\n")[1] == TABLES
    rows = r"\n\| 10,000 \| 2 \| 200 \| \d+ \| \d+ \| 1 \|\n\| 100,000 \| 2 \| 20 \| \d+ \| \d+ \| 9 \|\n$"
    assert re.search(rows, scale)
    for shown, words in zip(re.findall(r"`(\w.*\.py.*)`", TABLES), commands[2:8], strict=True):
        name, *last = shown.split()
        assert [words[0], *words[len(words) - len(last) :]] == [str(ROOT / name), *last]
    assert commands[1] == ["-c", "import torch"]
    assert commands[9] == [*commands[8], "--num_epochs", "2"]
    for words in commands[2:]:
        help = script(words[0], "--help").stdout
        assert all(f" {word} " in help for word in words if word.startswith("--"))


def test_a_ratio_is_the_median_of_the_ratios(capsys):
    bench.compare("Title", {("fast", "a"): [(4, 1), (9, 2), (5, 4)], ("slow", "b"): [(1, 1)]})
    assert capsys.readouterr().out.splitlines()[-2:] == ["| slow | b | 1 | 1 | 1 |", "| fast | a | 5 | 2 | 4 |"]


def test_searches_are_compared_by_what_they_find(commands, monkeypatch, script, effects, capsys):
    evolve, data = bench.evolve, bench.OWN[1]
    monkeypatch.setattr(bench, "command", lambda *words: script(*("data" if word == data else word for word in words)))
    monkeypatch.setattr(bench, "SEARCHED", ("sop",))
    monkeypatch.setattr(bench, "evolve", lambda function, evaluations, seed: evolve(function, evaluations // 100, seed))
    bench.bench_search()
    rows = [line[2:-2].split(" | ") for line in capsys.readouterr().out.splitlines()[5:]]
    architectures = [entry["arch"] for entry in RANKED.values()]
    for recipe, found in (("reference", rows[:3]), ("gp", rows[3:])):
        scores = score_all(load(["sop"], recipe=recipe, results="results"), architectures)[0]
        true = generate.true_scores(effects["tasks"]["sop"], columns(architectures))[scores.argmin()] / 1e6
        assert found[2] == ["sop", recipe, "best of 300 sampled", f"{scores.min():.4f}", f"{true:.4f}", "2"]
        assert [row[2] for row in found[:2]] == ["exact search", "evolution, 10,000 evaluations"]
        assert float(found[0][3]) < min(float(row[3]) for row in found[1:])


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(InputError, match=r"-c import sys; sys.exit.3.: exit status 3$"):
        bench.command("-c", "import sys; sys.exit(3)")
    seconds, (_, mib) = bench.timed(bench.command, "-c", "")
    assert seconds > 0 and mib > 1
