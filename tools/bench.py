"""Measure the project's speed against plain implementations of the same method, as ratios.

    python tools/bench.py                          everything, in five to ten minutes
    python tools/bench.py --parts scoring scale    only these parts

Prints Markdown tables on the surrogate benchmark. The two sides of a ratio run in turn, several times; the tables show
medians of the seconds and of the ratios.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import plain
import torch
from scipy.stats import rankdata
from torch.utils.data import DataLoader

import cli
from common.files import InputError
from common.metrics import ranks
from common.processes import cores, one_thread
from data.surrogate import generate
from dataset import ArchPerfDataset, encode, load_entries
from engine.model import score
from engine.predictors import load
from network import Predictor
from search.evolution import evolve
from search.exact import best
from space import columns, sample_architectures
from tasks import TASKS, TEST_FILE

DATA = ROOT / "data" / "surrogate"
OWN = ("--data_path", DATA, "--results_path", "results")  # in a temporary folder
TRAIN = (ROOT / "main.py", *OWN, "--log_path", "logs")
PUBLISHED = ("--data_path", DATA, "--results_path", ROOT / "results" / "published")
SEARCH = (ROOT / "tools" / "search.py", *PUBLISHED)
REPEATS = 3
EPOCHS = 5  # of the plain loop
WORKERS = (0, 4)  # of a data loader; the reference has 4
RANKED = 100  # architectures whose ranks are searched for linearly
SEARCHED = ("veri", "sop")


def timed(function, *args):
    """Call `function`: (seconds, its result)."""
    began = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - began, result


def command(*words):
    """Run a Python command in the current folder: (seconds, peak MiB; at least the peak of this process so far)."""
    words, began = [sys.executable, *map(str, words)], time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise InputError(f"{' '.join(words)}: exit status {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def table(title, header, rows):
    """Print a Markdown table."""
    print(f"\n{title}:\n\n| {' | '.join(header)} |\n|---{'|--:' * (len(header) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(cell if isinstance(cell, str) else f'{cell:.3g}' for cell in row)} |", flush=True)


def compare(title, runs):
    """Print a table of plain alternatives beside our code, the smallest ratio first.

    runs: {(kind, alternative): [(its seconds, ours), a pair a repeat]}.
    """
    rows = []
    for names, pairs in runs.items():
        rows.append((*names, *map(median, zip(*pairs, strict=True)), median(t / ours for t, ours in pairs)))
    table(title, ("", "plain alternative", "its seconds", "ours", "ratio"), sorted(rows, key=lambda row: row[-1]))


def bench_commands():
    read = f"import torch, json; json.load(open({str(DATA / TEST_FILE)!r}))"
    commands = {
        "`import torch`, reading the test file": ("-c", read),
        "`import torch`": ("-c", "import torch"),
        "`main.py --help`": (ROOT / "main.py", "--help"),
        "`test.py`": (ROOT / "test.py", *PUBLISHED),
        "`main.py --recipe gp`": (*TRAIN, "--recipe", "gp"),
        "`test.py --recipe gp`": (ROOT / "test.py", *OWN, "--recipe", "gp"),
        "`tools/search.py --tasks sop`": (*SEARCH, "--tasks", "sop"),
        "`tools/search.py --tasks sop --pareto`": (*SEARCH, "--tasks", "sop", "--pareto"),
    }
    runs = defaultdict(list)
    for _ in range(REPEATS):
        run = {name: command(*words) for name, words in commands.items()}
        for name, (took, peak) in run.items():
            runs[name].append((took, peak, took / next(iter(run.values()))[0]))
    rows = [(name, *map(median, zip(*several, strict=True))) for name, several in runs.items()]
    table("Whole commands", ("command", "seconds", "peak MiB", "ratio to the first"), rows)


@one_thread()  # faster for the plain loop's small matrices
def bench_training():
    datasets, epochs = {task: ArchPerfDataset(DATA, task.name) for task in TASKS}, TASKS[0].num_epochs
    runs = defaultdict(list)
    for _ in range(REPEATS):
        many, peak = command(*TRAIN)
        few, _ = command(*TRAIN, "--num_epochs", EPOCHS)
        for workers in WORKERS:
            name = f"loop, {workers} loader workers"
            took, _ = timed(lambda n: [plain.train(task, datasets[task], EPOCHS, n) for task in TASKS], workers)
            runs[f"{EPOCHS} epochs", name].append((took, (many - few) / (epochs - EPOCHS) * EPOCHS))
            runs[f"{epochs} epochs, whole command", f"{name}, scaled up"].append((took / EPOCHS * epochs, many))
    compare("Training, eight tasks", runs)
    print(f"\nPeak memory of a process: {peak:.0f} MiB.")


def bench_scoring():
    architectures, _ = load_entries(DATA / TEST_FILE)
    models, predictors = [each.model for each in load()], [Predictor().eval() for _ in TASKS]
    for predictor, model in zip(predictors, models, strict=True):
        predictor.load_state_dict(model.networks[0])
    data = ArchPerfDataset(DATA, TASKS[0].name, train=False)

    @one_thread()  # faster for small batches
    @torch.no_grad()
    def load_and_score(workers):
        return torch.cat([predictors[0](batch) for batch in DataLoader(data, 64, num_workers=workers)])

    @torch.no_grad()
    def score_one_tensor():
        encodings = encode(architectures)
        return [predictor(encodings) for predictor in predictors]

    scores, step = score(models, architectures), len(architectures) // RANKED
    lists, runs = [(row[::step], sorted(row)) for row in scores.tolist()], defaultdict(list)
    for _ in range(REPEATS):
        ours, _ = timed(score, models, architectures)
        runs["forward", "one tensor"].append((timed(score_one_tensor)[0], ours))
        for workers in WORKERS:
            took, _ = timed(load_and_score, workers)
            runs["forward", f"data loader, {workers} workers, scaled up"].append((took * len(TASKS), ours))
        ours, _ = timed(lambda: [ranks(row) for row in scores])
        took, _ = timed(lambda: [rankdata(row, "min") for row in scores])
        runs["ranking", 'scipy\'s rankdata, method="min"'].append((took, ours))
        took, _ = timed(lambda: [[ascending.index(value) for value in some] for some, ascending in lists])
        runs["ranking", f"linear search of {RANKED}, scaled up"].append((took * step, ours))
    compare(f"Scoring {len(architectures):,} architectures with eight predictors", runs)


def bench_search():
    effects = json.loads(generate.EFFECTS.read_text())["tasks"]
    sampled, _ = load_entries(DATA / TEST_FILE)
    methods = {
        "exact search": lambda m, seed: best(m, top=1).architectures[0],
        "evolution, 10,000 evaluations": lambda m, seed: evolve(lambda a: score([m], a)[0], 10_000, seed)[0][0],
        f"best of {len(sampled):,} sampled": lambda m, seed: sampled[score([m], sampled)[0].argmin()],
    }
    rows = []
    for recipe in ("reference", "gp"):
        command(*TRAIN, "--recipe", recipe, "--tasks", *SEARCHED)
        for task, predictor in zip(SEARCHED, load(SEARCHED, recipe=recipe, results="results"), strict=True):
            model = predictor.model
            for method, find in methods.items():
                times, found = zip(*(timed(find, model, seed) for seed in range(REPEATS)), strict=True)
                true = generate.true_scores(effects[task], columns(found)) * generate.UNIT
                predicted = score([model], found)[0].tolist()
                rows.append((task, recipe, method, *(f"{median(v):.4f}" for v in (predicted, true)), median(times)))
    title = "Search: score of the best architecture found, the lower the better; true: the surrogate's without noise"
    table(title, ("task", "recipe", "method", "predicted", "true", "seconds"), rows)


def memory(field):
    """A figure of this process in MiB: VmRSS, its memory, or VmHWM, the peak."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def bench_scale(largest):
    models, rows = [each.model for each in load()], []
    for n in [10**power for power in range(4, 12) if 10**power <= largest]:
        architectures = sample_architectures(n, seed=1)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from the memory in use
        before = memory("VmRSS")
        took, _ = timed(lambda a: [ranks(row) for row in score(models, a)], architectures)
        needed = n * len(TASKS) * (4 + 8) / 2**20  # float32 scores, int64 ranks
        mib = (f"{value:.0f}" for value in (before, memory("VmHWM") - before, needed))
        rows.append((f"{n:,}", took, took / n * 1e6, *mib))
    header = ("architectures", "seconds", "microseconds each", "with the strings", "more at the peak", "results")
    table("Strings to ranks with eight predictors, memory in MiB", header, rows)


def machine():
    """Describe the machine in a line."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    model = found[1] if found else platform.machine()
    return f"{model}, {cores()} cores; Python {platform.python_version()}, torch {torch.__version__}"


PARTS = {"commands": bench_commands, "training": bench_training, "scoring": bench_scoring, "search": bench_search}


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    parts = [*PARTS, "scale"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--scale_to", type=float, default=1e7, help="most architectures in `scale` (default: 1e7)")
    args = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
    generate.make()
    print(f"Measured by `python tools/bench.py` on {machine()}; medians of {REPEATS}.", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it is gone at the end, and with it the current folder
        for part in parts:
            if part in args.parts:
                PARTS.get(part, lambda: bench_scale(args.scale_to))()


if __name__ == "__main__":
    cli.run(main)
