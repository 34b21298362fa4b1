"""Score a submission against the true ranks, as the competition's server did: Kendall's tau a task, and their mean.

python tools/score.py Track2_submitA_test_final.json data/surrogate/truth.json
python tools/score.py SUBMISSION TRUTH --json
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
from tasks import TASKS


def read_same(path, other_path, other):
    """The content of the file `path`, in the order of `other`, the content of the file `other_path`.

    Raises DataError unless both hold the same architectures under the same names, OSError.
    """
    from dataset import DataError, load_test

    _, content = load_test(path)
    for name in (*other, *content):
        if name not in content:
            raise DataError(f"{path}: {name} is missing: expected the {len(other)} architectures of {other_path}")
        if name not in other:
            raise DataError(f"{path}: {name} is not one of the {len(other)} architectures of {other_path}: remove it")
        if content[name]["arch"] != other[name]["arch"]:
            raise DataError(f"{path}: {name}: arch is {content[name]['arch']}: expected {other[name]['arch']}")
    return {name: content[name] for name in other}


def score(submission_path, truth_path):
    """{task name: Kendall's tau-b} of two files with the ranks of the same architectures.

    Raises DataError where the submission differs in more than the ranks, where a rank is no integer from 0 to n - 1,
    or where all ranks of a task are equal; OSError.
    """
    from scipy.stats import kendalltau

    from dataset import DataError, known_ranks, load_test

    _, truth = load_test(truth_path)
    submission = read_same(submission_path, truth_path, truth)
    predicted, true = known_ranks(submission_path, submission), known_ranks(truth_path, truth)
    taus = {task.name: float(kendalltau(predicted[task.name], true[task.name]).statistic) for task in TASKS}
    for task in TASKS:
        if math.isnan(taus[task.name]):
            raise DataError(
                f"{submission_path}: {task.rank_key}: tau is undefined, as all ranks are equal here or in {truth_path}"
            )
    return taus


def main():
    parser = cli.Parser(description=__doc__)
    parser.add_argument("submission", metavar="SUBMISSION", help="what test.py wrote")
    parser.add_argument("truth", metavar="TRUTH", help="the same file with the true ranks")
    parser.add_argument("--json", action="store_true", help="print JSON: the tasks and their mean")
    args = parser.parse_args()
    taus = score(args.submission, args.truth)
    taus["mean"] = sum(taus.values()) / len(taus)
    print(json.dumps(taus) if args.json else "\n".join(f"{name:<10}  {tau:7.4f}" for name, tau in taus.items()))


if __name__ == "__main__":
    cli.run(main)
