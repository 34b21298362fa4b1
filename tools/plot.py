"""Draw the published run, and print its results beside the reference's as a Markdown table.

    python tools/plot.py                        logs/tau.png, logs/loss.png, and the table
    python tools/plot.py --data_path FOLDER     where the training file is: also the correlation of size and rank
    python tools/plot.py --sizes sizes.json     only logs/sizes.png, from a file that crossval.py --sizes --json wrote

Needs requirements-dev.txt. The run is results/published/; results/reference.json has the reference's figures.
"""

import functools
import io
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib
import numpy as np

matplotlib.use("agg")

from matplotlib import pyplot
from PIL import Image
from scipy.stats import spearmanr

import cli
from common.files import InputError, read_file, write_file
from common.metrics import rank_table, standard_error
from common.paths import project_path
from dataset import load_train
from engine.predictors import load
from recipes.reference import best_validation
from space import VIT

# Okabe and Ito's colours, told apart by the colour-blind too.
TRAIN, VALIDATION, REFERENCE, OTHERS = "#E69F00", "#0072B2", "#BBBBBB", ("#009E73", "#CC79A7")
STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.right": False, "axes.spines.top": False}


HEADER = """\
| task | best, authors (GPU) | best, reference (CPU) | best, this port \
| snapshot | its tau, authors (GPU) | its tau, this port | on the whole split |
|---|--:|--:|--:|--:|--:|--:|--:|"""
ROW = "| {} | {:.4f} @ {} | {:.4f} @ {} | {:.4f} @ {} | {} | {:.4f} | {:.4f} | {:.4f} |"
MEAN = "| **mean** | {:.4f} | {:.4f} | {:.4f} | | {:.4f} | {:.4f} | {:.4f} |"


def table(predictors, reference):
    """Results as a Markdown table. reference: {task name: figures}."""
    lines, rows = [HEADER], []
    for predictor in predictors:
        name, index, own = predictor.task.name, predictor.snapshot, predictor.checkpoint
        other, (epochs, _) = reference[name], zip(*own["validate_ktau"], strict=True)
        cpu = best_validation(zip(epochs, other["cpu_validate_ktau"], strict=True))
        best = (other["gpu_best_ktau"], other["gpu_best_epoch"]), cpu, best_validation(own["validate_ktau"])
        used = other["gpu_snapshot_ktau"], own["snapshots"][index]["ktau"], own["whole_ktau"]
        lines.append(ROW.format(name, *best[0], *best[1], *best[2], index, *used))
        rows.append((*(tau for tau, _ in best), *used))
    return "\n".join([*lines, MEAN.format(*np.mean(rows, 0))])


def draw(predictors, ylabel, draw_panel, **kwargs):
    """A figure with a panel a task, four in a row, drawn by draw_panel(panel, predictor)."""
    figure, axes = pyplot.subplots(2, 4, figsize=(9.2, 4.9), layout="constrained", sharex=True, **kwargs)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    for panel, predictor in zip(axes.flat, predictors, strict=True):
        panel.set_title(predictor.task.name)
        panel.grid(color="#EEEEEE")
        panel.set_axisbelow(True)
        draw_panel(panel, predictor)
        panel.set_xlim(0, predictor.task.num_epochs)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=len(lines[0]), frameon=False)
    return figure


def draw_taus(reference, panel, predictor):
    """Kendall's tau on both splits, the reference's in grey; marks at the best and the used snapshot."""
    own, used = predictor.checkpoint, predictor.checkpoint["snapshots"][predictor.snapshot]
    taus, other = np.float32(own["train_ktau"]), reference[predictor.task.name]["cpu_validate_ktau"]
    panel.plot(range(1, len(taus) + 1), taus, color=TRAIN, lw=0.8, zorder=2.5, label="training")
    epochs, taus = np.float32(own["validate_ktau"]).T
    panel.plot(epochs, other, color=REFERENCE, lw=3, label="validation, the reference on a CPU")
    panel.plot(epochs, taus, color=VALIDATION, lw=0.8, label="validation")
    panel.plot(*best_validation(own["validate_ktau"])[::-1], "k^", ms=5, zorder=3, label="best on validation")
    ring = {"mfc": "none", "mec": "black", "mew": 1.5, "ms": 9, "zorder": 3}
    panel.plot(used["epoch"], used["ktau"], "o", **ring, label="snapshot used")


def draw_losses(panel, predictor):
    """Training loss; equal scores have the loss log 2."""
    losses = np.float32(predictor.checkpoint["train_loss"])
    panel.axhline(math.log(2), color=REFERENCE, ls="--", label="log 2: nothing learnt")
    panel.plot(range(1, len(losses) + 1), losses, color=VALIDATION, lw=0.8, label="loss")


def draw_curves(ticks, curves, **settings):
    """A figure of {name: (y, its standard error or None)} by x = ticks."""
    figure, panel = pyplot.subplots(figsize=(4.6, 3), layout="constrained")
    panel.set_prop_cycle(color=[TRAIN, VALIDATION, *OTHERS])
    for name, (y, errors) in curves.items():
        panel.errorbar(np.array(ticks), y, errors, fmt="o-", ms=4, capsize=2, elinewidth=0.8, label=name)
    panel.set(**settings)
    panel.set_xticks(ticks, ticks)
    panel.minorticks_off()
    panel.grid(color="#EEEEEE")
    panel.legend(frameon=False)
    return figure


def draw_sizes(path):
    """Mean tau of all tasks by the number of labels, with its standard error, from the JSON of crossval.py --sizes."""
    curves = {}
    try:
        content = json.loads(read_file(path))
        sizes = np.array(content["sizes"])
        for name, taus in content["tau"].items():
            folds = np.array(taus, float).mean(-1).reshape(len(sizes), -1)  # NaN: too few to train on
            curves[name] = folds.mean(1), standard_error(folds, content["test_architectures"] / sizes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not what crossval.py --sizes --json writes: {error}") from None
    ylabel = "Kendall's tau, mean of the tasks"
    return draw_curves(sizes, curves, xlabel="measured architectures", ylabel=ylabel, xscale="log")


def read_rounds(paths):
    """Ranks of what rounds.py --json wrote for some tables: (measurements, {method: (tasks, measurements, seeds)})."""
    try:
        contents = [json.loads(read_file(path)) for path in paths]
        methods = contents[0]["results"]
        found = {name: np.concatenate([np.array(content["results"][name]) for content in contents]) for name in methods}
        return contents[0]["measurements"], found
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = "not what rounds.py --json writes of equal measurements"
        raise InputError(f"{', '.join(paths)}: {what}: {error}") from None


def draw_rounds(measurements, found):
    """The share of runs that found the very best network, of all tables and seeds, by measurements."""
    names = [name for name in ("random", "evolution", "rounds") if name in found]
    curves = {name: (100 * (found[name] == 0).mean((0, 2)), None) for name in names}
    ylabel = "runs that found the very best, %"
    return draw_curves(measurements, curves, xlabel="trainings", ylabel=ylabel, ylim=(-3, 103))


def save(figure, name):
    """Write a PNG of 64 colours to logs/, a third of the size of one with all colours."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, dpi=180)
    Image.open(buffer).convert("RGB").quantize(64).save(small, "png", optimize=True)
    write_file(project_path("logs", name), small.getbuffer())


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    help = "folder of the training file (default: data)"
    parser.add_argument("--data_path", type=cli.folder, default=project_path("data"), metavar="FOLDER", help=help)
    parser.add_argument("--sizes", metavar="FILE", help="draw only this file's taus by the number of labels")
    help = "draw only what rounds.py wrote for these tables, and print it for all of them"
    parser.add_argument("--rounds", nargs="+", metavar="FILE", help=help)
    args = parser.parse_args(argv)
    pyplot.rcParams.update(STYLE)
    if args.rounds:
        measurements, found = read_rounds(args.rounds)
        save(draw_rounds(measurements, found), "rounds.png")
        print(rank_table(measurements, found))
        return
    if args.sizes is not None:
        save(draw_sizes(args.sizes), "sizes.png")
        return
    training_file = cli.open_data(args.data_path).train_file
    if training_file.exists():
        _, labels = load_train(training_file)
        parameters = VIT.measure(next(iter(labels.values())).architectures)["params"]
        found = (f"{name} {spearmanr(parameters, each.ranks).statistic:.2f}" for name, each in labels.items())
        print(f"Spearman's correlation of parameters and rank: {', '.join(found)}")
    predictors = load()
    reference = json.loads(Path(project_path("results", "reference.json")).read_text())["tasks"]
    save(draw(predictors, "Kendall's tau", functools.partial(draw_taus, reference)), "tau.png")
    figure = draw(predictors, "ranking loss, training split", draw_losses, sharey=True)
    figure.axes[0].set_ylim(bottom=0)
    save(figure, "loss.png")
    print(table(predictors, reference))


if __name__ == "__main__":
    cli.run(main)
