"""Describe architectures: their decisions, their costs, and how much of the search space each beats.

    python tools/rank.py j211111211211311311121231121221000000 --tasks sop veri
    python tools/rank.py '{"depth": 10, "block 1": "conv"}' --data_path data/own --recipe gp
    python tools/rank.py - --recipe gp --json < architectures.txt      one a line; with 80 % intervals

An architecture is compared with 100,000 sampled ones, each decision uniform, or with all if there are fewer. The
percentage compares predictions. The interval holds the true share with probability 0.8, and need not contain the
percentage; for an architecture that was chosen because its prediction is the best it is too optimistic.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from common.files import InputError, parse_json
from engine.predictors import sample_text, shares_beaten

FEW = 3  # architectures that are described one by one; more are a table


def read(space, arguments):
    """Architecture strings from the command line or, for "-", standard input; raises InputError."""
    keys = [f"architecture {i}" for i in range(1, len(arguments) + 1)]
    if arguments == ["-"]:
        arguments = sys.stdin.buffer.read().decode(errors="replace").splitlines()
        keys = [f"standard input: line {i}" for i in range(1, len(arguments) + 1)]
        if not arguments:
            raise InputError("standard input: is empty: expected one architecture per line")
    found = []
    for key, text in zip(keys, arguments, strict=True):
        found.append(parse_json(text.encode(errors="replace"), key) if text.startswith("{") else text)
    return space.strings(space.parse(found, keys))


def describe(space, predictors, architectures, device):
    """Entries of the JSON for n architectures."""
    shares, costs = shares_beaten(predictors, architectures, device, cli.PROBABILITY), space.measure(architectures)
    entries = []
    for i, architecture in enumerate(architectures):
        entry = {"arch": architecture, "decisions": space.values(architecture)}
        entry |= {name: values[i].item() for name, values in costs.items()} | {"tasks": {}}
        for k, predictor in enumerate(predictors):
            task = entry["tasks"][predictor.task.name] = {"beats": None}
            if not predictor.is_constant:
                task["beats"] = float(shares.beaten[k, i])
                task |= {} if shares.intervals is None else {"interval": shares.intervals[k, i].tolist()}
        entries.append(entry)
    return entries


def text(space, entry):
    """An entry as lines of text."""
    lines = [entry["arch"], f"  {cli.decisions_text(entry['decisions'])}"]
    lines += [f"  {', '.join(f'{name} {cli.short(entry[name])}' for name in space.costs)}"] if space.costs else []
    lines.append(f"  share of {sample_text(space)} that it is predicted to beat")
    if any("interval" in task for task in entry["tasks"].values()):
        lines[-1] += f" ({cli.PROBABILITY:.0%} interval; too narrow if you picked it for its prediction)"
    lines[-1] += ":"
    for name, task in entry["tasks"].items():
        beats = "nothing is known" if task["beats"] is None else f"{100 * task['beats']:7.3f} %"
        ends = "   {:.1f} to {:.1f} %".format(*(100 * end for end in task["interval"])) if "interval" in task else ""
        lines.append(f"    {name:<10}  {beats}{ends}")
    return "\n".join(lines)


def table(space, entries):
    """Many entries as text, the best first, by the mean of the shares that they are predicted to beat."""
    tasks = list(entries[0]["tasks"])
    shares = [[entry["tasks"][task]["beats"] or 0.0 for task in tasks] for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: -sum(shares[i]))
    lines = [f"% of {sample_text(space)} that each is predicted to beat, the best first"]
    lines.append("  ".join([" " * len(entries[0]["arch"]), *(f"{task:>7}" for task in tasks)]))
    for i in order:
        cells = (f"{100 * share:{max(7, len(task))}.3f}" for share, task in zip(shares[i], tasks, strict=True))
        lines.append(f"{entries[i]['arch']}  {'  '.join(cells)}")
    return "\n".join(lines)


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    help = "a string, or an object {decision: choice} as JSON; - reads standard input"
    parser.add_argument("architectures", nargs="*", metavar="ARCH", help=help)
    cli.add_predictors(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_intermixed_args(argv)
    if args.json:
        cli.messages_to_stderr()
    data = cli.open_data(args.data_path)
    while args.tasks and _is_architecture(data.space, args.tasks[-1]):  # rank.py --tasks sop ARCH
        args.architectures.insert(0, args.tasks.pop())
    if not args.architectures:
        raise InputError("expected architectures, or - for standard input")
    architectures = read(data.space, args.architectures)
    entries = describe(data.space, cli.load_predictors(args, data), architectures, args.device)
    if args.json:
        print(json.dumps(entries))
    elif len(entries) > FEW:
        print(table(data.space, entries))
    else:
        print("\n".join(text(data.space, entry) for entry in entries))


def _is_architecture(space, text):
    try:
        return len(space.parse([text])) == 1
    except InputError:
        return False


if __name__ == "__main__":
    cli.run(main)
