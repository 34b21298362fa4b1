"""The surrogate benchmark: fit it to the competition's training file, or make its files.

    python tools/surrogate.py fit --data_path DIR     writes data/surrogate/effects.json
    python tools/surrogate.py generate                makes the training and the test file and truth.json beside it

The training and scoring scripts do the second by themselves when they need it.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
from tasks import TASKS

PENALTY, FOLDS, SEED = 1.0, 5, 0
ABOUT = (
    "An architecture's score is the effect of its depth (10, 11, 12), plus those of each layer's heads and MLP ratio "
    "(a row a layer, a column a choice), plus normal noise with the standard deviation 'residual'. Made by "
    f"`python tools/surrogate.py fit`: ridge regression (penalty {PENALTY:g}) of the ranks' normal quantiles on the "
    f"one-hot choices; 'residual' and 'ktau', Kendall's tau, by {FOLDS}-fold cross-validation. 'data' is the sha256 of "
    "the training file, 'sha256' those of the files made from this one."
)


def ridge(inputs, labels):
    """Ridge regression, the intercept not penalised: a function from inputs to predictions, and the weights (d, t).

    inputs: (n, d), labels: (n, t). Minimises |labels - intercept - inputs w|^2 + PENALTY |w|^2.
    """
    import numpy as np

    centre, intercept = inputs.mean(0), labels.mean(0)
    x = inputs - centre
    weights = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ (labels - intercept))
    return lambda inputs: (inputs - centre) @ weights + intercept, weights


def fit(architectures, ranks):
    """Fit the effects that surrogate.generate takes, and each task's tau in cross-validation.

    architectures: n strings; ranks: {task name: (n,) integers in [0, n)}. The labels are the ranks' normal quantiles.
    """
    import numpy as np
    from scipy.stats import kendalltau, norm

    from dataset import encode

    inputs = encode(architectures).double().numpy()  # (n, 37, 10)
    inputs[:, :, 9] = 0  # the embedding is no choice
    inputs = inputs.reshape(len(inputs), -1)
    labels = norm.ppf((np.stack([ranks[task.name] for task in TASKS], 1) + 0.5) / len(inputs))
    predicted = np.empty_like(labels)
    order = np.random.RandomState(SEED).permutation(len(inputs))
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        rest = np.setdiff1d(order, held_out)
        predicted[held_out] = ridge(inputs[rest], labels[rest])[0](inputs[held_out])
    residual = np.sqrt(((labels - predicted) ** 2).mean(0))
    weights = ridge(inputs, labels)[1].T.reshape(len(TASKS), 37, 10).round(4)
    return {
        task.name: {
            "depth": weights[i, 0, 0:3].tolist(),
            "heads": weights[i, 1::3, 3:6].tolist(),
            "mlp_ratio": weights[i, 2::3, 6:9].tolist(),
            "residual": round(float(residual[i]), 4),
            "ktau": round(float(kendalltau(predicted[:, i], labels[:, i]).statistic), 4),
        }
        for i, task in enumerate(TASKS)
    }


def fit_file(path):
    """What effects.json holds when fitted to the training file at `path`. Raises as dataset.load_train."""
    from checkpoint import fingerprint
    from dataset import load_train
    from surrogate import generate

    tasks = fit(*load_train(path))
    made = {name: hashlib.sha256(data).hexdigest() for name, data in generate(tasks).items()}
    return {"about": ABOUT, "data": fingerprint(path), "tasks": tasks, "sha256": made}


def parse_arguments(argv=None):
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="fit the effects to the competition's training file")
    fitting.add_argument("--data_path", required=True, metavar="DIR", help="folder of the competition's training file")
    commands.add_parser("generate", help="make the surrogate's files")
    return parser.parse_args(argv)


def main():
    args = parse_arguments()
    # Imported only now, so that --help does not wait for torch.
    from checkpoint import write_whole
    from dataset import TRAIN_FILE
    from surrogate import EFFECTS_FILE, make

    folder = cli.own_folder("data", "surrogate")
    if args.command == "generate":
        make(folder)
        print(f"{folder}: the surrogate benchmark is there")
        return
    content = fit_file(Path(args.data_path, TRAIN_FILE))
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^][]*\]", lambda row: json.dumps(json.loads(row[0])), text)  # a row of effects on one line
    path = Path(folder, EFFECTS_FILE)
    write_whole(path, f"{text}\n".encode())
    for name, task in content["tasks"].items():
        print(f"{name:<10}  tau {task['ktau']:.4f}  residual {task['residual']:.4f}")
    print(f"{path}: written")


if __name__ == "__main__":
    cli.run(main)
