"""Cross-validate recipes: Kendall's tau of each on architectures held out from a file with known ranks.

    python tools/crossval.py                                       every recipe, the five folds of seed 0
    python tools/crossval.py --seed 10 --repeats 3 --json taus.json
    python tools/crossval.py --recipes reference gp

With p = numpy.random.RandomState(seed).permutation(n), fold f tests on p[f::5] and trains on the rest, in p's order;
a recipe validates within the rest. Prints the mean tau on the test architectures (NaN counts as 0) over all folds, then
the recipes' paired differences. In brackets the standard error, corrected for the training data that folds share: the
variance over k folds times (1/k + n_test/n_train) (Nadeau and Bengio, 2003, doi:10.1023/A:1024068626366).
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cli
import recipes
import surrogate
from dataset import TRAIN_FILE, encode, load_train
from files import InputError, say, write_file
from folders import check_output, choose_folders
from metrics import kendall_tau
from recipes import RECIPES
from scoring import score
from tasks import find_task
from workers import cores, run_jobs

FOLDS = 5


def split(n, seed):
    """(train, test) indices among n architectures for each fold."""
    p = np.random.RandomState(seed).permutation(n)
    return [(np.delete(p, np.s_[fold::FOLDS]), p[fold::FOLDS]) for fold in range(FOLDS)]


def test_tau(_, recipe, task, architectures, ranks, train, test):
    """Fit a recipe on the architectures `train`; returns Kendall's tau on those of `test`, 0 where it is NaN."""
    content = recipe.fit(task, encode([architectures[i] for i in train]), ranks[train])
    scores = score([recipe.model(content)], [architectures[i] for i in test])
    return kendall_tau(scores, torch.as_tensor(ranks[test])[None]).nan_to_num(0).item()


def cross_validate(architectures, ranks, names, seeds, processes, progress=tqdm):
    """Kendall's tau of each recipe: {name: (seeds, folds, tasks) array}.

    ranks: {task name: (n,) int64}; names: the recipes'; progress: wraps an iterable as tqdm does. Raises InputError
    where a recipe cannot be fitted or its process dies.
    """
    jobs = [
        ((name, s, fold, t), test_tau, (recipes.get(name), find_task(task), architectures, ranks[task], *indices))
        for name in names
        for s, seed in enumerate(seeds)
        for fold, indices in enumerate(split(len(architectures), seed))
        for t, task in enumerate(ranks)
    ]
    taus = {name: np.zeros((len(seeds), FOLDS, len(ranks))) for name in names}
    with contextlib.closing(run_jobs(jobs, processes)) as messages:
        for (name, *index), result in progress(messages, total=len(jobs)):
            if result.error:
                raise InputError(f"{name}: {list(ranks)[index[2]]}: {result.error}")
            taus[name][tuple(index)] = result.value
    return taus


def mean(values):
    """Mean of one value a fold and its corrected standard error, as text."""
    error = (values.var(ddof=1) * (1 / len(values) + 1 / (FOLDS - 1))) ** 0.5
    return f"{values.mean():.4f} ({error:.4f})"


def table(tasks, taus):
    """Taus as Markdown: a row for each task name and their mean, then the differences between the recipes' means."""
    folds = {name: values.reshape(-1, len(tasks)) for name, values in taus.items()}
    rule = "|---" + "|--:" * len(folds) + "|"
    lines = [f"| tau | {' | '.join(folds)} |", rule]
    for i, task in enumerate(tasks):
        lines.append(f"| {task} | {' | '.join(mean(values[:, i]) for values in folds.values())} |")
    lines.append(f"| **mean** | {' | '.join(mean(values.mean(1)) for values in folds.values())} |")
    lines += ["", f"| row less column | {' | '.join(folds)} |", rule]
    for name, row in folds.items():
        cells = (mean((row - column).mean(1)) if row is not column else "" for column in folds.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments():
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="RECIPE", help="only these"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the first permutation (default: 0)")
    parser.add_argument("--repeats", type=cli.positive, default=1, help="permutations, consecutive seeds (default: 1)")
    parser.add_argument("--jobs", type=cli.positive, help="processes (default: the number of cores)")
    parser.add_argument(
        "--json", type=cli.output_file, metavar="FILE", help="write every tau: {recipe: [seed][fold][task]}"
    )
    args = parser.parse_args()
    if args.seed + args.repeats > 2**32:
        parser.error("--repeats: the last seed is above 2**32 - 1")
    return args


def main():
    args = parse_arguments()
    choose_folders(args)
    surrogate.prepare(args.data_path)
    path = Path(args.data_path, TRAIN_FILE)
    if args.json:
        check_output(args.json, surrogate.input_files(args.data_path))
    architectures, ranks = load_train(path, args.tasks, say)
    if len(architectures) < 2 * FOLDS:
        raise InputError(f"{path}: {len(architectures)} architectures: expected at least {2 * FOLDS}")
    seeds = list(range(args.seed, args.seed + args.repeats))
    taus = cross_validate(architectures, ranks, list(dict.fromkeys(args.recipes)), seeds, args.jobs or cores())
    print(table(ranks, taus))
    if args.json:
        content = {"seeds": seeds, "tasks": list(ranks), "tau": {name: t.tolist() for name, t in taus.items()}}
        write_file(args.json, json.dumps(content).encode())


if __name__ == "__main__":
    cli.run(main)
