"""Pictures of the published run and of a cross-validation, and what is printed with them."""

import json
import os

import numpy as np
import pytest
from helpers import REAL_DATA, ROOT, needs_real_data
from matplotlib import pyplot

from common.files import InputError
from engine.predictors import load
from tools import plot


@pytest.fixture
def draw(monkeypatch):
    """draw(*flags): {path of a written picture: its panels}."""
    pyplot.close("all")
    pictures = {}
    monkeypatch.setattr(plot, "write_file", lambda path, data: pictures.update({path: bytes(data[:4])}))

    def run(*flags):
        plot.main(list(flags))
        assert set(pictures.values()) == {b"\x89PNG"}
        paths = (os.path.relpath(path, ROOT) for path in pictures)
        return dict(zip(paths, (pyplot.figure(n).axes for n in pyplot.get_fignums()), strict=True))

    return run


def test_the_curves_and_the_table_are_those_of_the_published_run(draw, capsys, tmp_path):
    panels = draw("--data_path", str(tmp_path))
    assert capsys.readouterr().out in (ROOT / "results" / "README.md").read_text()
    own = load(["veri"])[0].checkpoint  # the sixth
    reference = json.loads((ROOT / "results" / "reference.json").read_text())["tasks"]["veri"]["cpu_validate_ktau"]
    every, (epochs, validation) = range(1, 401), np.transpose(own["validate_ktau"])
    best = [260], [max(validation)]  # also the snapshot that is used
    taus = [(every, own["train_ktau"]), (epochs, reference), (epochs, validation), best, best]
    losses = [([0, 1], np.log([2, 2])), (every, own["train_loss"])]
    for path, expected in {"logs/tau.png": taus, "logs/loss.png": losses}.items():
        for line, points in zip(panels[path][5].lines, expected, strict=True):
            np.testing.assert_allclose(line.get_data(), points, rtol=2e-7)


@needs_real_data
def test_the_correlations_of_size_and_rank_are_those_that_the_readme_and_the_notebook_quote(draw, capsys):
    draw("--data_path", str(REAL_DATA.parent))
    quoted = "vehicleid -0.05, dukemtmc -0.28, market1501 -0.33, msmt17 -0.35, veri -0.39, veriwild -0.34, sop -0.10"
    line = f"Spearman's correlation of parameters and rank: cplfw -0.02, {quoted}\n"
    assert capsys.readouterr().out.startswith(line)


def test_sizes_have_a_line_and_error_bars_for_each_recipe(draw, tmp_path):
    path, taus = tmp_path / "sizes.json", np.random.RandomState(0).rand(2, 3, 5, 8)  # [size][seed][fold][task]
    content = {"sizes": [50, 400], "test_architectures": 100, "tau": {"gp": taus.tolist()}}
    path.write_text(json.dumps(content))
    (panel,) = draw("--sizes", str(path))["logs/sizes.png"]
    (gp,), folds = panel.containers, taus.mean(-1).reshape(2, 15)
    np.testing.assert_allclose(gp[0].get_data(), ([50, 400], folds.mean(1)))
    lengths = np.diff(np.array(gp[2][0].get_segments())[..., 1])[:, 0]
    np.testing.assert_allclose(lengths / 2, folds.std(1, ddof=1) * (1 / 15 + np.array([2, 0.25])) ** 0.5)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"sizes\.json: not what crossval.py --sizes --json writes: "):
        draw("--sizes", str(path))


def test_rounds_of_several_tables_are_drawn_as_shares_of_the_best_and_printed_with_medians(draw, tmp_path, capsys):
    ranks = np.random.RandomState(0).randint(9, size=(2, 1, 3, 5))  # [table][task][measurements][seed]
    paths = [tmp_path / name for name in ("a", "b")]
    for path, values in zip(paths, ranks, strict=True):
        methods = {name: values.tolist() for name in ("random", "evolution", "rounds", "predicted")}
        path.write_text(json.dumps({"measurements": [50, 100, 200], "results": methods}))
    (panel,) = draw("--rounds", *map(str, paths))["logs/rounds.png"]
    medians = [np.median([np.median(ranks[table, 0, i]) for table in (0, 1)]) for i in range(3)]
    shares = (ranks == 0).mean((0, 1, 3))
    np.testing.assert_allclose(panel.lines[2].get_data(), ([50, 100, 200], 100 * shares))
    assert f"| 100 | {medians[1]:g} ({shares[1]:.0%}) |" in capsys.readouterr().out
