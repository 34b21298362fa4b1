"""Propose the architectures to measure next.

    python tools/propose.py --data_path data/own --count 25 --json next.json     random ones to begin with
    python tools/propose.py --data_path data/own --json next.json                then the ten best predicted
    python tools/propose.py --data_path data/own --max params=70e6 --tasks accuracy latency

Measure them, put them with their labels into the folder's train.json, and propose again: in each round the predictor is
fitted to the labels of this moment, and no checkpoint is read or written. --json writes entries whose labels are null;
an entry with null is not measured yet, and not proposed again.

Until 25 architectures are measured, the proposals are random. With several tasks they are the best by the mean of
standardised scores, as in search.py.
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from common.files import InputError, log, read_json, write_json
from dataset import label_fields, read_train
from engine.proposals import RANDOM, propose


def text(space, proposals, tasks):
    """A line for each proposal: string, decisions, costs, and for each task the share that it is predicted to beat."""
    costs, lines = space.measure(proposals.architectures), []
    for i, architecture in enumerate(proposals.architectures):
        parts = [architecture, cli.decisions_text(space.values(architecture))]
        parts += [f"{name} {cli.short(values[i])}" for name, values in costs.items()]
        shares = proposals.shares
        for k, share in enumerate(shares.beaten[:, i] if shares else ()):
            name = f"{tasks[k]}: " if len(tasks) > 1 else ""
            ends = "" if shares.intervals is None else " ({:.1f} to {:.1f} %)".format(*100 * shares.intervals[k, i])
            parts.append(f"{name}beats {100 * share:.2f} %{ends}")
        lines.append("  ".join(parts))
    return "\n".join(lines)


def check_labels(path, train_file, entries):
    """Raise InputError where the file of earlier proposals holds labels of architectures that are not in `entries`."""
    known, content = [entry["arch"] for entry in entries.values()], read_json(path)
    for entry in content.values() if isinstance(content, dict) else ():
        labels = {key: value for key, value in entry.items() if key != "arch"} if isinstance(entry, dict) else {}
        if any(value is not None for value in labels.values()) and entry.get("arch") not in known:
            raise InputError(f"{path}: holds labels that {train_file} lacks: add them first, or choose another name")


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    cli.add_recipe(parser, "gp")
    cli.add_budgets(parser)
    parser.add_argument("--count", type=cli.positive, default=10, metavar="N", help="how many (default: 10)")
    help = f"labels from which predictions choose (default: {RANDOM})"
    parser.add_argument("--random", type=cli.positive, default=RANDOM, metavar="N", help=help)
    cli.add_seed(parser, "the random ones")
    help = "time limit of the search, unproven after it (default: 60)"
    parser.add_argument("--seconds", type=cli.positive, default=60, metavar="N", help=help)
    cli.add_json(parser, "write entries that are ready to get labels")
    args = parser.parse_args(argv)
    data = cli.open_data(args.data_path)
    limits = cli.checked_budgets(args, data.space)
    if args.json:
        data.check_output(args.json)
    entries, all_fields = {}, {name: f"{name}_accuracy" for name in args.tasks or ["own"]}
    fields = all_fields
    if data.train_file.exists():
        entries, fields, _ = read_train(data.train_file, args.tasks, data.space)
        all_fields = label_fields(data.train_file, entries)
    if args.json and Path(args.json).exists():
        check_labels(args.json, data.train_file, entries)
    proposals = propose(
        data,
        args.count,
        tasks=args.tasks,
        recipe=args.recipe,
        limits=limits,
        random=args.random,
        seed=args.seed,
        seconds=args.seconds,
    )
    log.info(f"{len(proposals.architectures)} proposals: {proposals.reason}")
    if proposals.architectures:
        print(text(data.space, proposals, list(fields)))
    if args.json:
        names = (f"arch{i}" for i in itertools.count(len(entries) + 1) if f"arch{i}" not in entries)
        nothing = dict.fromkeys(all_fields.values())
        content = {next(names): {"arch": arch, **nothing} for arch in proposals.architectures}
        write_json(args.json, content, indent=1)
        log.info(f"{args.json}: written; replace null by the labels, and add the entries to {data.train_file}")


if __name__ == "__main__":
    cli.run(main)
