"""Make the files of the surrogate benchmark, or fit its effects to the competition's training file.

    python tools/surrogate.py                    makes the training file, the test file and truth.json here
    python tools/surrogate.py --output FOLDER    makes them in another folder, for --data_path FOLDER
    python tools/surrogate.py --fit FOLDER       writes effects.json from FOLDER's training file

The training and scoring scripts make the files here themselves when they need them.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import cli
from common.files import log, sha256, write_file
from common.metrics import kendall_tau, normal_scores
from common.paths import make_folder, project_path
from data.surrogate import generate
from dataset import encode, load_train
from recipes.ridge import PENALTY, decision_features, ridge
from space import VIT
from tasks import TASKS

FOLDS, SEED = 5, 0
ABOUT = (
    "An architecture's score is the effect of its depth (10, 11, 12), plus those of each layer's heads and MLP ratio "
    "(a row a layer, a column a choice), plus normal noise with the standard deviation 'residual'. Made by "
    f"`python tools/surrogate.py --fit`: ridge regression (penalty {PENALTY:g}) of the ranks' normal quantiles "
    f"on the one-hot choices; 'residual' and 'ktau', Kendall's tau, by {FOLDS}-fold cross-validation. 'data' is the "
    "sha256 of the training file, 'sha256' those of the files made from this one."
)


def fit(labels):
    """Fit the effects that generate.generate takes, and each task's tau in cross-validation.

    labels: {task name: dataset.Labels}, of the same architectures. What is fitted are the ranks' normal scores.
    """
    x = decision_features(VIT, encode(VIT, labels[TASKS[0].name].architectures))
    y = torch.stack([normal_scores(labels[task.name].ranks) for task in TASKS], 1)  # (n, tasks)
    predicted = torch.empty_like(y)
    order = np.random.RandomState(SEED).permutation(len(x))
    for fold in range(FOLDS):
        test, rest = order[fold::FOLDS], np.setdiff1d(order, order[fold::FOLDS])
        weights, _ = ridge(x[rest], y[rest])
        predicted[test] = (x[test] - x[rest].mean(0)) @ weights + y[rest].mean(0)
    residual = (y - predicted).square().mean(0).sqrt()
    tau = kendall_tau(predicted.t(), y.t())
    weights = ridge(x, y)[0].numpy().round(4)  # (87, tasks)
    depth, heads, ratio = weights[:3], *np.split(weights[3:].reshape(12, 7, len(TASKS))[:, :6], 2, axis=1)
    return {
        task.name: {
            "depth": depth[:, i].tolist(),
            "heads": heads[..., i].tolist(),
            "mlp_ratio": ratio[..., i].tolist(),
            "residual": round(residual[i].item(), 4),
            "ktau": round(tau[i].item(), 4),
        }
        for i, task in enumerate(TASKS)
    }


def fit_file(path):
    """Content of effects.json when fitted to the training file at `path`. Raises as dataset.load_train."""
    tasks = fit(load_train(path, [task.name for task in TASKS])[1])
    made = {name: hashlib.sha256(data).hexdigest() for name, data in generate.generate(tasks).items()}
    return {"about": ABOUT, "data": sha256(path), "tasks": tasks, "sha256": made}


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--output", type=cli.folder, metavar="FOLDER", help="make the files in this folder")
    choice.add_argument("--fit", type=cli.folder, metavar="FOLDER", help="fit the effects to FOLDER's training file")
    args = parser.parse_args(argv)
    if not args.fit:
        folder = args.output or project_path("data", "surrogate")
        make_folder(folder)
        generate.make(folder)
        log.info(f"{folder}: holds the surrogate benchmark")
        return
    content = fit_file(cli.open_data(args.fit, "--fit").train_file)
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[[^][]*\]", lambda row: json.dumps(json.loads(row[0])), text)  # a row of effects on one line
    write_file(generate.EFFECTS, f"{text}\n".encode())
    for name, task in content["tasks"].items():
        print(f"{name:<10}  tau {task['ktau']:.4f}  residual {task['residual']:.4f}")
    log.info(f"{project_path('data', 'surrogate', generate.EFFECTS.name)}: written")


if __name__ == "__main__":
    cli.run(main)
