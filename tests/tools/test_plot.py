import json
import os
import re
import sys
from math import log

import numpy as np
import pytest
from helpers import REAL_DATA, ROOT, make_data, make_entries, needs_real_data
from matplotlib import pyplot
from scipy.stats import kendalltau, rankdata

from common.files import InputError
from dataset import load_train
from engine.predictors import load, score_all, shares_beaten
from space import measure, sample_architectures
from tasks import TASKS, TRAIN_FILE
from tools import plot

FRONT = ["j" + "331" * 10 + "000000", "l" + "111" * 12]
ARCHITECTURES = sample_architectures(500, seed=3)
ENTRIES = make_entries(ARCHITECTURES)
RANKS = {task.name: np.array([entry[task.rank_key] for entry in ENTRIES.values()]) for task in TASKS}
REFERENCE = json.loads((ROOT / "results" / "reference.json").read_text())["tasks"]
PREDICTORS = load()


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*flags): {path in the project: figure that the command draws}, what it prints, and what it says.

    The published run counts as trained on ENTRIES; the search finds FRONT.
    """
    figures = {}
    make_data(tmp_path, ENTRIES)
    monkeypatch.setattr(plot, "sha256", lambda path: PREDICTORS[0].checkpoint["data"])
    monkeypatch.setattr(plot, "pareto", lambda model: (FRONT, None, True))
    monkeypatch.setattr(plot, "save", lambda figure, path: figures.update({os.path.relpath(path, ROOT): figure}))

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["plot.py", "--data_path", str(tmp_path), *flags])
        plot.main()
        return figures, *capsys.readouterr()

    yield run
    pyplot.close("all")


def assert_drawn(panel, title, expected):
    """The panel has this title and these lines: {label: (x, y)}."""
    assert panel.get_title() == title
    drawn = {line.get_label(): line.get_data() for line in panel.lines}
    assert list(drawn) == list(expected)
    for label, points in expected.items():
        np.testing.assert_allclose(drawn[label], points, rtol=2e-7, err_msg=label)


def test_it_prints_the_correlation_of_size_and_rank_and_the_table_of_the_results(run):
    _, printed, said = run()
    correlations, *table = printed.splitlines()
    sizes = rankdata(measure(ARCHITECTURES).parameters)
    expected = [f"{name} {np.corrcoef(sizes, ranks)[0, 1]:.2f}" for name, ranks in RANKS.items()]
    assert correlations == f"Spearman's correlation of parameters and rank: {', '.join(expected)}"
    assert said == ""

    assert "\n".join(table) in (ROOT / "results" / "README.md").read_text()
    rows = []
    for predictor in PREDICTORS:
        figures, own = REFERENCE[predictor.task.name], predictor.checkpoint
        best = figures["gpu_best_ktau"], max(figures["cpu_validate_ktau"]), max(tau for _, tau in own["validate_ktau"])
        used = figures["gpu_snapshot_ktau"], own["snapshots"][predictor.task.snapshot]["ktau"], own["whole_ktau"]
        rows.append([*best, *used])
    found = [[float(tau) for tau in re.findall(r"\d\.\d+", line)] for line in table[2:]]
    np.testing.assert_allclose(found, [*rows, np.mean(rows, 0)], atol=5.1e-5)


def test_the_curves_are_those_of_the_run_and_of_the_reference(run):
    figures, *_ = run()
    taus, losses = figures["logs/tau.png"].axes, figures["logs/loss.png"].axes
    for predictor, panel, loss in zip(PREDICTORS, taus, losses, strict=True):
        name, own = predictor.task.name, predictor.checkpoint
        every, (epochs, validation) = range(1, 401), np.transpose(own["validate_ktau"])
        best, used = np.flatnonzero(validation == max(validation))[-1:], own["snapshots"][predictor.task.snapshot]
        curves = {
            "training": (every, own["train_ktau"]),
            "validation, the reference on a CPU": (epochs, REFERENCE[name]["cpu_validate_ktau"]),
            "validation": (epochs, validation),
            "best on validation": (epochs[best], validation[best]),
            "snapshot used": ([used["epoch"]], [used["ktau"]]),
        }
        assert_drawn(panel, name, curves)
        equal = [0, 1], [log(2), log(2)]
        assert_drawn(loss, name, {"log 2: nothing learnt": equal, "loss": (every, own["train_loss"])})


def test_ranks_and_the_front_are_those_of_the_predictors_and_the_training_file(run):
    figures, *_ = run()
    for predictor, panel in zip(PREDICTORS, figures["logs/rank.png"].axes, strict=True):
        name, start = predictor.task.name, int(predictor.task.train_ratio * 500)
        (scores,), true = score_all([predictor], ARCHITECTURES[start:]), RANKS[name][start:]
        points = rankdata(true) - 1, rankdata(scores, "min") - 1
        np.testing.assert_array_equal(panel.lines[1].get_data(), points)
        assert panel.viewLim.min.max() < 0 and panel.viewLim.max.min() > np.max(points)
        assert panel.get_title() == f"{name}, tau {kendalltau(scores, true).statistic:.3f}"

    measured, best = (measure(architectures).parameters / 1e6 for architectures in (ARCHITECTURES, FRONT))
    shares = 100 * shares_beaten(PREDICTORS, FRONT)[1]
    for i, panel in zip((3, 4, 5, 7), figures["logs/pareto.png"].axes, strict=True):
        lines = {
            "measured": (measured, (499 - RANKS[TASKS[i].name]) / 4.99),
            "best of its size, predicted": (best, shares[i]),
            "best of all, predicted": (best[1:], shares[i, 1:]),
        }
        assert_drawn(panel, TASKS[i].name, lines)


def test_without_the_training_file_or_with_another_only_the_curves_are_drawn(run, monkeypatch, tmp_path):
    monkeypatch.setattr(plot, "sha256", lambda path: "of another file")
    for reason in ("not what results/published was trained on", "no such file"):
        figures, _, said = run()
        assert set(figures) == {"logs/tau.png", "logs/loss.png"}
        assert said == f"{tmp_path / TRAIN_FILE}: {reason}: rank.png and pareto.png are left as they are\n"
        (tmp_path / TRAIN_FILE).unlink(missing_ok=True)


@needs_real_data
def test_the_readme_and_the_notebook_quote_the_correlations_of_the_competitions_file():
    quoted = "".join((ROOT / name).read_text() for name in ("README.md", "train.ipynb"))
    correlation = rf"({'|'.join(RANKS)})\s(-0\.\d\d)"
    printed = plot.size_correlations(*load_train(REAL_DATA))
    assert set(re.findall(correlation, quoted)) == set(re.findall(correlation, printed))


def test_sizes_are_drawn_as_a_line_for_each_recipe(run, tmp_path):
    sizes, taus = [50, 400], np.random.RandomState(0).rand(2, 2, 3, 5, 8)  # [recipe][size][seed][fold][task]
    taus[0, 0] = np.nan
    content = json.dumps({"sizes": sizes, "tau": dict(zip(("reference", "gp"), taus.tolist(), strict=True))})
    (tmp_path / "sizes.json").write_text(content.replace("NaN", "null"))
    ((path, figure),) = run("--sizes", str(tmp_path / "sizes.json"))[0].items()
    assert path == "logs/sizes.png"
    (panel,) = figure.axes
    reference, gp = taus.mean((2, 3, 4))
    assert_drawn(panel, "", {"reference": (sizes, reference), "gp": (sizes, gp)})
    assert len({line.get_color() for line in panel.lines}) == len(panel.get_legend().get_texts()) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sizes": [1], "tau": []}', '{"sizes": [2, 3], "tau": {"gp": [1, 2, 3]}}']
)
def test_another_file_is_no_sizes(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: not what crossval.py --sizes --json writes: "):
        plot.draw_sizes(tmp_path / "x.json")


def test_the_pictures_of_the_readmes_are_there_small_and_large_enough_to_read(tmp_path):
    plot.save(pyplot.figure(figsize=(4.6, 3)), tmp_path / "saved.png")
    shown = "".join((ROOT / name).read_text() for name in ("README.md", "logs/README.md"))
    pictures = [*(ROOT / "logs").glob("*.png")]
    assert set(re.findall(r"\w+\.png(?=\))", shown)) == {picture.name for picture in pictures}
    for picture in (*pictures, tmp_path / "saved.png"):
        assert picture.stat().st_size < 200_000 and pyplot.imread(picture).shape[1] > 800
