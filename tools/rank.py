"""Describe architectures: their layers in real units, their size, and how much of the search space each beats.

    python tools/rank.py j211111211211311311121231121221000000 --tasks sop veri
    python tools/rank.py - --recipe gp --json < strings.txt        one string a line; with 80 % intervals

The space is 100,000 sampled architectures: depth uniform, then each layer uniform. A layer is written as heads/MLP
ratio. The percentage compares predictions. The interval holds the true share with probability 0.8, and need not contain
the percentage; for an architecture that was chosen because its prediction is the best it is too optimistic.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from common.files import InputError
from engine.predictors import SAMPLED, shares_beaten, shares_intervals
from space import columns, measure


def read(arguments):
    """Architecture strings from the command line or, for "-", standard input; raises InputError."""
    if arguments == ["-"]:
        arguments = sys.stdin.buffer.read().decode(errors="replace").splitlines()
        keys = [f"standard input: line {i}" for i in range(1, len(arguments) + 1)]
        if not arguments:
            raise InputError("standard input: is empty: expected one architecture string per line")
    else:
        keys = [f"architecture {i}" for i in range(1, len(arguments) + 1)]
    columns(arguments, keys)
    return arguments


def describe(predictors, architectures, device):
    """Entries of the JSON for n architectures."""
    scores, shares = shares_beaten(predictors, architectures, device)
    has_intervals = predictors[0].recipe.rank_interval is not None
    intervals = shares_intervals(predictors, scores, cli.PROBABILITY) if has_intervals else None
    measured, entries = measure(architectures), []
    for i, architecture in enumerate(architectures):
        layers = measured.layers[i]
        entry = {
            "arch": architecture,
            "heads": measured.heads[i, :layers].tolist(),
            "mlp_ratios": measured.mlp_ratios[i, :layers].tolist(),
            "params": int(measured.parameters[i]),
            "macs": int(measured.macs[i]),
            "tasks": {},
        }
        for k, predictor in enumerate(predictors):
            entry["tasks"][predictor.task.name] = {"beats": None if predictor.is_constant else float(shares[k, i])}
            if has_intervals and not predictor.is_constant:
                entry["tasks"][predictor.task.name]["interval"] = intervals[k, i].tolist()
        entries.append(entry)
    return entries


def text(entry, layers):
    """An entry as lines of text; layers: the text of its layers."""
    has_intervals = any("interval" in task for task in entry["tasks"].values())
    intervals = "; the interval of the true share is too narrow for the best of many" if has_intervals else ""
    lines = [
        f"{entry['arch']}\n  {len(entry['heads'])} layers, heads/MLP ratio: {layers}",
        f"  {entry['params'] / 1e6:.2f} M parameters, {entry['macs'] / 1e9:.2f} G multiply-accumulates",
        f"  beats of {SAMPLED:,} sampled architectures, by prediction{intervals}:",
    ]
    for name, task in entry["tasks"].items():
        beats = "nothing is known" if task["beats"] is None else f"{100 * task['beats']:7.3f} %"
        lines.append(f"    {name:<10}  {beats}")
        if "interval" in task:
            low, high = task["interval"]
            lines[-1] += f"   {100 * low:.1f} to {100 * high:.1f} % with probability {cli.PROBABILITY}"
    return "\n".join(lines)


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    parser.add_argument("architectures", nargs="+", metavar="ARCH", help="37 characters each; - reads standard input")
    cli.add_predictors(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.json:
        cli.messages_to_stderr()
    architectures = read(args.architectures)
    predictors = cli.load_predictors(args, cli.open_data(args.data_path))
    entries = describe(predictors, architectures, args.device)
    if args.json:
        print(json.dumps(entries))
        return
    measured = measure(architectures)
    for i, entry in enumerate(entries):
        print(text(entry, measured.layers_text(i)))


if __name__ == "__main__":
    cli.run(main)
