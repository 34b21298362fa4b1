"""Cross-validate the recipes: how well each ranks architectures that it never saw, on a file with known ranks.

    python tools/crossval.py                                       every recipe, the five folds of seed 0
    python tools/crossval.py --seed 10 --repeats 3 --json taus.json
    python tools/crossval.py --recipes reference ensemble

With p = numpy.random.RandomState(seed).permutation(n), fold f tests on p[f::5] and trains on the rest, in p's order;
what a recipe chooses, it chooses among the rest. Prints Kendall's tau on the test architectures (NaN counts as 0), the
mean over all folds, then the recipes' paired differences; in brackets the standard error over the folds.

    reference   the reference's procedure: each task's settings, its snapshot by place from the best on validation
    best        the same training, the best snapshot on validation
    average     the same training, the mean rank by the 20 best snapshots on validation
    ridge       ridge regression of the ranks' normal quantiles on the one-hot choices
    process     the ensemble's Gaussian process alone
    members     the ensemble's predictors alone
    ensemble    what main.py --recipe ensemble trains
"""

import json
import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
from tasks import ENSEMBLE, TASKS

FOLDS, AVERAGED = 5, 20


def snapshots(place, encodings, ranks, architectures):
    """What the reference's training of TASKS[place] makes of n `architectures`: {recipe: (n,) scores}."""
    import numpy as np

    from metrics import ranks as ranks_of
    from scoring import score
    from training import train

    run = train(TASKS[place], encodings, ranks)
    scores = score([snapshot.state_dict for snapshot in run.snapshots], architectures)
    average = np.mean([ranks_of(row) for row in scores[-AVERAGED:]], axis=0)
    return {"reference": scores[run.index], "best": scores[-1], "average": average}


def ridge(place, encodings, ranks, architectures):
    """What ridge regression makes of n `architectures`: {"ridge": (n,) scores}."""
    from dataset import encode
    from gaussian_process import quantiles
    from tools.surrogate import ridge

    # Without the last column, the embedding: it is no choice.
    rest, test = (part[:, :, :-1].flatten(1).double().numpy() for part in (encodings, encode(architectures)))
    predict, _ = ridge(rest, quantiles(ranks).numpy())
    return {"ridge": predict(test)}


def ensembles(place, encodings, ranks, architectures):
    """What the ensemble of ENSEMBLE[place] and its parts make of n `architectures`: {recipe: (n,) scores}."""
    import ensemble

    (opinion,) = ensemble.opinions([ensemble.train(ENSEMBLE[place], encodings, ranks)], architectures)
    members = opinion[1:].mean(0) if len(opinion) > 1 else opinion[0]
    return {"process": opinion[0], "members": members, "ensemble": ensemble.combine(opinion)}


# By training, the recipes that come of it.
TRAININGS = {
    snapshots: ("reference", "best", "average"),
    ridge: ("ridge",),
    ensembles: ("process", "members", "ensemble"),
}


def splits(n, seed):
    """(rest, test) for each fold: positions among n architectures."""
    import numpy as np

    p = np.random.RandomState(seed).permutation(n)
    return [(np.delete(p, np.s_[fold::FOLDS]), p[fold::FOLDS]) for fold in range(FOLDS)]


def evaluate(job):
    """Run a training on a fold of a task; returns the job's place in the results and {recipe: tau}."""
    import torch

    from dataset import encode
    from metrics import kendall_tau

    training, seed, fold, place, architectures, ranks = job
    torch.set_num_threads(1)
    rest, test = splits(len(architectures), seed)[fold]
    scores = training(place, encode([architectures[i] for i in rest]), ranks[rest], [architectures[i] for i in test])
    true = torch.as_tensor(ranks[test])[None]
    taus = {name: kendall_tau(torch.as_tensor(row)[None], true).nan_to_num(0).item() for name, row in scores.items()}
    return (seed, fold, place), taus


def end_with_ctrl_c():
    """In a worker: end at Ctrl-C at once and without a word; what there is to say, its parent says."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def cross_validate(architectures, ranks, tasks, recipes, seeds, jobs, progress):
    """{recipe: (seeds, folds, tasks) array of Kendall's tau}. progress: wraps an iterable as tqdm.tqdm does.

    Raises what a training does, and ChildProcessError where a worker dies.
    """
    import numpy as np

    places = [TASKS.index(task) for task in tasks]
    queue = [
        (training, seed, fold, place, architectures, ranks[TASKS[place].name])
        for training, made in TRAININGS.items()
        if set(made) & set(recipes)
        for seed in seeds
        for fold in range(FOLDS)
        for place in places
    ]
    taus = {recipe: np.zeros((len(seeds), FOLDS, len(places))) for recipe in recipes}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), end_with_ctrl_c) as pool:
        try:
            # Ctrl-C reaches the workers, too: not before they are ready to end with it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            futures = [pool.submit(evaluate, job) for job in queue]
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for future in progress(as_completed(futures), total=len(queue)):
                (seed, fold, place), found = future.result()
                for recipe in set(found) & set(recipes):
                    taus[recipe][seeds.index(seed), fold, places.index(place)] = found[recipe]
        except BrokenProcessPool:
            raise ChildProcessError("a worker process died") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return taus


def mean(values):
    """The mean of one value a fold and its standard error, as text."""
    return f"{values.mean():.4f} ({values.std(ddof=1) / len(values) ** 0.5:.4f})"


def table(tasks, taus):
    """The taus as Markdown: a row a task and their mean, then the differences between the recipes' means."""
    folds = {recipe: values.reshape(-1, len(tasks)) for recipe, values in taus.items()}
    rule = "|---" + "|--:" * len(folds) + "|"
    lines = [f"| tau | {' | '.join(folds)} |", rule]
    for i, task in enumerate(tasks):
        lines.append(f"| {task.name} | {' | '.join(mean(values[:, i]) for values in folds.values())} |")
    lines.append(f"| **mean** | {' | '.join(mean(values.mean(1)) for values in folds.values())} |")
    lines += ["", f"| row less column | {' | '.join(folds)} |", rule]
    for name, row in folds.items():
        cells = (mean((row - column).mean(1)) if row is not column else "" for column in folds.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse_arguments(argv=None):
    names = [name for made in TRAININGS.values() for name in made]
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="RECIPE", help="only these")
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the first permutation (default: 0)")
    parser.add_argument("--repeats", type=cli.positive, default=1, help="permutations, seeds in a row (default: 1)")
    parser.add_argument("--jobs", type=cli.positive, help="processes (default: the cores)")
    parser.add_argument(
        "--json", type=cli.output_file, metavar="FILE", help="write every tau: {recipe: [seed][fold][task]}"
    )
    args = parser.parse_args(argv)
    if args.seed + args.repeats > 2**32:
        parser.error("--repeats: the last seed is above 2**32 - 1")
    return args


def main():
    args = parse_arguments()
    # Imported only now, so that --help does not wait for torch; and here, so that the forked workers share it.
    from tqdm import tqdm

    import checkpoint
    import gaussian_process  # noqa: F401
    from dataset import TRAIN_FILE, load_train

    cli.choose_folders(args)
    if args.json:
        cli.make_folder(args.json.parent)
    architectures, ranks = load_train(Path(args.data_path, TRAIN_FILE))
    seeds = list(range(args.seed, args.seed + args.repeats))
    jobs = args.jobs or cli.cores()
    taus = cross_validate(architectures, ranks, args.tasks, args.recipes, seeds, jobs, tqdm)
    print(table(args.tasks, taus))
    if args.json:
        content = {"seeds": seeds, "tasks": [task.name for task in args.tasks]}
        content["tau"] = {recipe: values.tolist() for recipe, values in taus.items()}
        checkpoint.write_whole(args.json, json.dumps(content).encode())


if __name__ == "__main__":
    cli.run(main)
