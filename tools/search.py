"""Search all 317,297,380,491 architectures for the best by the predictors, and prove that no prediction is better.

    python tools/search.py --tasks sop                     the ten best, in seconds
    python tools/search.py --tasks sop veri --max_params 70000000 --json best.json
    python tools/search.py --tasks veri --pareto           the best for every number of parameters

Lower scores are better. With several tasks the score is the mean of their standardised scores: less their mean, divided
by their standard deviation, over the same 10,000 sampled architectures. A layer is written as heads/MLP ratio.

The proof is about predicted scores. What wins a search partly wins by the errors of its prediction: measure it before
you trust it. Ctrl-C prints the best found so far, and by how much others may be better.
"""

import contextlib
import json
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

import cli
from common.files import InputError, write_file
from engine.model import combine, score
from engine.predictors import SAMPLED, shares_beaten
from recipes.base import Model
from search.evolution import evolve
from search.exact import best, pareto
from space import NUM_ARCHITECTURES, budgets, measure


def entries(architectures, scores):
    """Entries of the JSON for n architectures, in their order."""
    measured = measure(architectures)
    rows = zip(architectures, scores.tolist(), measured.parameters.tolist(), measured.macs.tolist(), strict=True)
    return [dict(zip(("arch", "score", "params", "macs"), row, strict=True)) for row in rows]


def table(names, rows, shares, layers=True):
    """Numbered entries as text; shares: (tasks, n); layers: add a line with the layers in real units to each."""
    widths = [max(len(name), 7) for name in names]
    titles = "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))
    caption = f"score: lower is better; task columns: % of {SAMPLED:,} sampled architectures beaten, by prediction"
    lines = [caption, f"   #      score  M params  G MACs{titles}"]
    measured = measure([row["arch"] for row in rows])
    for i, row in enumerate(rows):
        beaten = "".join(f"  {100 * share:{width}.3f}" for share, width in zip(shares[:, i], widths, strict=True))
        size = f"{row['params'] / 1e6:8.2f}  {row['macs'] / 1e9:6.2f}"
        lines.append(f"{i + 1:>4}  {row['score']:9.4f}  {size}{beaten}" + ("" if layers else f"   {row['arch']}"))
        if layers:
            lines.append(f"      {row['arch']}  {measured.layers_text(i)}")
    return "\n".join(lines)


def account(found, seconds):
    """Text: how many architectures were ruled out, by what, and what is proven."""
    counts = {
        "ruled out by a bound": found.bounded,
        "ruled out by the budget": found.over_budget,
        "scored one by one": found.scored,
        "left": found.left,
    }
    parts = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    if not found.left:
        proven = "no other architecture has a better predicted score"
    elif not found.interrupted:
        proven = "nothing is proven: this recipe's model is a function, so regularized evolution searched"
    elif math.isinf(found.gap):
        proven = "interrupted, nothing is proven"
    else:
        proven = f"interrupted: no architecture's score beats the first by more than {found.gap:.4f}"
    return f"of {NUM_ARCHITECTURES:,} architectures {parts}, in {seconds:.1f} seconds\n{proven}"


def parse_arguments(argv):
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    parser.add_argument("--top", type=cli.top, default=10, metavar="K", help="how many of the best (default: 10)")
    parser.add_argument("--max_params", type=cli.positive, metavar="N", help="only with at most N parameters")
    parser.add_argument("--max_macs", type=cli.positive, metavar="N", help="only with at most N multiply-accumulates")
    parser.add_argument("--pareto", action="store_true", help="also the best score for every number of parameters")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the architectures to this file")
    return parser.parse_args(argv)


def find(model, args):
    """Search for the best architectures and the Pareto front: (SearchResult, ParetoFront or None, seconds)."""
    limits = {"max_params": args.max_params, "max_macs": args.max_macs}
    start = time.perf_counter()
    form = {"bar_format": "{desc}{percentage:3.0f}%|{bar}| {elapsed}{postfix}", "leave": False, "miniters": 0}
    with tqdm(total=1.0, disable=None, **form) as bar:

        def progress(share, best=math.nan, bound=math.nan):
            numbers = (("best", best), ("best possible", bound))
            known = [f"{name} {value:.4f}" for name, value in numbers if math.isfinite(value)]
            bar.set_postfix_str(", ".join(known), refresh=False)
            bar.update(share - bar.n)

        if isinstance(model, Model):
            found = best(model, args.top, progress=progress, **limits)
        else:
            found = evolve(lambda names: score([model], names)[0], top=args.top, progress=progress, **limits)
        seconds, front = time.perf_counter() - start, None
        if args.pareto and not found.interrupted:
            bar.set_postfix_str("", refresh=False)
            bar.set_description_str("for every size ", refresh=False)
            bar.reset()
            with contextlib.suppress(KeyboardInterrupt):
                front = pareto(model, progress=lambda share, *_: progress(share), **limits)
    return found, front, seconds


def main(argv=None):
    args = parse_arguments(argv)
    budgets(args.max_params, args.max_macs)  # before anything is loaded
    data = cli.open_data(args.data_path)
    predictors = cli.load_predictors(args, data)
    if args.json:
        data.check_output(args.json, [predictor.path for predictor in predictors])
    constant = [predictor.task.name for predictor in predictors if predictor.is_constant]
    if constant:
        raise InputError(f"{', '.join(constant)}: one score for all architectures, so none is the best: train again")
    names, model = [predictor.task.name for predictor in predictors], combine([each.model for each in predictors])
    if args.pareto and not isinstance(model, Model):
        raise InputError(f"--pareto: no bound is known for the recipe {args.recipe}: its model is a function")
    by = f"the mean of {len(names)} tasks, standardised" if len(names) > 1 else f"the score of {names[0]}"
    print(f"searching for the best by {by}, recipe {args.recipe}", flush=True)
    found, front, seconds = find(model, args)
    complete = not found.interrupted and (front is not None or not args.pareto)
    ours, others = entries(*found[:2]), entries(*front[:2]) if front else []
    _, shares = shares_beaten(predictors, [row["arch"] for row in (*ours, *others)], args.device)
    print(table(names, ours, shares[:, : len(ours)]))
    print(account(found, seconds))
    if front:
        print("\nbest score for every number of parameters")
        print(table(names, others, shares[:, len(ours) :], layers=False))
    if not complete:
        left = "" if args.json is None else f"; {args.json}: not written"
        print(f"search.py: interrupted{left}", file=sys.stderr)
        return 130
    if args.json:
        content = {"tasks": names, "recipe": args.recipe, "proven": not found.left, "architectures": ours}
        write_file(args.json, json.dumps(content | ({"pareto": others} if front else {}), indent=1).encode())


if __name__ == "__main__":
    cli.run(main)
