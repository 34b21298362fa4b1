"""Cross-validate recipes: Kendall's tau of each on architectures held out from a file with known ranks.

    python tools/crossval.py                                       every recipe, the five folds of seed 0
    python tools/crossval.py --seed 10 --repeats 3 --json taus.json
    python tools/crossval.py --recipes reference gp
    python tools/crossval.py --sizes 50 100 200 400                how many measurements does it take?

With p = numpy.random.RandomState(seed).permutation(n), fold f tests on p[f::5] and trains on the rest, in p's order,
with --sizes on its first N; a recipe validates within these. Prints the mean tau on the test architectures (NaN counts
as 0) over all folds, then the recipes' paired differences. In brackets the standard error, corrected for the training
data that folds share (common/metrics.py).
"""

import contextlib
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tqdm import tqdm

import cli
import recipes
from common.files import InputError, log, write_json
from common.metrics import kendall_tau, markdown, standard_error
from common.processes import cores, run_jobs
from dataset import load_train
from engine.model import score
from engine.trained import fit_labels
from recipes import RECIPES
from recipes.base import TooFewError
from tasks import find_task

FOLDS = 5


def split(n, seed):
    """(train, test) indices among n architectures for each fold."""
    p = np.random.RandomState(seed).permutation(n)
    return [(np.delete(p, np.s_[fold::FOLDS]), p[fold::FOLDS]) for fold in range(FOLDS)]


def fold_tau(_, recipe, task, labels, train, test):
    """Fit a recipe on the labels `train`; returns Kendall's tau on those of `test`, 0 where it is NaN."""
    model = fit_labels(recipe, task, labels.select(train)).model
    scores = score([model], labels.select(test).architectures, names=[recipe.name])
    return kendall_tau(scores, torch.as_tensor(labels.ranks[test])[None]).nan_to_num(0).item()


def cross_validate(labels, space, names, seeds, processes, sizes=(None,), progress=tqdm):
    """Kendall's tau of each recipe: {name: (sizes, seeds, folds, tasks) array}, NaN where a recipe needs more labels.

    labels: {task name: dataset.Labels}; names: the recipes'; sizes: numbers of training architectures, None for all;
    progress: wraps an iterable as tqdm does. Raises InputError where a recipe cannot be fitted or its process dies.
    """
    tasks, jobs = [find_task(name) for name in labels], []
    folds = [[split(len(of_task.ranks), seed) for of_task in labels.values()] for seed in seeds]
    for name, (i, size) in itertools.product(names, enumerate(sizes)):
        recipe = recipes.get(name, space)
        if too_few(recipe, tasks, size or min(len(of_task[0][0]) for of_task in folds[0])):
            continue
        for s, fold, t in np.ndindex(len(seeds), FOLDS, len(tasks)):
            train, test = folds[s][t][fold]
            arguments = recipe, tasks[t], labels[tasks[t].name], train[:size], test
            jobs.append(((name, i, s, fold, t), fold_tau, arguments))
    taus = {name: np.full((len(sizes), len(seeds), FOLDS, len(tasks)), np.nan) for name in names}
    with contextlib.closing(run_jobs(jobs, processes)) as messages:
        for (name, *index), result in progress(messages, total=len(jobs)):
            if result.error:
                raise InputError(f"{name}: {tasks[index[-1]].name}: {result.error}")
            taus[name][tuple(index)] = result.value
    return taus


def too_few(recipe, tasks, n):
    """Why a recipe cannot learn the tasks from n architectures, or None."""
    for task in tasks:
        try:
            recipe.train_steps(task, n)
        except TooFewError as error:
            return error
    return None


def mean(values, test_share=1 / (FOLDS - 1)):
    """Mean of one value a fold and its corrected standard error, as text. test_share: n_test / n_train."""
    if np.isnan(values).any():
        return "-"
    return f"{values.mean():.4f} ({standard_error(values, test_share):.4f})"


def table(tasks, taus):
    """Taus as Markdown: a row for each task name and their mean, then the differences between the recipes' means.

    taus: {recipe: (seeds, folds, tasks) array}.
    """
    folds = {name: values.reshape(-1, len(tasks)) for name, values in taus.items()}
    rows = list(folds.values())

    def of_task(t, values):
        return mean(values[:, t] if t < len(tasks) else values.mean(1))

    def difference(i, column):
        return mean((rows[i] - column).mean(1)) if rows[i] is not column else ""

    first = markdown("tau", [*tasks, "**mean**"], folds, of_task, "---")
    return f"{first}\n\n{markdown('row minus column', folds, folds, difference, '---')}"


def table_by_size(sizes, n, taus):
    """Mean taus of all tasks as Markdown, a row for each size. taus: {recipe: (sizes, seeds, folds, tasks) array}."""

    def cell(i, values):
        return mean(values[i].mean(-1).ravel(), n / FOLDS / sizes[i])

    return markdown("labels", sizes, taus, cell)


def parse_arguments(argv):
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    help = "only these (default: all that can train on so few)"
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, metavar="RECIPE", help=help)
    help = "train each fold on its first N architectures only, for each N"
    parser.add_argument("--sizes", nargs="+", type=cli.positive, metavar="N", help=help)
    cli.add_seed(parser, "the first permutation")
    parser.add_argument("--repeats", type=cli.positive, default=1, help="permutations, consecutive seeds (default: 1)")
    cli.add_jobs(parser, "processes")
    cli.add_json(
        parser, "write every tau: {recipe: [seed][fold][task]}, with --sizes {recipe: [size][seed][fold][task]}"
    )
    args = parser.parse_args(argv)
    if args.seed + args.repeats > 2**32:
        parser.error("--repeats: the last seed is above 2**32 - 1")
    return args


def choose(path, labels, tasks, given, sizes, space):
    """Recipes that can train on the labels; raises InputError where they are too few for the folds or `given`."""
    counts = {name: len(of_task.ranks) for name, of_task in labels.items()}
    fewest = min(counts, key=counts.get)
    n = counts[fewest]
    trained = n - -(-n // FOLDS)
    if n < 2 * FOLDS:
        rest = " ".join(name for name, count in counts.items() if count >= 2 * FOLDS)
        hint = f": leave it out: --tasks {rest}" if rest else ""
        raise InputError(f"{path}: {n} architectures are labelled for {fewest}: expected at least {2 * FOLDS}{hint}")
    if sizes and not 2 <= sizes[0] <= sizes[-1] <= trained:
        raise InputError(f"--sizes: expected numbers from 2 to {trained}, which a fold of {n} architectures trains on")
    names, errors = dict.fromkeys(given or RECIPES), {}
    for name in () if sizes else names:
        if error := too_few(recipes.get(name, space), tasks, trained):
            errors[name] = error
    for name, error in errors.items():
        if given:
            able = " ".join(name for name in RECIPES if name not in errors)
            raise InputError(f"{error}; leave {', '.join(errors)} out: --recipes {able}")
        log.info(f"without {name}: {error}")
    return [name for name in names if name not in errors]


def main(argv=None):
    args = parse_arguments(argv)
    data = cli.open_data(args.data_path)
    if args.json:
        data.check_output(args.json)
    _, labels = load_train(data.train_file, args.tasks, data.space)
    n = min(len(of_task.ranks) for of_task in labels.values())
    tasks, sizes = [find_task(name) for name in labels], sorted(set(args.sizes or ()))
    names = choose(data.train_file, labels, tasks, args.recipes, sizes, data.space)
    content = {"seeds": list(range(args.seed, args.seed + args.repeats)), "tasks": list(labels)}
    taus = cross_validate(labels, data.space, names, content["seeds"], args.jobs or cores(), sizes or [None])
    if sizes:
        print(table_by_size(sizes, n, taus))
        for name, size in itertools.product(names, sizes):
            if error := too_few(recipes.get(name, data.space), tasks, size):
                print(f"- {name} cannot train on {size}: {error}")
        content |= {"sizes": sizes, "test_architectures": n / FOLDS}
    else:
        taus = {name: values[0] for name, values in taus.items()}
        print(table(labels, taus))
    if args.json:
        content["tau"] = {name: np.where(np.isnan(values), None, values).tolist() for name, values in taus.items()}
        write_json(args.json, content)


if __name__ == "__main__":
    cli.run(main)
