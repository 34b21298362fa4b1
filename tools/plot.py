"""Draw the published run, and print its results beside the reference's as a Markdown table.

    python tools/plot.py                        logs/tau.png, logs/loss.png, and the table
    python tools/plot.py --data_path FOLDER     where the training file is: rank.png and pareto.png, too; prints the
                                                correlation of size and rank
    python tools/plot.py --sizes sizes.json     only logs/sizes.png, from a file that crossval.py --sizes --json wrote

Needs requirements-dev.txt. The run is that of results/published/ and logs/published/; tools/reference.json has the
reference's figures.
"""

import io
import itertools
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib
import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

matplotlib.use("agg")

from matplotlib import pyplot
from PIL import Image
from scipy.stats import spearmanr

import cli
from common.files import InputError, read_file, sha256, write_file
from common.metrics import kendall_tau, ranks
from common.paths import PUBLISHED, project_path
from dataset import load_train
from engine.model import score
from engine.predictors import load, shares_beaten
from recipes.reference import best_validation
from search.exact import pareto
from space import measure
from tasks import TASKS

# Okabe and Ito's colours, told apart by the colour-blind too.
TRAIN, VALIDATION, REFERENCE = "#E69F00", "#0072B2", "#BBBBBB"
OTHERS = "#009E73", "#CC79A7"


def read_curve(logs, task, part, tag):
    """Read a curve from the TensorBoard files of a run: (steps, values)."""
    events = EventAccumulator(str(Path(logs, task.name, part)), size_guidance={"scalars": 0}).Reload()
    scalars = events.Scalars(f"{task.name}/{tag}")
    return [event.step for event in scalars], [event.value for event in scalars]


def reference_curve(task, figures):
    """[(epoch, validation tau)] of the reference's run on a CPU."""
    epochs = (epoch for epoch in range(1, task.num_epochs + 1) if epoch == 1 or epoch % task.val_interval == 0)
    return list(zip(epochs, figures["cpu_validate_ktau"], strict=True))


def used_snapshot(predictor):
    """The snapshot of a predictor that scores."""
    return predictor.checkpoint["snapshots"][predictor.snapshot]


def table(predictors, reference):
    """Results as a Markdown table. reference: {task name: figures}."""
    lines = [
        "| task | best, authors (GPU) | best, reference (CPU) | best, this port "
        "| snapshot | its tau, authors (GPU) | its tau, this port | on the whole split |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = []
    for predictor in predictors:
        figures = reference[predictor.task.name]
        gpu = figures["gpu_best_ktau"], figures["gpu_best_epoch"]
        cpu = best_validation(reference_curve(predictor.task, figures))
        ours = best_validation(predictor.checkpoint["validate_ktau"])
        used = figures["gpu_snapshot_ktau"], used_snapshot(predictor)["ktau"], predictor.checkpoint["whole_ktau"]
        cells = [predictor.task.name, *(f"{tau:.4f} @ {epoch}" for tau, epoch in (gpu, cpu, ours))]
        lines.append(f"| {' | '.join([*cells, str(predictor.snapshot), *(f'{tau:.4f}' for tau in used)])} |")
        rows.append((gpu[0], cpu[0], ours[0], *used))
    mean = [f"{sum(column) / len(rows):.4f}" for column in zip(*rows, strict=True)]
    return "\n".join([*lines, f"| **mean** | {' | '.join(mean[:3])} | | {' | '.join(mean[3:])} |"])


def panels(xlabel, ylabel, tasks=TASKS, **kwargs):
    """Make a figure with a panel a task, four in a row: (figure, [axes])."""
    pyplot.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.spines.right": False, "axes.spines.top": False})
    rows = len(tasks) // 4
    figure, axes = pyplot.subplots(rows, 4, figsize=(9.2, 0.7 + 2.1 * rows), layout="constrained", **kwargs)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    for task, panel in zip(tasks, axes.flat, strict=True):
        panel.set_title(task.name)
        panel.grid(color="#EEEEEE")
        panel.set_axisbelow(True)
    return figure, list(axes.flat)


def draw_taus(logs, predictors, reference):
    """Kendall's tau by epoch on both splits, the reference's in grey; marks at the best and the used snapshot."""
    figure, axes = panels("epoch", "Kendall's tau", sharex=True)
    for predictor, panel in zip(predictors, axes, strict=True):
        task = predictor.task
        panel.plot(*read_curve(logs, task, "train", "ktau"), color=TRAIN, lw=0.8, zorder=2.5, label="training")
        behind = zip(*reference_curve(task, reference[task.name]), strict=True)
        panel.plot(*behind, color=REFERENCE, lw=3, label="validation, the reference on a CPU")
        epochs, taus = read_curve(logs, task, "validate", "ktau")
        panel.plot(epochs, taus, color=VALIDATION, lw=0.8, label="validation")
        tau, epoch = best_validation(zip(epochs, taus, strict=True))
        panel.plot(epoch, tau, "k^", ms=5, zorder=3, label="best on validation")
        used = used_snapshot(predictor)
        ring = {"mfc": "none", "mec": "black", "mew": 1.5, "ms": 9, "zorder": 3}
        panel.plot(used["epoch"], used["ktau"], "o", **ring, label="snapshot used")
        panel.set_xlim(0, task.num_epochs)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def draw_losses(logs):
    """Training loss by epoch; equal scores have the loss log 2."""
    figure, axes = panels("epoch", "ranking loss, training split", sharex=True, sharey=True)
    for task, panel in zip(TASKS, axes, strict=True):
        panel.axhline(math.log(2), color=REFERENCE, ls="--", label="log 2: nothing learnt")
        panel.plot(*read_curve(logs, task, "train", "loss"), color=VALIDATION, lw=0.8, label="loss")
        panel.set_xlim(0, task.num_epochs)
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def draw_ranks(architectures, true, predictors):
    """Predicted against true rank within the validation split; true: {task name: (n,) ranks}."""
    figure, axes = panels("true rank within the validation split", "predicted rank")
    for predictor, panel in zip(predictors, axes, strict=True):
        n_train, count = predictor.task.split_sizes(len(architectures))
        scores = score([predictor.model], architectures[n_train:])
        labels = torch.as_tensor(true[predictor.task.name][n_train:])[None]
        panel.axline((0, 0), slope=1, color=REFERENCE)
        panel.plot(ranks(labels[0]), ranks(scores[0]), "o", color=VALIDATION, ms=3, alpha=0.7, mew=0)
        panel.set_title(f"{predictor.task.name}, tau {kendall_tau(scores, labels).item():.3f}")
        panel.set(xlim=(-0.03 * count, 1.03 * count), ylim=(-0.03 * count, 1.03 * count), aspect="equal")
        panel.set_xticks(range(0, count + 1, count // 2))
        panel.set_yticks(range(0, count + 1, count // 2))
    return figure


def draw_pareto(architectures, true, predictors):
    """Pareto front of parameters and predicted share of the space that is beaten, on four tasks.

    In grey the measured architectures: the share of each other that they truly beat. true: {task name: (n,) ranks}.
    """
    predictors = [each for each in predictors if each.task.name in ("market1501", "msmt17", "veri", "sop")]
    labels = "million parameters", "% of architectures that it beats"
    figure, axes = panels(*labels, [each.task for each in predictors], sharex=True, sharey=True)
    millions = measure(architectures).parameters / 1e6
    for predictor, panel in zip(predictors, axes, strict=True):
        front, _, complete = pareto(predictor.model)
        if not complete:
            raise KeyboardInterrupt
        shares = 100 - 100 * true[predictor.task.name] / (len(architectures) - 1)
        panel.plot(millions, shares, "o", color=REFERENCE, ms=2.5, mew=0, label="measured")
        _, (shares,) = shares_beaten([predictor], front)
        step = {"drawstyle": "steps-post", "color": VALIDATION, "lw": 1.6}
        panel.plot(measure(front).parameters / 1e6, 100 * shares, **step, label="best of its size, predicted")
        panel.plot(measure(front[-1:]).parameters / 1e6, 100 * shares[-1:], "k^", ms=5, label="best of all, predicted")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def draw_sizes(path):
    """Mean tau over all tasks by the number of labels, a line for each recipe, from the JSON of crossval.py --sizes."""
    try:
        content = json.loads(read_file(path))
        sizes, recipes = content["sizes"], content["tau"]
        means = {name: np.array(taus, float).reshape(len(sizes), -1).mean(1) for name, taus in recipes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not what crossval.py --sizes --json writes: {error}") from None
    pyplot.rcParams.update({"font.size": 9, "axes.spines.right": False, "axes.spines.top": False})
    figure, panel = pyplot.subplots(figsize=(4.6, 3), layout="constrained")
    for (name, taus), color in zip(means.items(), itertools.cycle((TRAIN, VALIDATION, *OTHERS)), strict=False):
        panel.plot(sizes, taus, "o-", color=color, ms=4, label=name)  # a recipe that cannot train on so few has NaN
    panel.set(xlabel="measured architectures", ylabel="Kendall's tau, mean of the tasks", xscale="log")
    panel.set_xticks(sizes, sizes)
    panel.minorticks_off()
    panel.grid(color="#EEEEEE")
    panel.legend(frameon=False)
    return figure


def size_correlations(architectures, true):
    """Spearman's correlation of parameters and rank on each task, as text. true: {task name: (n,) ranks}."""
    parameters = measure(architectures).parameters
    figures = (f"{name} {spearmanr(parameters, ranks).statistic:.2f}" for name, ranks in true.items())
    return f"Spearman's correlation of parameters and rank: {', '.join(figures)}"


def save(figure, path):
    """Write a PNG of 64 colours, a third of the size of one with all colours."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=180)
    Image.open(buffer).convert("RGB").quantize(64).save(small, "png", optimize=True)
    write_file(path, small.getbuffer())


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    help = "folder of the training file (default: data)"
    parser.add_argument("--data_path", type=cli.folder, default=project_path("data"), metavar="FOLDER", help=help)
    parser.add_argument("--sizes", metavar="FILE", help="draw only this file's taus by the number of labels")
    args = parser.parse_args(argv)
    if args.sizes is not None:
        save(draw_sizes(args.sizes), project_path("logs", "sizes.png"))
        return
    predictors, logs = load(), project_path("logs", PUBLISHED)
    reference = json.loads(Path(project_path("results", "reference.json")).read_text())["tasks"]
    figures = {"tau": draw_taus(logs, predictors, reference), "loss": draw_losses(logs)}
    path = cli.open_data(args.data_path).train_file
    if not path.exists():
        print(f"{path}: no such file: rank.png and pareto.png are left as they are", file=sys.stderr)
    elif any(sha256(path) != predictor.checkpoint["data"] for predictor in predictors):
        left = "rank.png and pareto.png are left as they are"
        print(f"{path}: not what results/published was trained on: {left}", file=sys.stderr)
    else:
        measured = load_train(path)
        print(size_correlations(*measured))
        figures["rank"], figures["pareto"] = draw_ranks(*measured, predictors), draw_pareto(*measured, predictors)
    for name, figure in figures.items():
        save(figure, project_path("logs", f"{name}.png"))
    print(table(predictors, reference))


if __name__ == "__main__":
    cli.run(main)
