"""Measure the project's speed against a plain implementation of the same method, side by side, as ratios.

    python tools/bench.py                  everything, in a few minutes
    python tools/bench.py --largest 1e6    stop the scale curve earlier

Prints Markdown tables; a ratio is the median of several.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "surrogate"
sys.path.insert(0, str(ROOT))

import cli
from tasks import TASKS

EPOCHS = 5  # of the plain loop; of ours where both are timed alike
SEARCHED = 100  # architectures whose rank is searched for linearly, of 99,500
REPEATS = 3


def seconds(work, *args):
    """Wall-clock seconds of one call."""
    began = time.perf_counter()
    work(*args)
    return time.perf_counter() - began


def command(*words):
    """Run a Python command in the current folder; returns (seconds, peak MiB of its largest process)."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, words))}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def flops():
    """Floating-point operations of the matrix products in training all eight tasks on 500 architectures."""
    from network import Predictor

    sizes = [linear.weight.numel() for linear in Predictor().linears()]
    per_architecture = 4 * sum(sizes) + 2 * sum(sizes[1:])  # forward and weights' gradient; inputs' gradient
    steps = {task: task.num_epochs * (int(task.train_ratio * 500) // task.batch_size) for task in TASKS}
    return sum(steps[task] * task.batch_size * per_architecture for task in TASKS)


def bench_training():
    import torch

    from dataset import ArchPerfDataset
    from tools import plain

    workers = cli.cores()
    datasets = {task: ArchPerfDataset(DATA, task.name) for task in TASKS}
    torch.set_num_threads(1)
    ours, theirs, whole = [], [], []
    for _ in range(REPEATS):
        theirs.append(seconds(lambda: [plain.train(task, datasets[task], EPOCHS, workers) for task in TASKS]))
        flags = ("--data_path", DATA, "--results_path", "results", "--log_path", "logs")
        many = command(ROOT / "main.py", *flags)
        few = command(ROOT / "main.py", *flags, "--num_epochs", EPOCHS)
        whole.append(many[0])
        ours.append((many[0] - few[0]) / (TASKS[0].num_epochs - EPOCHS) * EPOCHS)
    factor = TASKS[0].num_epochs / EPOCHS
    print(f"Training, eight tasks, medians of {REPEATS}:\n")
    print("| | plain loop | this project | ratio |\n|---|---|---|---|")
    ratio = median(t / o for t, o in zip(theirs, ours, strict=True))
    print(f"| {EPOCHS} epochs, training alone | {median(theirs):.1f} s | {median(ours):.2f} s | {ratio:.0f} |")
    ratio = median(t * factor / w for t, w in zip(theirs, whole, strict=True))
    print(
        f"| 400 epochs, the whole command (plain loop: {EPOCHS} epochs x {factor:.0f}, no start-up) "
        f"| {median(theirs) * factor:.0f} s | {median(whole):.1f} s | {ratio:.0f} |"
    )
    torch.set_num_threads(workers)
    a, b = torch.randn(2, 1024, 1024)
    rate = 2 * 1024**3 / median(seconds(torch.mm, a, b) for _ in range(50))
    limit = flops() / rate
    print(f"\nIts matrix products, {flops() / 1e9:.0f} GFLOP, take {limit:.1f} s as large products on all cores")
    print(
        f"({rate / 1e9:.0f} GFLOP/s): {limit / median(whole):.0%} of the whole command. "
        f"Peak memory of a process: {many[1]:.0f} MiB."
    )


def bench_scoring():
    import torch
    from torch.utils.data import DataLoader, Subset

    from dataset import TEST_FILE, ArchPerfDataset, load_test
    from metrics import ranks
    from network import Predictor
    from scoring import score

    architectures, _ = load_test(DATA / TEST_FILE)
    torch.manual_seed(0)
    predictors = [Predictor().eval() for _ in TASKS]
    state_dicts = [predictor.state_dict() for predictor in predictors]
    data = ArchPerfDataset(DATA, TASKS[0].name, train=False)
    part = Subset(data, range(len(data) // 10))

    @torch.no_grad()
    def plain_forward():
        return torch.cat([predictors[0](batch) for batch in DataLoader(part, 64, num_workers=cli.cores())])

    row = score(state_dicts, architectures)[0].tolist()

    def plain_ranks():
        ascending, searched = sorted(row), row[:: len(row) // SEARCHED]
        return seconds(lambda: [ascending.index(value) for value in searched]) / len(searched) * len(row)

    ratios, ours, theirs = [], [], []
    for _ in range(REPEATS):
        theirs.append(len(TASKS) * (seconds(plain_forward) * len(data) / len(part) + plain_ranks()))
        ours.append(seconds(lambda: [ranks(each) for each in score(state_dicts, architectures)]))
        ratios.append(theirs[-1] / ours[-1])
    print(f"\nScoring {len(row):,} architectures with eight predictors, encoding to ranks, medians of {REPEATS}:\n")
    print("| plain: data loader, linear search (a part, scaled up) | this project | ratio |\n|---|---|---|")
    print(f"| {median(theirs):.0f} s | {median(ours):.2f} s | {median(ratios):.0f} |")


def bench_commands():
    from dataset import TEST_FILE

    read = f"import torch, json; json.load(open({str(DATA / TEST_FILE)!r}))"
    rows = {"`import torch`": ("-c", "import torch"), "`import torch`, reading the test file": ("-c", read)}
    rows["`main.py --help`"] = (ROOT / "main.py", "--help")
    where = ("--data_path", DATA, "--results_path", "results", "--recipe")
    rows["`test.py`, whole"] = (ROOT / "test.py", *where, "reference")
    rows["`main.py --recipe ensemble`, whole"] = (ROOT / "main.py", *where, "ensemble", "--log_path", "logs")
    rows["`test.py --recipe ensemble`, whole"] = (ROOT / "test.py", *where, "ensemble")
    times, peaks = {name: [] for name in rows}, {}
    for _ in range(REPEATS):
        for name, words in rows.items():
            took, peaks[name] = command(*words)
            times[name].append(took)
    print(
        f"\nCommands, medians of {REPEATS}:\n\n| command | seconds | ratio to `import torch`, reading |\n|---|---|---|"
    )
    yardstick = times["`import torch`, reading the test file"]
    for name, column in times.items():
        ratio = median(a / b for a, b in zip(column, yardstick, strict=True))
        print(f"| {name} | {median(column):.2f} | {ratio:.2f} |")
    print(f"\nPeak memory of `test.py`: {peaks['`test.py`, whole']:.0f} MiB.")


def scale_step(n):
    """Score n architectures in a process of its own; print the seconds, and its memory before and at the peak, MiB."""
    import torch

    from dataset import sample_architectures
    from metrics import ranks
    from network import Predictor
    from scoring import score

    architectures = sample_architectures(n, seed=1)
    torch.manual_seed(0)
    state_dicts = [Predictor().state_dict() for _ in TASKS]
    if os.fork():  # drawing the architectures took memory too: the child's peak starts at what they need
        os.wait()
        return
    score(state_dicts, architectures[:5000])
    before = memory("VmRSS")
    took = seconds(lambda: [ranks(row) for row in score(state_dicts, architectures)])
    print(took, before, memory("VmHWM"))


def memory(kind):
    """This process's memory, VmRSS now or VmHWM at its peak, in MiB."""
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0]) / 1024


def bench_scale(largest):
    print("\nFrom strings to ranks with eight predictors; all memory in MiB:\n")
    print(
        "| architectures | seconds | microseconds each | memory with the strings | more at the peak "
        "| scores and ranks |"
    )
    print("|---|---|---|---|---|---|")
    n = 10_000
    while n <= largest:
        command = [sys.executable, __file__, "--scale_step", str(n)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        took, before, after = map(float, answer.split())
        needed = n * len(TASKS) * (4 + 8) / 2**20
        print(
            f"| {n:,} | {took:.2f} | {took / n * 1e6:.2f} | {before:.0f} | {after - before:.0f} | {needed:.0f} |",
            flush=True,
        )
        n *= 10


def machine():
    """The machine in a line."""
    import torch

    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        model = next(
            line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
        )
    return f"{model}, {cli.cores()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def main():
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--largest", type=float, default=1e7, help="end of the scale curve (default: 1e7)")
    parser.add_argument("--scale_step", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scale_step:
        scale_step(args.scale_step)
        return
    from surrogate import make

    make(DATA)
    print(f"Measured by `python tools/bench.py` on {machine()}.\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        bench_training()
        bench_scoring()
        bench_commands()
        bench_scale(args.largest)  # in the folder too: it is gone afterwards, and with it the current folder


if __name__ == "__main__":
    cli.run(main)
