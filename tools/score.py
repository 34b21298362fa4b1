"""Score a submission against the true ranks: Kendall's tau of each task and their mean, and the top of the ranking.

    python tools/score.py Track2_submitA_test_final.json TRUTH
    python tools/score.py SUBMISSION TRUTH --top 50 --tasks sop veri --json
    python tools/score.py SUBMISSION TRUTH --uncertainty intervals.json

TRUTH labels the same architectures, as a training file does: with `<task>_rank` or `<task>_accuracy`. "in top K": how
many of the truly best K are among the predicted best K. "true rank of the best": the true rank, 0 the best, of the
architecture predicted to be the best. Ties are broken at random; both figures are expectations. Equal true labels have
their mean rank. "coverage": how many true ranks lie in the intervals that test.py --uncertainty wrote, of all
architectures and of the predicted best K, where it is lower: those were selected by their predictions.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import kendalltau, rankdata

import cli
from common.files import InputError, log
from dataset import label_fields, load_same, read_entries, read_labels
from engine.submission import submitted_intervals, submitted_ranks


def in_best(ranks, k):
    """Probability of each of n architectures to be among the best k, in a random order of equal ranks: (n,)."""
    _, inverse, counts = np.unique(ranks, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts
    return np.clip((k - before) / counts, 0, 1)[inverse]


def score(submission_path, truth_path, tasks=None, top=100, intervals_path=None):
    """Figures of a submission: {task name: {"tau", "in_top", "best", and with intervals "coverage", "top_coverage"}}.

    tasks: names, by default those that the truth labels and the submission predicts. Raises InputError where the files
    hold different architectures, a rank or an interval is invalid, no task is predicted, or all ranks of a task are
    equal; OSError.
    """
    if os.path.basename(submission_path) == "truth.json" or os.path.basename(truth_path).startswith("Track2_submit"):
        raise InputError(f"{submission_path} {truth_path}: swapped: name the submission first, then the truth")
    truth = read_entries(truth_path)
    submission = load_same(submission_path, truth_path, truth)
    intervals = load_same(intervals_path, truth_path, truth) if intervals_path is not None else None
    names = tasks or label_fields(truth_path, truth)
    predicted = {name: submitted_ranks(submission_path, submission, name) for name in names}
    missing = [name for name, ranks in predicted.items() if ranks is None]
    if missing and (tasks or len(missing) == len(predicted)):
        raise InputError(f"{submission_path}: does not predict {', '.join(missing)}: name other --tasks")
    if missing:
        log.info(f"not predicted in {submission_path}, so not counted: {', '.join(missing)}")
    figures = {}
    for name, lowest in read_labels(truth_path, truth, [name for name in predicted if name not in missing]).items():
        ranks, true = predicted[name], rankdata(lowest) - 1
        if len(set(ranks)) == 1 or len(set(true)) == 1:
            same = f"all ranks are equal here or in {truth_path}"
            raise InputError(f"{submission_path}: {name}: tau is undefined, as {same}")
        first, in_top = in_best(ranks, 1), in_best(ranks, top)
        figures[name] = {
            "tau": float(kendalltau(ranks, true).statistic),
            "in_top": float(in_top @ in_best(true, top)),
            "best": float(first @ true),
        }
        if intervals is not None:
            low, high = submitted_intervals(intervals_path, intervals, name)
            covered = (low <= true) & (true <= high)
            figures[name] |= {"coverage": float(covered.mean()), "top_coverage": float(in_top @ covered / in_top.sum())}
    return figures


def table(figures, top):
    """Figures as text, a line for each task, and the mean tau."""
    names = {"in_top": f"in top {top}", "best": "true rank of the best"}
    names |= {"coverage": "coverage", "top_coverage": f"coverage, top {top}"}
    columns = {key: name for key, name in names.items() if all(key in row for row in figures.values())}
    lines = [f"{'task':<10}  {'tau':>7}  " + "  ".join(columns.values())]
    for task, row in figures.items():
        texts = {key: f"{row[key]:.3f}" if "coverage" in key else f"{round(row[key], 1):g}" for key in columns}
        cells = "  ".join(f"{text:>{len(columns[key])}}" for key, text in texts.items())
        lines.append(f"{task:<10}  {row['tau']:7.4f}  {cells}")
    return "\n".join([*lines, f"{'mean':<10}  {sum(row['tau'] for row in figures.values()) / len(figures):7.4f}"])


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    parser.add_argument("submission", metavar="SUBMISSION", help="file that test.py wrote")
    parser.add_argument("truth", metavar="TRUTH", help="the same architectures with their true ranks, or other labels")
    cli.add_tasks(parser, "all that the truth labels and the submission predicts")
    parser.add_argument("--top", type=cli.positive, default=100, metavar="K", help="size of the top (default: 100)")
    parser.add_argument("--uncertainty", metavar="FILE", help="intervals that test.py --uncertainty wrote")
    parser.add_argument(
        "--json", action="store_true", help='print JSON: {"mean_tau": number, "tasks": {task: figures}}'
    )
    args = parser.parse_args(argv)
    if args.json:
        cli.messages_to_stderr()
    figures = score(args.submission, args.truth, args.tasks, args.top, args.uncertainty)
    if args.json:
        print(json.dumps({"mean_tau": sum(row["tau"] for row in figures.values()) / len(figures), "tasks": figures}))
    else:
        print(table(figures, args.top))


if __name__ == "__main__":
    cli.run(main)
