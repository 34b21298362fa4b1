"""Turn a public table of trainings into a data folder: space.json, a training file, a test file and the truth.

    python data/benchmarks/convert.py nas-bench-macro_cifar10.json data/macro --labels 50 --seed 5
    python data/benchmarks/convert.py table.json.gz data/mine           of any space: space.json lies beside the table
    python data/benchmarks/convert.py table.json.gz data/whole --labels all       a complete table, for tools/rounds.py

The first table is github.com/xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json. The others hold {"a0": {"arch":
string, "<task>_accuracy": number}, ...}. Of equal networks one is kept: those of one "same_network_as", and those of
NAS-Bench-Macro whose stages have the same blocks but for the places of identities.
"""

import gzip
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

import cli
from common.files import InputError, log, read_file, write_file
from common.paths import make_folder
from dataset import SPACE_FILE
from tasks import OWN_NAMES, TEST_FILE, TRAIN_FILE, TRUTH_FILE

STAGES = (0, 2, 5, 8)  # of NAS-Bench-Macro; the first block of a stage is never an identity in effect


def canonical(blocks):
    """String of the same network of NAS-Bench-Macro that has its identities (0) at the ends of stages."""
    stages = [blocks[start:end] for start, end in itertools.pairwise(STAGES)]
    return "".join(stage[0] + stage[1:].replace("0", "").ljust(len(stage) - 1, "0") for stage in stages)


def read_table(path):
    """(content of space.json, {name: entry with "arch" and accuracies}) of a table, without repeated networks."""
    data = read_file(path)
    try:
        table = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        macro = all(isinstance(entry, dict) and "mean_acc" in entry for entry in table.values())
        if macro:
            table = {
                f"a{i}": {"arch": arch, "cifar10_accuracy": of["mean_acc"], "same_network_as": canonical(arch)}
                for i, (arch, of) in enumerate(table.items())
            }
            blocks = [
                {"type": "categorical", "name": f"block {i}", "choices": ["identity", "MB3_3x3", "MB6_5x5"]}
                for i in range(1, 9)
            ]
            space = json.dumps({"name": "NAS-Bench-Macro", "hyperparameters": blocks}, indent=1).encode()
        else:
            space = read_file(path.parent / SPACE_FILE)
        networks = {entry.get("same_network_as", entry["arch"]): name for name, entry in reversed(table.items())}
        kept = set(networks.values())
        return space, {
            name: {key: value for key, value in entry.items() if key == "arch" or key.endswith("_accuracy")}
            for name, entry in table.items()
            if name in kept
        }
    except (ValueError, KeyError, AttributeError, TypeError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a table that can be read: {error}") from None


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    parser.add_argument("table", type=cli.output_file, metavar="TABLE", help="the public file, or its compact form")
    parser.add_argument("folder", type=cli.folder, metavar="FOLDER", help="data folder to make")
    help = "random architectures in the training file, or all (default: 100)"
    labels = lambda text: None if text == "all" else cli.positive(text)  # noqa: E731
    parser.add_argument("--labels", type=labels, default=100, metavar="N", help=help)
    cli.add_seed(parser, "their choice")
    args = parser.parse_args(argv)
    space, table = read_table(args.table)
    names, count = list(table), args.labels or len(table)
    order = np.random.RandomState(args.seed).permutation(len(names))
    trained, rest = [names[i] for i in order[:count]], [names[i] for i in sorted(order[count:])]
    files = {SPACE_FILE: space, OWN_NAMES[TRAIN_FILE]: {name: table[name] for name in trained}}
    if rest:
        files[OWN_NAMES[TEST_FILE]] = {name: {"arch": table[name]["arch"]} for name in rest}
        files[TRUTH_FILE] = {name: table[name] for name in rest}
    make_folder(args.folder)
    for name in files:
        if Path(args.folder, name).exists():
            raise InputError(f"{Path(args.folder, name)}: is there already: choose another folder")
    for name, content in files.items():
        write_file(Path(args.folder, name), content if name == SPACE_FILE else json.dumps(content).encode())
    log.info(f"{args.folder}: {len(trained)} labelled architectures, {len(rest)} others")


if __name__ == "__main__":
    cli.run(main)
