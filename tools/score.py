"""Score a submission against the true ranks: Kendall's tau of each task and their mean, and the top of the ranking.

    python tools/score.py Track2_submitA_test_final.json data/surrogate/truth.json
    python tools/score.py SUBMISSION TRUTH --top 50 --tasks sop veri --json
    python tools/score.py SUBMISSION TRUTH --uncertainty intervals.json

"in top K": how many of the truly best K are among the predicted best K. "true rank of the best":
the true rank, 0 the best, of the architecture predicted to be the best. "coverage": the share of true ranks that lie in
the intervals that test.py --uncertainty wrote.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

import json

import numpy as np
from scipy.stats import kendalltau

import cli
import metrics
from dataset import DataError, labelled_tasks, load_entries, parse_labels


def read_same(path, other_path, other):
    """Content of the file `path`, in the order of `other`, the content of the file `other_path`.

    Raises DataError unless both hold the same architectures under the same names, OSError.
    """
    _, content = load_entries(path)
    for name in (*other, *content):
        if name not in content:
            raise DataError(f"{path}: {name} is missing: expected the {len(other)} architectures of {other_path}")
        if name not in other:
            raise DataError(f"{path}: {name} is not one of the {len(other)} architectures of {other_path}: remove it")
        if content[name]["arch"] != other[name]["arch"]:
            raise DataError(f"{path}: {name}: arch is {content[name]['arch']}: expected {other[name]['arch']}")
    return {name: content[name] for name in other}


def submitted_ranks(path, content, task):
    """Ranks of a task in a submission: (n,) int64; raises DataError unless they are integers from 0 to n - 1."""
    for name, entry in content.items():
        rank = entry.get(task.rank_key)
        if type(rank) is not int or not 0 <= rank < len(content):
            found = f"is {json.dumps(rank)[:40]}" if task.rank_key in entry else "is missing"
            expected = f"expected an integer from 0 to {len(content) - 1}, or --tasks without {task.name}"
            raise DataError(f"{path}: {name}: {task.rank_key} {found}: {expected}")
    return np.array([entry[task.rank_key] for entry in content.values()])


def score(submission_path, truth_path, tasks=None, top=100, intervals_path=None, largest=False):
    """Figures of a submission: {task name: {"tau": float, "in_top": int, "best": int, "coverage": float}}.

    tasks: by default those that the truth labels; largest: the largest label of the truth has rank 0. "coverage" is
    there with `intervals_path`. Raises DataError where the files hold different architectures, a rank or an interval is
    invalid, or all ranks of a task are equal; OSError.
    """
    if os.path.basename(submission_path) == "truth.json" or os.path.basename(truth_path).startswith("Track2_submit"):
        raise DataError(f"{submission_path} {truth_path}: swapped: name the submission first, then the truth")
    _, truth = load_entries(truth_path)
    submission = read_same(submission_path, truth_path, truth)
    intervals = read_same(intervals_path, truth_path, truth) if intervals_path else None
    tasks = tasks or labelled_tasks(truth_path, truth)
    labels, figures = parse_labels(truth_path, truth, tasks), {}
    for task in tasks:
        predicted, true = submitted_ranks(submission_path, submission, task), labels[task.name]
        true = metrics.ranks(-true) if largest else true
        if len(set(predicted)) == 1 or len(set(true)) == 1:
            same = f"all ranks are equal here or in {truth_path}"
            raise DataError(f"{submission_path}: {task.rank_key}: tau is undefined, as {same}")
        best, truly_best = (np.argsort(ranks, kind="stable") for ranks in (predicted, true))
        figures[task.name] = {
            "tau": float(kendalltau(predicted, true).statistic),
            "in_top": len(set(best[:top]) & set(truly_best[:top])),
            "best": int(true[best[0]]),
        }
        if intervals:
            low, high = read_intervals(intervals_path, intervals, task)
            figures[task.name]["coverage"] = float(((low <= true) & (true <= high)).mean())
    return figures


def read_intervals(path, content, task):
    """Ends of a task's intervals in the content of test.py --uncertainty: (2, n) int64; raises DataError."""
    key = f"{task.rank_key}_interval"
    for name, entry in content.items():
        ends = entry.get(key)
        if not (isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)):
            raise DataError(
                f"{path}: {name}: {key} is {json.dumps(ends)[:40]}: expected [low, high], as test.py writes"
            )
    return np.array([entry[key] for entry in content.values()]).T


def table(figures, top):
    """Figures as text, a line for each task, and the mean tau."""
    lines = [f"task            tau  in top {top:<5}  true rank of the best"]
    for name, row in figures.items():
        coverage = f"  coverage {row['coverage']:.3f}" if "coverage" in row else ""
        lines.append(f"{name:<10}  {row['tau']:7.4f}  {row['in_top']:>12}  {row['best']:>21}{coverage}")
    return "\n".join([*lines, f"{'mean':<10}  {sum(row['tau'] for row in figures.values()) / len(figures):7.4f}"])


def main():
    parser = cli.Parser(description=__doc__)
    parser.add_argument("submission", metavar="SUBMISSION", help="file that test.py wrote")
    parser.add_argument("truth", metavar="TRUTH", help="the same architectures with their true ranks, or other labels")
    cli.add_tasks(parser, "all that the truth labels")
    parser.add_argument("--top", type=cli.positive, default=100, metavar="K", help="size of the top (default: 100)")
    parser.add_argument("--uncertainty", metavar="FILE", help="intervals that test.py --uncertainty wrote")
    cli.add_largest(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: each tau, their mean, the rest under 'top'")
    args = parser.parse_args()
    figures = score(args.submission, args.truth, args.tasks, args.top, args.uncertainty, args.largest)
    if args.json:
        content = {name: row.pop("tau") for name, row in figures.items()}
        print(json.dumps(content | {"mean": sum(content.values()) / len(content), "top": figures}))
    else:
        print(table(figures, args.top))


if __name__ == "__main__":
    cli.run(main)
