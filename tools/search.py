"""Search the whole space for the architectures with the best predictions, and prove that no prediction is better.

    python tools/search.py --tasks sop                     the ten best, in seconds
    python tools/search.py --tasks sop veri --max params=70e6 --json best.json
    python tools/search.py --tasks veri --pareto           the best for every value of the first cost
    python tools/search.py --data_path data/own --recipe gp --seconds 600

Lower scores are better. With several tasks the score is the mean of their standardised scores: minus their mean,
divided by their standard deviation, over the same 10,000 sampled architectures.

The proof is about predicted scores. The winner of a search won partly by luck: measure it before you trust it. Ctrl-C
and --seconds end the search with the best found so far, and say by how much others may be better.
"""

import contextlib
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

import cli
from common.files import InputError, log, write_json
from engine.model import combine, score
from engine.predictors import sample_text, shares_beaten
from search.evolution import evolve
from search.exact import best, pareto


def entries(space, architectures, scores):
    """Entries of the JSON for n architectures, in their order."""
    costs = space.measure(architectures)
    return [
        {"arch": architecture, "score": value, **{name: of[i].item() for name, of in costs.items()}}
        for i, (architecture, value) in enumerate(zip(architectures, scores.tolist(), strict=True))
    ]


def table(space, names, rows, shares, decisions=True):
    """Numbered entries as text; shares: (tasks, n); decisions: add a line with each one's decisions."""
    titles = [*(f"{name:>9}" for name in space.costs), *(f"{name:>7}" for name in names)]
    caption = f"score: lower is better; task columns: % of {sample_text(space)} that it is predicted to beat"
    lines = [caption, "  ".join(["   #      score", *titles])]
    for i, row in enumerate(rows):
        cells = [f"{i + 1:>4}  {row['score']:9.4f}", *(f"{cli.short(row[name]):>9}" for name in space.costs)]
        cells += [f"{100 * share:{max(7, len(name))}.3f}" for name, share in zip(names, shares[:, i], strict=True)]
        lines.append("  ".join(cells) + ("" if decisions else f"   {row['arch']}"))
        if decisions:
            lines.append(f"      {row['arch']}  {cli.decisions_text(space.values(row['arch']))}")
    return "\n".join(lines)


def account(space, found, exact, seconds):
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
    elif not exact:
        proven = "nothing is proven: no bound is known for this model, so regularized evolution searched"
    elif math.isinf(found.gap):
        proven = "ended early, nothing is proven"
    else:
        proven = f"ended early: no architecture's score beats the first by more than {found.gap:.4f}"
    return f"of {space.size:,} architectures {parts}, in {seconds:.1f} seconds\n{proven}"


def parse_arguments(argv):
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    parser.add_argument("--top", type=cli.top, default=10, metavar="K", help="how many of the best (default: 10)")
    cli.add_budgets(parser)
    how = {"nargs": "+", "action": "extend", "default": [], "type": cli.weight, "metavar": "TASK=WEIGHT"}
    parser.add_argument("--weight", help="weight of a task in the mean (default: 1); may be repeated", **how)
    parser.add_argument("--pareto", action="store_true", help="also the best score for every value of the first cost")
    help = "time limit, unproven after it (default: 60; none for the competition's space)"
    parser.add_argument("--seconds", type=cli.positive, metavar="N", help=help)
    cli.add_json(parser, "write the architectures to this file")
    return parser.parse_args(argv)


@contextlib.contextmanager
def shown_progress():
    """A bar on a terminal, elsewhere a line every ten seconds: yields progress(share, best, best possible)."""
    form = {"bar_format": "{desc}{percentage:3.0f}%|{bar}| {elapsed}{postfix}", "leave": False, "miniters": 0}
    with tqdm(total=1.0, disable=None, **form) as bar:
        said = time.perf_counter()

        def progress(share, best=math.nan, bound=math.nan):
            nonlocal said
            numbers = (("best", best), ("best possible", bound))
            known = ", ".join(f"{name} {value:.4f}" for name, value in numbers if math.isfinite(value))
            bar.set_postfix_str(known, refresh=False)
            bar.update(share - bar.n)
            if bar.disable and time.perf_counter() > said + 10:
                said = time.perf_counter()
                print(f"searching: {100 * share:.0f} %  {known}", file=sys.stderr, flush=True)

        yield progress


def main(argv=None):
    args = parse_arguments(argv)
    data = cli.open_data(args.data_path)
    space, limits = data.space, cli.checked_budgets(args, data.space)  # before anything is loaded
    predictors = cli.load_predictors(args, data)
    if args.json:
        data.check_output(args.json, [predictor.path for predictor in predictors])
    constant = [predictor.task.name for predictor in predictors if predictor.is_constant]
    if constant:
        raise InputError(f"{', '.join(constant)}: one score for all architectures, so none is the best: train again")
    names, weights = [predictor.task.name for predictor in predictors], dict(args.weight)
    for name in weights.keys() - set(names):
        raise InputError(f"--weight {name}: the tasks are {', '.join(names)}")
    weights = [weights.get(name, 1.0) for name in names]
    if not any(weights):
        raise InputError("--weight: all are 0: expected one above 0")
    model = combine([each.model for each in predictors], weights)
    exact = model.function is None
    if args.pareto and not exact:
        raise InputError(f"--pareto: no bound is known for this model of the recipe {args.recipe}")
    mean = "weighted mean" if len(set(weights)) > 1 else "mean"
    by = f"the {mean} of {len(names)} tasks, standardised" if len(names) > 1 else f"the score of {names[0]}"
    print(f"searching for the best by {by}, recipe {args.recipe}", flush=True)
    seconds = args.seconds or (60 if space.digest else None)
    began, front = time.perf_counter(), None
    with shown_progress() as progress:
        if exact:
            found = best(model, args.top, limits=limits, seconds=seconds, progress=progress)
        else:
            function = lambda names: score([model], names)[0]  # noqa: E731
            found = evolve(space, function, top=args.top, limits=limits, progress=progress)
    took = time.perf_counter() - began
    if not found.architectures and not found.interrupted:
        raise InputError("--max: no architecture is found within all budgets: allow more")
    pressed = found.interrupted and not (exact and seconds and took >= seconds)  # the evolution has no limit
    if args.pareto and not found.interrupted:
        try:
            with shown_progress() as progress:
                front = pareto(model, limits=limits, seconds=seconds, progress=lambda share, *_: progress(share))
        except TimeoutError:
            log.warning(f"no Pareto front within {seconds} seconds: choose more --seconds")
        except KeyboardInterrupt:
            pressed = True
    ours = entries(space, found.architectures, found.scores)
    others = entries(space, *front) if front else []
    shares = shares_beaten(predictors, [row["arch"] for row in (*ours, *others)], args.device).beaten
    print(table(space, names, ours, shares[:, : len(ours)]))
    print(account(space, found, exact, took))
    if front:
        print(f"\nbest score for every value of {next(iter(space.costs))}")
        print(table(space, names, others, shares[:, len(ours) :], decisions=False))
    if args.json and not pressed:
        content = {"tasks": names, "recipe": args.recipe, "proven": not found.left, "architectures": ours}
        write_json(args.json, content | ({"pareto": others} if front else {}), indent=1)
    return 130 if pressed else 0


if __name__ == "__main__":
    cli.run(main)
