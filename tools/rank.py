"""Architectures in real units, and how much of the search space each beats by prediction.

    python tools/rank.py j211111211211311311121231121221000000 --tasks sop veri
    python tools/rank.py - --recipe gp --json < strings.txt        one string a line; with 80 % intervals

The space is 100,000 sampled architectures: depth uniform, then each choice uniform. A layer is written as heads/MLP
ratio. The percentage compares predictions. The interval holds the true share with probability 0.8, and need not contain
the percentage.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

import contextlib
import json

import numpy as np
import torch

import cli
from dataset import columns
from files import InputError
from predictors import SAMPLED, load_predictors, shares_beaten
from recipes import PROBABILITY
from space import choices, layers_text, measure


def read(arguments):
    """Architecture strings from the command line or, for "-", standard input; raises DataError, InputError."""
    if arguments == ["-"]:
        arguments = sys.stdin.buffer.read().decode(errors="replace").splitlines()
        keys = [f"standard input: line {i}" for i in range(1, len(arguments) + 1)]
        if not arguments:
            raise InputError("standard input: is empty: expected one architecture string per line")
    else:
        keys = [f"architecture {i}" for i in range(1, len(arguments) + 1)]
    columns(arguments, keys)
    return arguments


def intervals(recipe, loaded, scores, largest):
    """Intervals of the shares that n architectures truly beat on each of k tasks: (k, n, 2); scores: (k, n)."""
    ends = []
    for each, row in zip(loaded, scores, strict=True):
        low, high = recipe.rank_interval(each.content, torch.from_numpy(row), SAMPLED, PROBABILITY)
        # Of the sampled ones, a true rank r has r before it and the rest after it.
        smaller = np.stack([low, high + 1], 1) / SAMPLED
        ends.append(smaller if largest else 1 - smaller[:, ::-1])
    return np.stack(ends)


def main():
    parser = cli.Parser(description=__doc__)
    parser.add_argument("architectures", nargs="+", metavar="ARCH", help="37 characters each; - reads standard input")
    cli.add_predictors(parser)
    cli.add_recipe(parser)
    cli.add_largest(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    architectures = read(args.architectures)
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        recipe, loaded = load_predictors(args)
    models = [each.model for each in loaded]
    scores, shares = shares_beaten(models, architectures, args.device, args.largest)
    ends = intervals(recipe, loaded, scores, args.largest) if recipe.rank_interval else None
    measured, chosen, answers = measure(architectures), choices(architectures), []
    for i, architecture in enumerate(architectures):
        layers = int(measured.layers[i])
        tasks = {task.name: {"beats": float(shares[k, i])} for k, task in enumerate(args.tasks)}
        for k, task in enumerate(args.tasks if recipe.rank_interval else ()):
            tasks[task.name]["interval"] = ends[k, i].tolist()
        answers.append(
            {
                "arch": architecture,
                "heads": measured.heads[i, :layers].tolist(),
                "mlp_ratios": measured.mlp_ratios[i, :layers].tolist(),
                "params": int(measured.parameters[i]),
                "macs": int(measured.macs[i]),
                "tasks": tasks,
            }
        )
    if args.json:
        print(json.dumps(answers))
        return
    for answer, layers in zip(answers, map(layers_text, chosen), strict=True):
        print(f"{answer['arch']}\n  {len(answer['heads'])} layers, heads/MLP ratio: {layers}")
        print(f"  {answer['params'] / 1e6:.2f} M parameters, {answer['macs'] / 1e9:.2f} G multiply-accumulates")
        print(f"  beats of {SAMPLED:,} sampled architectures, by prediction:")
        for name, task in answer["tasks"].items():
            interval = "   {:.1f} to {:.1f} % with probability {}".format(
                *(100 * end for end in task.get("interval", (0, 0))), PROBABILITY
            )
            print(f"    {name:<10}  {100 * task['beats']:7.3f} %{interval if 'interval' in task else ''}")


if __name__ == "__main__":
    cli.run(main)
