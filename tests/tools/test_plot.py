import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import REAL_DATA, ROOT, make_data, make_entries, needs_real_data
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import kendalltau, rankdata

from common.files import InputError
from dataset import encode, load_train
from network import Predictor
from recipes.predictors import load
from space import measure, sample_architectures
from tasks import TASKS, TRAIN_FILE
from tools import plot

FRONT = ["j" + "331" * 10 + "000000", "l" + "111" * 12]
LOGS = ROOT / "logs" / "published"
RESULTS_README = (ROOT / "results" / "README.md").read_text()
ARCHITECTURES = sample_architectures(500, seed=3)
RANKS = {task.name: np.random.RandomState(i).permutation(500) for i, task in enumerate(TASKS)}


@pytest.fixture(scope="module")
def predictors():
    return load()


@pytest.fixture(scope="module")
def reference():
    return json.loads((ROOT / "tools" / "reference.json").read_text())["tasks"]


@pytest.fixture
def published(project):
    """A copy of the project with its published run."""
    for name in ("results", "logs"):
        shutil.copytree(ROOT / name / "published", project / name / "published")
    return project


def without_the_slow_parts():
    """Replace the search, and every picture by an empty one."""
    import search.exact

    search.exact.pareto = lambda model: (FRONT, None, True)
    Figure.savefig = lambda self, buffer, dpi: Image.new("RGB", (9, 9)).save(buffer, "png")


def published_scores(task, architectures):
    """(n,) scores, by the published predictor itself, and its checkpoint."""
    checkpoint = torch.load(ROOT / "results" / "published" / f"{task.name}_final.pth", weights_only=True)
    predictor = Predictor().eval()
    predictor.load_state_dict(checkpoint["snapshots"][task.snapshot]["state_dict"])
    with torch.no_grad():
        return predictor(encode(architectures)).numpy(), checkpoint


def test_the_table_is_that_of_the_results_readme_and_of_the_published_run(predictors, reference):
    text = plot.table(predictors, reference)
    assert text in RESULTS_README
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    for task, row in zip(TASKS, rows[:-1], strict=True):
        _, checkpoint = published_scores(task, ARCHITECTURES[:1])
        figures, epochs = reference[task.name], [epoch for epoch, _ in checkpoint["validate_ktau"]]
        bests = [(figures["gpu_best_ktau"], figures["gpu_best_epoch"])]
        for curve in (figures["cpu_validate_ktau"], [tau for _, tau in checkpoint["validate_ktau"]]):
            bests.append((max(curve), max(e for e, tau in zip(epochs, curve, strict=True) if tau == max(curve))))
        used = figures["gpu_snapshot_ktau"], checkpoint["snapshots"][task.snapshot]["ktau"], checkpoint["whole_ktau"]
        assert row == [
            task.name,
            *(f"{tau:.4f} @ {epoch}" for tau, epoch in bests),
            str(task.snapshot),
            *(f"{tau:.4f}" for tau in used),
        ]
    assert rows[-1][0] == "mean"
    for column in (1, 2, 3, 5, 6, 7):
        *values, mean = (float(row[column].split(" @ ")[0]) for row in rows)
        assert mean == pytest.approx(np.mean(values), abs=1e-4)


def test_the_curves_are_drawn_with_their_snapshots(predictors, reference):
    taus, losses = plot.draw_taus(LOGS, predictors, reference), plot.draw_losses(LOGS)
    for predictor, panel, loss in zip(predictors, taus.axes, losses.axes, strict=True):
        name, checkpoint = predictor.task.name, predictor.checkpoint
        assert (panel.get_title(), loss.get_title()) == (name, name)
        train, behind, validation, best, used = (line.get_xydata() for line in panel.lines)
        assert train == pytest.approx(np.array(list(enumerate(checkpoint["train_ktau"], 1))))
        assert behind[:, 1].tolist() == reference[name]["cpu_validate_ktau"]
        assert validation == pytest.approx(np.array(checkpoint["validate_ktau"]), abs=1e-6)
        assert behind[:, 0].tolist() == validation[:, 0].tolist()
        assert best[0] == pytest.approx(validation[np.flatnonzero(validation[:, 1] == validation[:, 1].max())[-1]])
        snapshot = checkpoint["snapshots"][predictor.task.snapshot]
        assert used[0] == pytest.approx([snapshot["epoch"], snapshot["ktau"]])
        assert loss.lines[0].get_ydata() == pytest.approx([np.log(2)] * 2)
        assert loss.lines[1].get_xydata() == pytest.approx(np.array(list(enumerate(checkpoint["train_loss"], 1))))


def test_ranks_are_drawn_on_the_validation_part_alone(predictors):
    figure = plot.draw_ranks(ARCHITECTURES, RANKS, predictors)
    for task, panel in zip(TASKS, figure.axes, strict=True):
        start = int(task.train_ratio * 500)
        scores, _ = published_scores(task, ARCHITECTURES[start:])
        true, predicted = panel.lines[1].get_xydata().T
        assert true.tolist() == np.argsort(np.argsort(RANKS[task.name][start:])).tolist()
        assert kendalltau(predicted, scores).statistic > 0.999  # float32
        name, tau = panel.get_title().split(", tau ")
        assert name == task.name
        assert float(tau) == pytest.approx(kendalltau(scores, RANKS[task.name][start:]).statistic, abs=2e-3)


def test_the_front_is_drawn_beside_the_measured_ones(predictors, monkeypatch):
    monkeypatch.setattr(plot, "pareto", lambda model: (FRONT, None, True))
    monkeypatch.setattr("recipes.predictors.SAMPLED", 1000)
    figure = plot.draw_pareto(ARCHITECTURES, RANKS, predictors)
    for task, panel in zip((TASKS[i] for i in (3, 4, 5, 7)), figure.axes, strict=True):
        assert panel.get_title() == task.name
        measured, best, last = (line.get_xydata() for line in panel.lines)
        worse = [100 * (RANKS[task.name] > rank).mean() * 500 / 499 for rank in RANKS[task.name]]
        assert measured == pytest.approx(np.stack([measure(ARCHITECTURES).parameters / 1e6, worse], 1))
        scores, _ = published_scores(task, [*FRONT, *sample_architectures(1000, seed=0)])
        shares = [100 * (scores[2:] > score).mean() for score in scores[:2]]
        assert best == pytest.approx(np.array([[55.88, shares[0]], [85.80, shares[1]]]), abs=5e-3)
        assert last.tolist() == best[1:].tolist()
    monkeypatch.setattr(plot, "pareto", lambda model: (FRONT, None, False))
    with pytest.raises(KeyboardInterrupt):
        plot.draw_pareto(ARCHITECTURES, RANKS, predictors)


def test_size_and_rank_are_correlated_by_their_order_alone():
    size = rankdata(measure(ARCHITECTURES).parameters)
    printed = re.findall(r"(\w+) (-?\d\.\d\d)\b", plot.size_correlations(ARCHITECTURES, RANKS))
    assert {name: float(value) for name, value in printed} == {
        name: pytest.approx(np.corrcoef(size, row)[0, 1], abs=0.0051) for name, row in RANKS.items()
    }


@needs_real_data
def test_with_the_competitions_file_all_pictures_are_drawn_and_the_readmes_correlations_printed(script, published):
    answer = script("tools/plot.py", "--data_path", REAL_DATA.parent, root=published, before=without_the_slow_parts)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert {path.stem for path in (published / "logs").glob("*.png")} == {"tau", "loss", "rank", "pareto"}
    said, *table = answer.stdout.splitlines()
    assert "\n".join(table) in RESULTS_README
    cells = json.loads((ROOT / "train.ipynb").read_text())["cells"]
    notebook = "".join(line for cell in cells for line in cell["source"])
    correlation = rf"({'|'.join(RANKS)})\s(-0\.\d\d)"
    printed = dict(re.findall(correlation, said))
    sizes = measure(load_train(REAL_DATA)[0]).parameters
    for name, ranks in load_train(REAL_DATA)[1].items():
        assert float(printed[name]) == pytest.approx(np.corrcoef(rankdata(sizes), ranks)[0, 1], abs=0.0051)
    assert dict(re.findall(correlation, notebook)) == printed
    quoted = re.findall(correlation, (ROOT / "README.md").read_text())
    assert quoted and set(quoted) <= set(printed.items())


def test_without_it_or_with_another_only_the_curves_are_drawn(script, published):
    answer = script("tools/plot.py", root=published, before=without_the_slow_parts)
    left = "rank.png and pareto.png are left as they are\n"
    assert answer.returncode == 0
    assert answer.stderr.endswith(f"{TRAIN_FILE}: no such file: {left}")
    assert answer.stdout in RESULTS_README
    pictures = list((published / "logs").glob("*.png"))
    assert {path.stem for path in pictures} == {"tau", "loss"}
    make_data(published / "data", make_entries(ARCHITECTURES))
    answer = script("tools/plot.py", root=published, before=without_the_slow_parts)
    assert answer.stderr.endswith(f"{TRAIN_FILE}: not what results/published was trained on: {left}")
    assert list((published / "logs").glob("*.png")) == pictures


def sizes_file(path, recipes):
    taus = np.random.RandomState(0).rand(len(recipes), 3, 2, 5, 8)  # [recipe][size][seed][fold][task]
    content = {"sizes": [50, 100, 400], "tau": dict(zip(recipes, taus.tolist(), strict=True))}
    content["tau"][recipes[0]][0] = [[[None] * 8] * 5] * 2
    path.write_text(json.dumps(content))
    return taus


def test_sizes_are_drawn_as_a_line_for_each_recipe(script, project, tmp_path):
    names = ["reference", "gp", "ridge", "own"]
    taus = sizes_file(tmp_path / "sizes.json", names)
    (panel,) = plot.draw_sizes(tmp_path / "sizes.json").axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == names
    assert len({line.get_color() for line in panel.lines}) == len(names)
    for i, (line, values) in enumerate(zip(panel.lines, taus, strict=True)):
        means = [size.mean() for size in values]
        expected = [means[0] if i else np.nan, *means[1:]]
        np.testing.assert_allclose(line.get_xydata(), np.stack([[50, 100, 400], expected], 1))
    (project / "logs").mkdir()
    answer = script("tools/plot.py", "--sizes", "sizes.json", root=project)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert [path.name for path in (project / "logs").iterdir()] == ["sizes.png"]
    with Image.open(project / "logs" / "sizes.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize(
    "text", ["", "[]", '{"tau": {}}', '{"sizes": [1], "tau": []}', '{"sizes": [2, 3], "tau": {"gp": [1, 2, 3]}}']
)
def test_another_file_is_no_sizes(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: not what crossval.py --sizes --json writes: "):
        plot.draw_sizes(tmp_path / "x.json")


def test_the_pictures_of_the_readmes_are_there_small_and_large_enough_to_read():
    texts = [(ROOT / name / "README.md").read_text() for name in (".", "logs")]
    shown = {name for text in texts for name in re.findall(r"!\[.*?\]\((?:logs/)?(\w+\.png)\)", text, re.DOTALL)}
    assert shown == {path.name for path in (ROOT / "logs").glob("*.png")}
    for name in shown:
        assert (ROOT / "logs" / name).stat().st_size < 200_000
        with Image.open(ROOT / "logs" / name) as picture:
            assert picture.width > 800
