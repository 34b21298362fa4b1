"""Search all 317,297,380,491 architectures for the best by the predictors, and prove that there are no better ones.

    python tools/search.py --tasks sop                     the ten best, in seconds
    python tools/search.py --tasks sop veri --max_params 70000000 --json best.json
    python tools/search.py --tasks veri --pareto           the best for every number of parameters, in a minute

Lower scores are better, with --largest higher ones. With several tasks the score is the mean of their standardised
scores: less their mean, divided by their standard deviation, over the same 10,000 sampled architectures. A layer is
written as heads/MLP ratio. Ctrl-C prints the best found so far, and by how much others may be better.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

import json
import math
import time

import numpy as np
import surrogate
from evolution import evolve
from files import InputError, say, write_file
from folders import check_output
from predictors import SAMPLED, load_predictors, shares_beaten
from scoring import Model, score
from tqdm import tqdm

import cli
import search
from dataset import sample_architectures
from space import NUM_ARCHITECTURES, check_budgets, choices, layers_text, measure

STANDARDISED = 10_000  # sampled architectures that give a task's mean and standard deviation


def standardise(models, device="cpu"):
    """Means and standard deviations of k models' scores over sampled architectures: two (k,) float64 arrays.

    The deviation of a constant model counts as 1.
    """
    scores = score(models, sample_architectures(STANDARDISED, seed=0), device).double().numpy()
    std = scores.std(1)
    return scores.mean(1), np.where(std > 0, std, 1)


def combine(models, means, stds):
    """The mean of k Models' standardised scores: (Model, the constant to add to its scores)."""
    scale = [float(1 / (len(models) * std)) for std in stds]
    pairs = list(zip(scale, models, strict=True))
    weights = [factor * weight for factor, model in pairs for weight in model.weights]
    networks = [network for model in models for network in model.networks]
    matrix = sum(factor * model.matrix for factor, model in pairs)
    return Model(matrix, networks, weights), -float(np.mean(means / stds))


def entries(architectures, scores):
    """Entries of the JSON for n architectures, in their order."""
    measured = measure(architectures)
    rows = zip(architectures, scores.tolist(), measured.parameters.tolist(), measured.macs.tolist(), strict=True)
    return [dict(zip(("arch", "score", "params", "macs"), row, strict=True)) for row in rows]


def table(tasks, rows, shares, layers=True):
    """Numbered entries as text; shares: (tasks, n); layers: add a line with the layers in real units to each."""
    widths = [max(len(task.name), 7) for task in tasks]
    names = "".join(f"  {task.name:>{width}}" for task, width in zip(tasks, widths, strict=True))
    caption = f"task columns: % of {SAMPLED:,} sampled architectures that it beats, by prediction"
    lines = [caption, f"   #      score  M params  G MACs{names}"]
    chosen = choices([row["arch"] for row in rows]) if rows else []
    for i, (row, layer) in enumerate(zip(rows, chosen, strict=True)):
        beaten = "".join(f"  {100 * share:{width}.3f}" for share, width in zip(shares[:, i], widths, strict=True))
        size = f"{row['params'] / 1e6:8.2f}  {row['macs'] / 1e9:6.2f}"
        lines.append(f"{i + 1:>4}  {row['score']:9.4f}  {size}{beaten}" + ("" if layers else f"   {row['arch']}"))
        if layers:
            lines.append(f"      {row['arch']}  {layers_text(layer)}")
    return "\n".join(lines)


def account(found, seconds):
    """Text: how many architectures were ruled out, by what, and what is proven."""
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (found.bounded, "ruled out by a bound"),
            (found.over_budget, "by the budget" if found.bounded else "ruled out by the budget"),
            (found.scored, "scored one by one"),
            (found.left, "left"),
        )
        if number
    ]
    if not found.left:
        proven = "there are no better ones"
    elif not found.interrupted:
        proven = "nothing is proven: this recipe's model is not a scoring.Model, so regularized evolution searched"
    elif math.isinf(found.gap):
        proven = "interrupted, nothing is proven"
    else:
        proven = f"interrupted: no architecture's score beats the first by more than {found.gap:.4f}"
    return f"of {NUM_ARCHITECTURES:,} architectures {', '.join(parts)}, in {seconds:.1f} seconds\n{proven}"


def parse_arguments():
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    cli.add_recipe(parser)
    parser.add_argument("--top", type=cli.top, default=10, metavar="K", help="how many of the best (default: 10)")
    parser.add_argument("--max_params", type=cli.positive, metavar="N", help="only with at most N parameters")
    parser.add_argument("--max_macs", type=cli.positive, metavar="N", help="only with at most N multiply-accumulates")
    cli.add_largest(parser)
    parser.add_argument("--pareto", action="store_true", help="also the best score for every number of parameters")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the architectures to this file")
    return parser.parse_args()


def main():
    args = parse_arguments()
    check_budgets(args.max_params, args.max_macs)
    _, loaded = load_predictors(args)
    if args.json:
        check_output(args.json, [*surrogate.input_files(args.data_path), *(each.path for each in loaded)])
    models = [each.model for each in loaded]
    bounded = all(isinstance(model, Model) for model in models)
    if args.pareto and not bounded:
        raise InputError(f"--pareto: no bound is known for the recipe {args.recipe}: its model is not a scoring.Model")
    means, stds = standardise(models, args.device) if len(models) > 1 else (np.zeros(1), np.ones(1))
    budgets = {"max_params": args.max_params, "max_macs": args.max_macs, "largest": args.largest}
    by = f"the mean of {len(models)} tasks, standardised" if len(models) > 1 else args.tasks[0].name
    print(f"searching for the best by {by}, recipe {args.recipe}", flush=True)
    start = time.perf_counter()
    form = {"bar_format": "{percentage:3.0f}%|{bar}| {elapsed}{postfix}", "leave": False, "miniters": 0}
    with tqdm(total=1.0, disable=None, **form) as bar:

        def progress(share, best=math.nan, bound=math.nan):
            numbers = (("best", best + offset), ("best possible", bound + offset))
            known = [f"{name} {value:.4f}" for name, value in numbers if math.isfinite(value)]
            bar.set_postfix_str(", ".join(known), refresh=False)
            bar.update(share - bar.n)

        if bounded:
            model, offset = combine(models, means, stds)
            found = search.best(model, args.top, progress=progress, **budgets)
        else:
            offset = 0.0

            def mean_score(names):
                return ((score(models, names, args.device).double().numpy() - means[:, None]) / stds[:, None]).mean(0)

            found = evolve(mean_score, top=args.top, progress=progress, **budgets)
        seconds = time.perf_counter() - start
        front, front_scores, complete = [], np.empty(0), not found.interrupted
        if args.pareto and complete:
            bar.reset()
            limits = {"max_macs": args.max_macs, "max_params": args.max_params}
            front, front_scores, complete = search.pareto(model, largest=args.largest, progress=progress, **limits)
    best, pareto = entries(found.architectures, found.scores + offset), entries(front, front_scores + offset)
    _, shares = shares_beaten(models, [*found.architectures, *front], args.device, args.largest)
    print(table(args.tasks, best, shares[:, : len(best)]))
    print(account(found, seconds))
    if front:
        print(f"\nbest score for every number of parameters{'' if complete else ', up to where it was interrupted'}")
        print(table(args.tasks, pareto, shares[:, len(best) :], layers=False))
    if args.pareto and not (front or complete):
        print("best score for every number of parameters: interrupted")
    if not complete:
        if args.json:
            say(f"{args.json}: not written")
        return 130
    if args.json:
        content = {"tasks": [task.name for task in args.tasks], "recipe": args.recipe}
        content |= {"largest": args.largest, "proven": bounded, "architectures": best}
        write_file(args.json, json.dumps(content | ({"pareto": pareto} if args.pareto else {}), indent=1).encode())


if __name__ == "__main__":
    cli.run(main)
