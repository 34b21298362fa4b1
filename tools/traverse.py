"""Traverse the predictors by their validation tau: rank with the best, the second best, ... snapshot of every task.

    python tools/traverse.py --top 10
    python tools/traverse.py --top 10 --truth data/surrogate/truth.json

The first writes ten submissions, Track2_submitA_<save_name>_<k>.json, for k = 1 with the best snapshots on validation;
the second prints Kendall's tau of each with the true ranks, and writes nothing. Both need your own checkpoints of the
recipe `reference`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import kendalltau

import cli
from common.files import log
from dataset import load_entries, load_same, read_labels
from engine.predictors import score_all
from engine.submission import submission_path, write_submission
from engine.trained import load_checkpoint
from recipes import DEFAULT


def table(names, validation, test):
    """Taus as text. validation, test: (K, tasks), row k - 1 of the k-th best snapshots on validation."""
    lines = [" k  " + "".join(f"{name:>12}" for name in names) + f"{'mean':>12}"]
    for k, row in enumerate(test, 1):
        lines.append(f"{k:>2}  " + "".join(f"{tau:12.4f}" for tau in (*row, row.mean())))
    lines.append("\ntask        best k     tau  on validation   k = 1: tau  on validation")
    for i, name in enumerate(names):
        best = np.nan_to_num(test[:, i], nan=-2).argmax()  # a constant predictor has no tau
        cells = (test[best, i], validation[best, i], test[0, i], validation[0, i])
        lines.append(f"{name:<10}  {best + 1:>6}" + "{:8.4f}{:15.4f}{:13.4f}{:15.4f}".format(*cells))
    return "\n".join(lines)


def true_taus(data, truth_path, snapshots, device):
    """(validation taus, taus with the true ranks), (K, tasks) arrays. snapshots: K lists of trained predictors."""
    architectures, entries = load_entries(data.test_file, data.space)
    names = [predictor.task.name for predictor in snapshots[0]]
    truth = read_labels(truth_path, load_same(truth_path, data.test_file, entries), names)
    validation, test = [], []
    for predictors in snapshots:
        scores = score_all(predictors, architectures, device)
        test.append([kendalltau(row, truth[name]).statistic for name, row in zip(names, scores, strict=True)])
        validation.append([each.checkpoint["snapshots"][each.snapshot]["ktau"] for each in predictors])
    return np.array(validation), np.array(test)


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_checkpoints(parser)
    parser.set_defaults(recipe=DEFAULT)
    parser.add_argument("--top", type=cli.positive, default=10, metavar="K", help="snapshots a task (default: 10)")
    parser.add_argument("--truth", metavar="FILE", help="the test file with the true ranks or accuracies")
    help = "name of the submissions (default: traverse, or traverse_NAME with --data_path NAME)"
    parser.add_argument("--save_name", type=cli.file_name, help=help)
    args = parser.parse_args(argv)
    data = cli.open_data(args.data_path)
    # All snapshots are loaded before the first submission is written.
    ranked = range(1, args.top + 1)
    predictors = cli.load_predictors(args, data)
    snapshots = [[load_checkpoint(each.recipe, each.path, each.task, -k) for each in predictors] for k in ranked]
    if args.truth is not None:
        print(table([each.task.name for each in predictors], *true_taus(data, args.truth, snapshots, args.device)))
        return
    paths = [submission_path(f"{args.save_name or data.output_name('traverse')}_{k}") for k in ranked]
    for path in paths:
        data.check_output(path, [each.path for each in predictors])
    for path, chosen in zip(paths, snapshots, strict=True):
        write_submission(chosen, data.test_file, path, device=args.device)
        log.info(path)


if __name__ == "__main__":
    cli.run(main)
