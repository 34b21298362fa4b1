"""Traverse the predictors by their validation tau: score with the best, the second best, ... snapshot of every task.

    python tools/traverse.py --top 10
    python tools/traverse.py --top 10 --truth data/surrogate/truth.json

The first writes ten submissions, Track2_submitA_<save_name>_<k>.json, for k = 1 with the best snapshots on validation;
the second prints Kendall's tau of each with the true ranks, and writes nothing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli


def table(tasks, validation, test):
    """The taus as text. validation, test: (K, t), row k - 1 those of the k-th best snapshots on validation."""
    import numpy as np

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
    cli.add_shared_arguments(parser)
    parser.add_argument("--top", type=cli.positive, default=10, metavar="K", help="snapshots a task (default: 10)")
    parser.add_argument("--truth", metavar="FILE", help="the test file with the true ranks")
    parser.add_argument(
        "--save_name", type=cli.file_name, default="traverse", help="name of the submissions (default: traverse)"
    )
    args = parser.parse_args()
    # Imported only now, so that --help does not wait for torch.
    import numpy as np
    from scipy.stats import kendalltau

    from checkpoint import pick
    from dataset import TEST_FILE, known_ranks, load_test
    from scoring import score, write_submission
    from tools.score import read_same

    cli.check_device(args.device)
    tasks = args.tasks
    loaded = cli.load_checkpoints(args)
    snapshots = [[pick(path, content, -k) for path, content in loaded] for k in range(1, args.top + 1)]
    test_path = Path(args.data_path, TEST_FILE)
    architectures, content = load_test(test_path)
    given = args.truth is not None
    truth = known_ranks(args.truth, read_same(args.truth, test_path, content)) if given else None
    taus = []
    for k, chosen in enumerate(snapshots, 1):
        scores = score([snapshot.state_dict for snapshot in chosen], architectures, args.device)
        if truth:
            taus.append([kendalltau(row, truth[task.name]).statistic for task, row in zip(tasks, scores, strict=True)])
        else:
            print(write_submission(f"{args.save_name}_{k}", content, tasks, scores), flush=True)
    if truth:
        print(table(tasks, np.array([[snapshot.ktau for snapshot in chosen] for chosen in snapshots]), np.array(taus)))


if __name__ == "__main__":
    cli.run(main)
