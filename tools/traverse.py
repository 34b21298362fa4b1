"""Traverse the predictors by their validation tau: score with the best, the second best, ... snapshot of every task.

    python tools/traverse.py --top 10
    python tools/traverse.py --top 10 --truth data/surrogate/truth.json

The first writes ten submissions, Track2_submitA_<save_name>_<k>.json, for k = 1 with the best snapshots on validation;
the second prints Kendall's tau of each with the true ranks, and writes nothing.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

import cli
import surrogate
from dataset import TEST_FILE, load_entries, parse_labels
from files import say
from folders import check_output
from predictors import load_predictors
from recipes import DEFAULT
from scoring import score
from submission import submission_path, write_submission
from tools.score import read_same


def table(tasks, validation, test):
    """Taus as text. validation, test: (K, tasks), row k - 1 of the k-th best snapshots on validation."""
    lines = [" k  " + "".join(f"{task.name:>12}" for task in tasks) + f"{'mean':>12}"]
    for k, row in enumerate(test, 1):
        lines.append(f"{k:>2}  " + "".join(f"{tau:12.4f}" for tau in (*row, row.mean())))
    lines.append("\ntask        best k     tau  on validation   k = 1: tau  on validation")
    for i, task in enumerate(tasks):
        best = np.nan_to_num(test[:, i], nan=-2).argmax()  # a constant predictor has no tau
        cells = (test[best, i], validation[best, i], test[0, i], validation[0, i])
        lines.append(f"{task.name:<10}  {best + 1:>6}" + "{:8.4f}{:15.4f}{:13.4f}{:15.4f}".format(*cells))
    return "\n".join(lines)


def main():
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    parser.add_argument("--top", type=cli.positive, default=10, metavar="K", help="snapshots a task (default: 10)")
    cli.add_largest(parser)
    parser.add_argument("--truth", metavar="FILE", help="the test file with the true ranks")
    parser.add_argument(
        "--save_name", type=cli.file_name, default="traverse", help="name of the submissions (default: traverse)"
    )
    args = parser.parse_args()
    args.recipe = DEFAULT  # the recipe that has snapshots
    recipe, loaded = load_predictors(args)
    ranked = range(1, args.top + 1)
    # All indices are looked up before the first submission is written.
    indices = [[recipe.snapshot_index(each.path, each.content, -k) for each in loaded] for k in ranked]
    test_file = Path(args.data_path, TEST_FILE)
    architectures, content = load_entries(test_file)
    given = args.truth is not None
    truth = parse_labels(args.truth, read_same(args.truth, test_file, content), args.tasks) if given else None
    paths = [submission_path(f"{args.save_name}_{k}") for k in ranked]
    for path in [] if given else paths:
        check_output(path, [*surrogate.input_files(args.data_path), *(each.path for each in loaded)])
    validation, test = [], []
    for path, chosen in zip(paths, indices, strict=True):
        pairs = list(zip((each.content for each in loaded), chosen, strict=True))
        scores = score([recipe.model(*pair) for pair in pairs], architectures, args.device)
        if given:
            taus = zip(args.tasks, scores, strict=True)
            test.append([kendalltau(row, truth[task.name]).statistic for task, row in taus])
            validation.append([content["snapshots"][index]["ktau"] for content, index in pairs])
        else:
            write_submission(path, content, args.tasks, scores, args.largest)
            say(path)
    if given:
        print(table(args.tasks, np.array(validation), np.array(test)))


if __name__ == "__main__":
    cli.run(main)
