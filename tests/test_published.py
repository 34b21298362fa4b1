"""The published run in results/ and logs/, and the tools that make and draw it."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OLD_TORCH, REAL_DATA, ROOT
from PIL import Image
from scipy.stats import kendalltau, rankdata
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dataset
import training
from files import sha256
from network import Predictor
from space import measure
from tasks import TASKS, Task, find_task
from tools import plot, publish

RESULTS, LOGS = ROOT / "results" / "published", ROOT / "logs" / "published"
DATA = "9f15a919f04d2a7c1433ebdd1de80cba8a07869650240645d3de141e5f49a7ab"


@pytest.fixture(scope="module")
def contents():
    return {task.name: torch.load(RESULTS / f"{task.name}_final.pth", weights_only=True) for task in TASKS}


@pytest.fixture(scope="module")
def reference():
    return json.loads((ROOT / "tools" / "reference.json").read_text())["tasks"]


def test_every_task_has_a_small_checkpoint_of_its_settings(contents):
    assert sum((RESULTS / f"{task.name}_final.pth").stat().st_size for task in TASKS) < 10**6
    for task in TASKS:
        content = contents[task.name]
        assert Task(**content["task"]) == task
        assert list(content["snapshots"]) == [content["index"]] == [task.snapshot]
        assert content["data"] == DATA
        Predictor().load_state_dict(content["snapshots"][task.snapshot]["state_dict"])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_curve_is_the_references_and_the_snapshot_the_one_its_index_says(contents, reference, task):
    content = contents[task.name]
    curve = content["validate_ktau"]
    assert [epoch for epoch, _ in curve] == [1, *range(5, 401, 5)] if task.val_interval == 5 else list(range(1, 401))
    assert [ktau for _, ktau in curve] == pytest.approx(reference[task.name]["cpu_validate_ktau"], abs=1e-5)
    snapshot = content["snapshots"][task.snapshot]
    ktau = sorted({ktau for _, ktau in curve})[task.snapshot]
    assert (snapshot["ktau"], snapshot["epoch"]) == (ktau, max(epoch for epoch, other in curve if other == ktau))


def test_the_published_predictors_score_a_test_file(script, data_folder, contents):
    scored = script("test.py", "--data_path", data_folder, "--results_path", RESULTS)
    assert scored.returncode == 0, scored.stderr
    lines = scored.stdout.splitlines()
    assert lines.pop(0).endswith("used all the same")  # trained on the competition's data
    for task, line in zip(TASKS, lines, strict=False):
        ktau = contents[task.name]["snapshots"][task.snapshot]["ktau"]
        assert line.split() == [task.name, "snapshot", str(task.snapshot), "validation", "tau", f"{ktau:.4f}"]


@OLD_TORCH
@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs the competition's training file in ../shared/data")
def test_training_again_gives_the_published_weights(contents):
    architectures, ranks = dataset.load_train(REAL_DATA)
    assert sha256(REAL_DATA) == DATA
    task = find_task("dukemtmc")
    run = training.train(task, dataset.encode(architectures), ranks[task.name])
    published = contents[task.name]["snapshots"][task.snapshot]
    again = run.snapshots[run.index]
    assert again.epoch == published["epoch"]
    for name, value in published["state_dict"].items():
        np.testing.assert_allclose(again.state_dict[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_logs_hold_every_tag_and_step_of_the_same_run(contents, task):
    content, read = contents[task.name], {}
    for part in ("train", "validate"):
        assert [path.name for path in (LOGS / task.name / part).iterdir()] == ["events.out.tfevents.published"]
        events = EventAccumulator(str(LOGS / task.name / part), size_guidance={"scalars": 0}).Reload()
        read |= {(part, tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
        assert events.Tags()["tensors"] == ([f"{task.name}/settings/text_summary"] if part == "train" else [])
    expected = {
        ("train", f"{task.name}/loss"): list(enumerate(content["train_loss"], 1)),
        ("train", f"{task.name}/ktau"): list(enumerate(content["train_ktau"], 1)),
        ("validate", f"{task.name}/ktau"): content["validate_ktau"],
    }
    assert set(read) == set(expected)
    for key, curve in expected.items():
        assert len(curve) == (81 if key[0] == "validate" and task.val_interval == 5 else 400)
        assert [event.step for event in read[key]] == [epoch for epoch, _ in curve]
        assert all(math.isfinite(event.value) for event in read[key])
        assert [event.value for event in read[key]] == pytest.approx([value for _, value in curve])


def test_publishing_keeps_what_scores_and_drops_the_machines_name(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l")
    assert script("main.py", *flags, "--num_epochs", 4, "--batch_size", 8).returncode == 0
    script("test.py", *flags[:4], "--save_name", "before")
    trained = {path: path.read_bytes() for path in (tmp_path / "r").iterdir()}
    publish.publish(tmp_path / "r", tmp_path / "l" / "train_final", tmp_path / "p", tmp_path / "lp")
    assert {path: path.read_bytes() for path in (tmp_path / "r").iterdir()} == trained
    script("test.py", *flags[:2], "--results_path", "p", "--save_name", "after")
    before, after = (tmp_path / f"Track2_submitA_{name}.json" for name in ("before", "after"))
    assert before.read_bytes() == after.read_bytes()
    assert all(path.stat().st_size < 130_000 for path in (tmp_path / "p").iterdir())
    logs = [path for path in (tmp_path / "lp").rglob("*") if path.is_file()]
    assert [path.name for path in logs] == ["events.out.tfevents.published"] * 16


def test_the_readmes_say_what_the_files_hold(contents, reference):
    assert plot.table(contents, reference) in (ROOT / "README.md").read_text()
    text = (ROOT / "results" / "README.md").read_text()
    assert DATA in text
    rows = re.findall(r"^\| (\w+) \| (-\d+) \| (\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    chosen = {name: content["snapshots"][content["index"]] for name, content in contents.items()}
    assert rows == [
        (task.name, str(task.snapshot), str(chosen[task.name]["epoch"]), f"{chosen[task.name]['ktau']:.4f}")
        for task in TASKS
    ]


def test_the_table_holds_the_figures_and_their_means(contents, reference):
    lines = [line.split("|")[1:-1] for line in plot.table(contents, reference).splitlines()[2:]]
    lines = [[cell.strip() for cell in line] for line in lines]
    assert lines[0] == ["cplfw", "0.3951 @ 348", "0.4087 @ 183", "0.4087 @ 183", "-1", "0.3951", "0.4087", "0.2821"]
    assert [line[0] for line in lines] == [*(task.name for task in TASKS), "**mean**"]
    for column in (1, 2, 3, 5, 6, 7):
        *values, mean = (float(line[column].split(" @ ")[0]) for line in lines)
        assert mean == pytest.approx(np.mean(values), abs=1e-4)


def test_the_curves_are_drawn_with_their_snapshots(contents, reference):
    figure = plot.draw_taus(LOGS, contents, reference)
    for task, panel in zip(TASKS, figure.axes, strict=True):
        assert panel.get_title() == task.name
        train, behind, validation, best, chosen = (line.get_xydata() for line in panel.lines)
        content = contents[task.name]
        assert train[:, 1] == pytest.approx(content["train_ktau"])
        assert behind[:, 1].tolist() == reference[task.name]["cpu_validate_ktau"]
        np.testing.assert_allclose(validation, content["validate_ktau"], atol=1e-6)
        assert best[0] == pytest.approx(validation[np.flatnonzero(validation[:, 1] == validation[:, 1].max())[-1]])
        snapshot = content["snapshots"][task.snapshot]
        assert chosen[0] == pytest.approx([snapshot["epoch"], snapshot["ktau"]])
    figure = plot.draw_losses(LOGS)
    for task, panel in zip(TASKS, figure.axes, strict=True):
        assert panel.lines[1].get_ydata() == pytest.approx(contents[task.name]["train_loss"])


def test_size_and_rank_are_correlated_by_their_order_alone():
    architectures = dataset.sample_architectures(200, seed=3)
    ranks = {task.name: np.random.RandomState(i).permutation(200) for i, task in enumerate(TASKS)}
    size = rankdata(measure(architectures).parameters)
    printed = dict(re.findall(r"(\w+) (-?\d\.\d\d)\b", plot.size_correlations(architectures, ranks)))
    assert {name: float(value) for name, value in printed.items()} == {
        name: pytest.approx(np.corrcoef(size, row)[0, 1], abs=0.0051) for name, row in ranks.items()
    }


@pytest.mark.skipif(not REAL_DATA.exists(), reason="needs the competition's training file in ../shared/data")
def test_the_readme_and_the_notebook_have_the_correlations_that_are_printed():
    cells = json.loads((ROOT / "train.ipynb").read_text())["cells"]
    texts = (
        plot.size_correlations(*dataset.load_train(REAL_DATA)),
        "".join(line for cell in cells for line in cell["source"]),
        (ROOT / "README.md").read_text(),
    )
    names = "|".join(task.name for task in TASKS)
    printed, notebook, readme = (set(re.findall(rf"({names})\s(-0\.\d\d)", text)) for text in texts)
    assert len(printed) == len(TASKS)
    assert notebook == printed
    assert readme == {("veri", "-0.39"), ("cplfw", "-0.02")} & printed


def test_ranks_are_drawn_on_the_validation_part_alone(contents):
    architectures = dataset.sample_architectures(500, seed=3)
    ranks = {task.name: np.random.RandomState(4).permutation(500) for task in TASKS}
    figure = plot.draw_ranks(architectures, ranks, contents)
    for task, panel in zip(TASKS, figure.axes, strict=True):
        start = int(task.train_ratio * 500)
        predictor = Predictor().eval()
        predictor.load_state_dict(contents[task.name]["snapshots"][task.snapshot]["state_dict"])
        with torch.no_grad():
            scores = predictor(dataset.encode(architectures[start:])).numpy()
        true, predicted = panel.lines[1].get_xydata().T
        assert true.tolist() == np.argsort(np.argsort(ranks[task.name][start:])).tolist()
        assert kendalltau(predicted, scores).statistic > 0.999
        tau = kendalltau(scores, ranks[task.name][start:]).statistic
        assert float(panel.get_title().split()[-1]) == pytest.approx(tau, abs=2e-3)


def test_pictures_are_small_and_large_enough_to_read(contents, reference, tmp_path):
    plot.save(plot.draw_losses(LOGS), tmp_path / "loss.png")
    pictures = [tmp_path / "loss.png", *(ROOT / "logs").glob("*.png")]
    assert sorted(path.name for path in pictures[1:]) == sorted(
        f"{name}.png" for name in ("loss", "pareto", "rank", "tau", "tensorboard")
    )
    for path in pictures:
        assert path.stat().st_size < 200_000
        with Image.open(path) as picture:
            assert picture.width >= 830
    text = (ROOT / "README.md").read_text() + (ROOT / "logs" / "README.md").read_text()
    assert all(Path(path).name in text for path in pictures)
