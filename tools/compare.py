"""Compare recipes with other regressors on a complete table of real trainings: Kendall's tau on all others.

    python data/benchmarks/convert.py table.json.gz data/whole --labels all
    python tools/compare.py --data_path data/whole --labels 50 200 --seeds 5 --first 5

Each seed draws the labelled architectures; all methods get the same ones. `forest` and `boosting` are scikit-learn's
with 200 trees on one-hot decisions, `botorch` is BoTorch's mixed Gaussian process with its defaults. Each of the three
is fitted to the labels and to their normal scores, and the better mean is shown, which favours them. They need
`pip install -r requirements-dev.txt` and, for botorch, `pip install botorch`; what is missing is left out.
"""

import importlib.util
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from scipy.stats import kendalltau

import cli
import recipes
from common.files import write_file
from common.metrics import normal_scores
from common.processes import one_thread
from dataset import encode, load_train
from engine.model import score
from engine.trained import fit_labels
from tasks import find_task


def by_recipe(name):
    """A method of a recipe: method(space, labels, targets, others) gives n scores, the lower the better."""

    def method(space, labels, targets, others):
        return score([fit_labels(recipes.get(name, space), find_task("compared"), labels).model], others)[0]

    return method


def by_trees(name):
    """A method of scikit-learn."""

    def method(space, labels, targets, others):
        from sklearn import ensemble

        options = {"random_state": 0, "n_estimators": 200}
        model = {"forest": ensemble.RandomForestRegressor, "boosting": ensemble.GradientBoostingRegressor}[name](
            **options
        )
        return model.fit(_one_hot(space, labels.architectures), targets).predict(_one_hot(space, others))

    return method


def _one_hot(space, architectures):
    return encode(space, architectures).flatten(1)[:, space.features].numpy()


def by_botorch(space, labels, targets, others):
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


METHODS = {"gp": by_recipe("gp"), "ridge": by_recipe("ridge"), "forest": by_trees("forest")}
METHODS |= {"boosting": by_trees("boosting"), "botorch": by_botorch}
NEEDS = {"forest": "sklearn", "boosting": "sklearn", "botorch": "botorch"}
PACKAGES = {"sklearn": "scikit-learn", "botorch": "botorch"}


def table(counts, found):
    """Mean taus as Markdown, in brackets the standard error over seeds.

    found: {method: (targets, counts, tasks, seeds)}, of which the better targets are shown.
    """
    lines = [f"| labels | {' | '.join(found)} |", f"|--:{'|--:' * len(found)}|"]
    for i, count in enumerate(counts):
        cells = []
        for taus in found.values():
            of_seeds = max((of_targets[i].mean(0) for of_targets in taus), key=np.mean)
            cells.append(f"{of_seeds.mean():.3f} ({of_seeds.std(ddof=1) / len(of_seeds) ** 0.5:.3f})")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


@one_thread()
def main(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    parser.add_argument(
        "--labels", nargs="+", type=cli.positive, default=[50, 200], metavar="N", help="(default: 50 200)"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help="only these")
    parser.add_argument("--seeds", type=cli.positive, default=5, metavar="N", help="how many seeds (default: 5)")
    parser.add_argument("--first", type=cli.seed, default=0, metavar="SEED", help="the first of them (default: 0)")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write every tau")
    args = parser.parse_args(argv)
    data = cli.open_data(args.data_path)
    if args.json:
        data.check_output(args.json)
    _, labels = load_train(data.train_file, args.tasks, data.space)
    there = {name for name in METHODS if name not in NEEDS or importlib.util.find_spec(NEEDS[name])}
    methods = [name for name in args.methods or METHODS if name in there]
    shape = len(args.labels), len(labels), args.seeds
    found = {name: np.zeros((1 + (name in NEEDS), *shape)) for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
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
    versions = {name: version(name) for name in PACKAGES.values() if importlib.util.find_spec(name.replace("-", "_"))}
    fits = len(args.labels) * len(labels) * args.seeds
    print(f"{data.space.name}, {', '.join(labels)}; seconds a fit and ranking:", end=" ")
    print(
        ", ".join(f"{name} {each / fits:.2f}" for name, each in seconds.items()), "; torch", torch.__version__, versions
    )
    if args.json:
        content = {"labels": args.labels, "tau": {name: taus.tolist() for name, taus in found.items()}}
        write_file(args.json, json.dumps(content).encode())


if __name__ == "__main__":
    cli.run(main)
