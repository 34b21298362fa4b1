"""The surrogate benchmark: fit it to the competition's training file, or make its files.

    python tools/surrogate.py fit --data_path FOLDER        writes data/surrogate/effects.json
    python tools/surrogate.py generate [--output FOLDER]    makes the training file, the test file and truth.json

The training and scoring scripts make the files in data/surrogate themselves when they need them.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import torch

import cli
from dataset import FEATURES, LAYERS, TRAIN_FILE, encode, load_train
from files import make_folder, say, sha256, write_file
from folders import SURROGATE, check_output, choose_folders, project_folder
from metrics import kendall_tau, normal_scores
from recipes.ridge import IS_CHOICE, PENALTY, ridge
from surrogate import EFFECTS_FILE, generate, make
from tasks import TASKS

FOLDS, SEED = 5, 0
ABOUT = (
    "An architecture's score is the effect of its depth (10, 11, 12), plus those of each layer's heads and MLP ratio "
    "(a row a layer, a column a choice), plus normal noise with the standard deviation 'residual'. Made by "
    f"`python tools/surrogate.py fit`: ridge regression (penalty {PENALTY:g}) of the ranks' normal quantiles on the "
    f"one-hot choices; 'residual' and 'ktau', Kendall's tau, by {FOLDS}-fold cross-validation. 'data' is the sha256 of "
    "the training file, 'sha256' those of the files made from this one."
)


def fit(architectures, ranks):
    """Fit the effects that surrogate.generate takes, and each task's tau in cross-validation.

    architectures: n strings; ranks: {task name: (n,) integers in [0, n)}. The labels are the ranks' normal scores.
    """
    x = encode(architectures).flatten(1)[:, FEATURES].double() * IS_CHOICE
    labels = torch.stack([normal_scores(ranks[task.name]) for task in TASKS], 1)  # (n, tasks)
    predicted = torch.empty_like(labels)
    order = np.random.RandomState(SEED).permutation(len(x))
    for fold in range(FOLDS):
        test, rest = order[fold::FOLDS], np.setdiff1d(order, order[fold::FOLDS])
        weights, _ = ridge(x[rest], labels[rest])
        predicted[test] = (x[test] - x[rest].mean(0)) @ weights + labels[rest].mean(0)
    residual = (labels - predicted).square().mean(0).sqrt()
    ktau = kendall_tau(predicted.t(), labels.t())
    weights = ridge(x, labels)[0].numpy().round(4)  # (87, tasks)
    layers = weights[3:].reshape(LAYERS, 7, len(TASKS))
    return {
        task.name: {
            "depth": weights[:3, i].tolist(),
            "heads": layers[:, 0:3, i].tolist(),
            "mlp_ratio": layers[:, 3:6, i].tolist(),
            "residual": round(residual[i].item(), 4),
            "ktau": round(ktau[i].item(), 4),
        }
        for i, task in enumerate(TASKS)
    }


def fit_file(path):
    """Content of effects.json when fitted to the training file at `path`. Raises as dataset.load_train."""
    tasks = fit(*load_train(path, TASKS))
    made = {name: hashlib.sha256(data).hexdigest() for name, data in generate(tasks).items()}
    return {"about": ABOUT, "data": sha256(path), "tasks": tasks, "sha256": made}


def parse_arguments():
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="fit the effects to the competition's training file")
    fitting.add_argument("--data_path", required=True, metavar="FOLDER", help="the training file's folder")
    generating = commands.add_parser("generate", help="make the surrogate's files")
    folder = project_folder("data", SURROGATE)
    generating.add_argument("--output", default=folder, metavar="FOLDER", help=f"output folder (default: {folder})")
    return parser.parse_args()


def main():
    args = parse_arguments()
    if args.command == "generate":
        make_folder(args.output)
        make(args.output, Path(project_folder("data", SURROGATE), EFFECTS_FILE))
        say(f"{args.output}: holds the surrogate benchmark")
        return
    choose_folders(args)
    path, training = Path(project_folder("data", SURROGATE), EFFECTS_FILE), Path(args.data_path, TRAIN_FILE)
    check_output(path, [training])
    content = fit_file(training)
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^][]*\]", lambda row: json.dumps(json.loads(row[0])), text)  # a row of effects on one line
    write_file(path, f"{text}\n".encode())
    for name, task in content["tasks"].items():
        print(f"{name:<10}  tau {task['ktau']:.4f}  residual {task['residual']:.4f}")
    say(f"{path}: written")


if __name__ == "__main__":
    cli.run(main)
