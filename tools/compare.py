"""Compare recipes with other regressors on a complete table of real trainings: Kendall's tau on all others.

    python data/benchmarks/convert.py table.json.gz data/whole --labels all
    python tools/compare.py --data_path data/whole --labels 50 200 --seeds 5 --first 5

Each seed draws the labelled architectures; all methods get the same ones. `forest` and `boosting` are scikit-learn's
with 200 trees on one-hot decisions, `botorch` is BoTorch's mixed Gaussian process with its defaults. Each of the three
is fitted to the labels and to their normal scores, and the better mean is shown, which favours them. They need
`pip install -r requirements-dev.txt` and, for botorch, `pip install botorch`; what is missing is left out.
"""

import importlib.util
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from scipy.stats import kendalltau

import cli
import recipes
from common.files import InputError, write_json
from common.metrics import markdown, normal_scores
from common.processes import one_thread
from dataset import encode, load_train
from engine.model import score
from engine.trained import fit_labels
from tasks import find_task


def by_recipe(name, space, labels, targets, others):
    """Scores of n others by a recipe that is fitted to the labels, the lower the better."""
    return score([fit_labels(recipes.get(name, space), find_task("compared"), labels).model], others)[0]


def by_trees(name, space, labels, targets, others):
    """The same by a class of scikit-learn that is fitted to the targets."""
    from sklearn import ensemble

    x, asked = (encode(space, names).flatten(1)[:, space.features] for names in (labels.architectures, others))
    model = getattr(ensemble, name)(random_state=0, n_estimators=200)
    return model.fit(x.numpy(), targets).predict(asked.numpy())


def by_botorch(space, labels, targets, others):
    """The same by a Gaussian process of BoTorch."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import MixedSingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    known, asked = (torch.from_numpy(space.parse(names)).double() for names in (labels.architectures, others))
    columns, y = list(range(known.shape[1])), torch.from_numpy(targets)[:, None]
    model = MixedSingleTaskGP(known, y, cat_dims=columns, outcome_transform=Standardize(1))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    with torch.no_grad():
        return torch.cat([model.posterior(part).mean[:, 0] for part in asked.split(2000)])


METHODS = {
    "gp": partial(by_recipe, "gp"),
    "ridge": partial(by_recipe, "ridge"),
    "forest": partial(by_trees, "RandomForestRegressor"),
    "boosting": partial(by_trees, "GradientBoostingRegressor"),
    "botorch": by_botorch,
}
NEEDS = {"forest": "sklearn", "boosting": "sklearn", "botorch": "botorch"}
PACKAGES = {"sklearn": "scikit-learn", "botorch": "botorch"}


def table(counts, found):
    """Mean taus as Markdown, in brackets the standard error over seeds.

    found: {method: (targets, counts, tasks, seeds)}, and the better targets are shown.
    """

    def cell(i, taus):
        of_seeds = max((of_targets[i].mean(0) for of_targets in taus), key=np.mean)
        return f"{of_seeds.mean():.3f} ({of_seeds.std(ddof=1) / len(of_seeds) ** 0.5:.3f})"

    return markdown("labels", counts, found, cell)


@one_thread()
def main(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    help = "how many to fit to (default: 50 200)"
    parser.add_argument("--labels", nargs="+", type=cli.positive, default=[50, 200], metavar="N", help=help)
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help="only these")
    cli.add_seeds(parser, 5)
    cli.add_json(parser, "write every tau")
    args = parser.parse_args(argv)
    data = cli.open_data(args.data_path)
    if args.json:
        data.check_output(args.json)
    _, labels = load_train(data.train_file, args.tasks, data.space)
    fewest = min(len(of_task.ranks) for of_task in labels.values())
    if not 2 <= min(args.labels) <= max(args.labels) <= fewest - 2:
        raise InputError(
            f"--labels: expected numbers from 2 to {fewest - 2}: {data.train_file} has {fewest} architectures"
        )
    versions = {name: version(name) for module, name in PACKAGES.items() if importlib.util.find_spec(module)}
    there = (name for name in args.methods or METHODS if name not in NEEDS or PACKAGES[NEEDS[name]] in versions)
    shape = len(args.labels), len(labels), args.seeds
    found = {name: np.zeros((1 + (name in NEEDS), *shape)) for name in there}
    seconds = dict.fromkeys(found, 0.0)
    for i, t, s in np.ndindex(shape):
        of_task = list(labels.values())[t]
        order = np.random.RandomState(args.first + s).permutation(len(of_task.ranks))
        known, asked = of_task.select(order[: args.labels[i]]), of_task.select(order[args.labels[i] :])
        for name, taus in found.items():
            for j, targets in enumerate((normal_scores(known.ranks).numpy(), known.values)[: len(taus)]):
                began = time.perf_counter()
                scores = METHODS[name](data.space, known, targets, asked.architectures)
                seconds[name] += (time.perf_counter() - began) / len(taus)
                taus[j, i, t, s] = kendalltau(scores, asked.values).statistic
    print(table(args.labels, found))
    each = ", ".join(f"{name} {total / np.prod(shape):.2f}" for name, total in seconds.items())
    print(
        f"{data.space.name}, {', '.join(labels)}; seconds a fit and ranking: {each}; torch {torch.__version__}",
        versions,
    )
    if args.json:
        content = {"labels": args.labels, "tau": {name: taus.tolist() for name, taus in found.items()}}
        write_json(args.json, content)


if __name__ == "__main__":
    cli.run(main)
