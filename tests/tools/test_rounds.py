"""tools/rounds.py on a table and on the surrogate, tools/compare.py, and the conversion of public tables."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import BENCHMARKS, needs_benchmarks, run_command
from toy import TOY, one_hot

from data.benchmarks import convert
from dataset import Labels
from tools import rounds


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A folder with a complete table of 256 architectures of four blocks, in which the code 3333 is the best."""
    monkeypatch.chdir(tmp_path)
    Path("table").mkdir()
    blocks = [{"type": "categorical", "name": f"block {i}", "choices": list("abcd")} for i in range(4)]
    Path("table/space.json").write_text(json.dumps({"name": "blocks", "hyperparameters": blocks}))
    random, entries = np.random.RandomState(0), {}
    for i in range(256):
        arch = "".join(str(i // 4**k % 4) for k in range(4))
        value = sum(int(c) * w for c, w in zip(arch, (1, 2, 3, 4), strict=True)) + random.rand()
        entries[f"a{i}"] = {
            "arch": arch,
            "top_accuracy": value + 9 * (arch == "3333"),
            "note": 1,
            "same_network_as": arch,
        }
    entries["twice"] = entries["a7"]
    Path("table/table.json.gz").write_bytes(gzip.compress(json.dumps(entries).encode()))
    return entries


def converted(*flags):
    answer = run_command("data/benchmarks/convert.py", *flags)
    assert answer.returncode == 0, answer.stderr
    return {path.name: json.loads(path.read_text()) for path in Path(flags[1]).iterdir()}


def test_a_table_becomes_a_data_folder_once(whole):
    found = converted("table/table.json.gz", "mine", "--labels", 20, "--seed", 3)
    assert found.keys() == {"space.json", "train.json", "test.json", "truth.json"}
    train, test, truth = (found[f"{name}.json"] for name in ("train", "test", "truth"))
    assert (len(train), len(test)) == (20, 236) and test.keys() == truth.keys() and not train.keys() & test.keys()
    for name, entry in (train | truth).items():
        assert entry == {"arch": whole[name]["arch"], "top_accuracy": whole[name]["top_accuracy"]}
    assert {name: {"arch": entry["arch"]} for name, entry in truth.items()} == test
    answer = run_command("data/benchmarks/convert.py", "table/table.json.gz", "mine")
    assert (answer.returncode, "is there already: choose another folder" in answer.stderr) == (2, True)
    answer = run_command("data/benchmarks/convert.py", "table/table.json.gz", "new", "--labels", "x")
    assert (answer.returncode, "--labels: 'x': expected an integer above 0" in answer.stderr) == (2, True)
    assert converted("table/table.json.gz", "all", "--labels", "all").keys() == {"space.json", "train.json"}


@needs_benchmarks
def test_the_public_file_of_nas_bench_macro_is_that_of_the_compact_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = converted(BENCHMARKS / "raw" / "nas-bench-macro_cifar10.json", "raw", "--labels", "all")["train.json"]
    table = json.loads(gzip.decompress((BENCHMARKS / "nas-bench-macro" / "table.json.gz").read_bytes()))
    same = {entry["arch"]: entry["same_network_as"] for entry in table.values()}
    assert {arch: convert.canonical(arch) for arch in same} == same
    assert len(raw) == len(set(same.values())) == 3969
    values = {entry["arch"]: entry["cifar10_accuracy"] for entry in table.values()}
    for entry in list(raw.values())[::50]:
        assert entry["cifar10_accuracy"] == pytest.approx(values[entry["arch"]])


def test_rounds_are_replayed_on_a_table_and_on_the_surrogate(whole, command):
    converted("table/table.json.gz", "all", "--labels", "all")
    flags = ("--measurements", 12, 40, "--seeds", 3, "--json", "r.json")
    text = command("tools/rounds.py", "--data_path", "all", *flags).stdout
    results = json.loads(Path("r.json").read_text())["results"]
    assert all(np.shape(values) == (1, 2, 3) for values in results.values())
    median, best = np.median(results["rounds"][0][1]), np.mean(np.array(results["rounds"][0][1]) == 0)
    assert f"{median:g} ({best:.0%})" in text
    means = {name: np.mean(values) for name, values in results.items()}
    assert means["rounds"] <= means["random"]
    text = command(
        "tools/rounds.py", "--tasks", "msmt17", "--measurements", 30, "--seeds", 1, "--json", "s.json"
    ).stdout
    found = json.loads(Path("s.json").read_text())["results"]
    assert found["predicted"][0][0][0] < found["random"][0][0][0] and f"{found['random'][0][0][0]:.3f}" in text
    answer = command("tools/rounds.py", "--data_path", "all", "--measurements", 256)
    assert (answer.returncode, "has 256 architectures: measure fewer" in answer.stderr) == (2, True)
    answer = command("tools/rounds.py", "--data_path", "all", "--measurements", 3)
    assert (answer.returncode, "--measurements: expected at least 4" in answer.stderr) == (2, True)


@pytest.mark.parametrize("method", rounds.METHODS)
def test_every_method_measures_as_many_as_it_may_and_judges_by_the_true_rank(method):
    strings = TOY.all()
    labels = Labels.of(
        strings, [float(one_hot(TOY, s).sum(0) @ np.arange(TOY.shape[1])) for s in strings], measured=True
    )

    class Counted(rounds.Table):
        measured = ()

        def measure(self, name, random):
            self.measured = (*self.measured, name)
            return super().measure(name, random)

    table = Counted(TOY, labels)
    name = rounds.METHODS[method](table, 20, np.random.RandomState(1), "gp")
    assert len(table.measured) == len(set(table.measured)) == 20
    assert (name in table.measured) == (method != "predicted")
    assert table.judge(name) == sum(value < labels.values[strings.index(name)] for value in labels.values)
    if method != "predicted":
        assert table.values[name] == min(table.values[other] for other in table.measured)


def test_recipes_are_compared_with_trees_on_the_same_labels(whole, command):
    pytest.importorskip("sklearn")
    converted("table/table.json.gz", "all", "--labels", "all")
    methods = ("--methods", "gp", "ridge", "forest", "boosting")
    answer = command(
        "tools/compare.py", "--data_path", "all", "--labels", 40, "--seeds", 2, *methods, "--json", "c.json"
    )
    assert answer.returncode == 0 and "scikit-learn" in answer.stdout, answer.stderr
    taus = json.loads(Path("c.json").read_text())["tau"]
    assert np.shape(taus["gp"]) == (1, 1, 1, 2) and np.shape(taus["forest"]) == (2, 1, 1, 2)
    best = max(np.mean(of) for of in taus["forest"])
    assert f"{best:.3f} (" in answer.stdout and min(np.ravel(taus["gp"])) > 0.8
    answer = command("tools/compare.py", "--data_path", "all", "--labels", 256)
    assert (answer.returncode, "--labels: expected numbers from 2 to 254" in answer.stderr) == (2, True)
