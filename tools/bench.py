"""Measure the project's speed against plain ways to do the same, one process each.

    python tools/bench.py                            everything, in two minutes
    python tools/bench.py --parts scoring search     only these parts

Prints Markdown tables, of the surrogate benchmark. The two sides of a ratio run in turn, several times; the
tables show medians of the seconds and of the ratios.
"""

import math
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from scipy.stats import rankdata

import cli
import recipes
from common.metrics import kendall_tau, ranks
from common.paths import project_path
from common.processes import cores, one_thread
from dataset import encode, load_entries, load_train
from engine.checkpoint import versions
from engine.model import score
from engine.predictors import load, score_all
from engine.trained import learn
from network import Predictor
from search.evolution import evolve
from search.exact import best
from tasks import TASKS

REPEATS = 3
ROWS = 4096  # encodings that the plain way scores at a time: the fastest of 512 to all
EPOCHS = 20  # of the plain training, whose seconds are scaled up
SEARCHED = "veri"


@one_thread()  # faster for matrices this small
def train_plainly(task, encodings, ranks, epochs):
    """Train as recipes/reference.py, with autograd: losses, training taus and validation taus by epoch.

    Batches lie in memory; there is no data loader, but the random numbers are those of one.
    """
    torch.manual_seed(task.seed)
    orders = torch.Generator().manual_seed(task.seed)
    torch.randn(2, 3), torch.randn(2, 3)
    network = Predictor(*encodings.shape[1:], task.dropout_ratio)
    size, (n_train, _) = task.batch_size, task.split_sizes(len(ranks))
    optimizer = torch.optim.Adam(network.parameters(), task.lr, weight_decay=task.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.num_epochs)

    losses, train_taus, validation_taus = [], [], []

    def one_pass(part):
        """Go through shuffled batches of the rows `part`, and train if the network is in training: the mean tau."""
        torch.empty((), dtype=torch.int64).random_()
        order = part[torch.randperm(len(part), generator=orders)][: len(part) // size * size].view(-1, size)
        seen = []
        for x, labels in zip(encodings[order], ranks[order], strict=True):
            scores = network(x)
            if network.training:
                z = (scores - scores[:, None]) * torch.sign(labels[:, None] - labels)
                loss = (torch.nn.functional.softplus(z).sum() - size * math.log(2)) / (size * (size - 1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            seen.append((scores.detach(), labels))
        return kendall_tau(*map(torch.stack, zip(*seen, strict=True))).mean().item()

    for epoch in range(1, epochs + 1):
        network.train()
        train_taus.append(one_pass(torch.arange(n_train)))
        if task.cos:
            scheduler.step()
        if epoch == 1 or epoch % task.val_interval == 0:
            network.eval()
            with torch.no_grad():
                validation_taus.append(one_pass(torch.arange(n_train, len(ranks))))
    return torch.stack(losses).view(epochs, -1).mean(1).tolist(), train_taus, validation_taus


def timed(function):
    """Call `function`: (seconds, its result)."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def table(title, header, *rows):
    """Print a Markdown table."""
    print(f"\n{title}:\n\n| {' | '.join(header)} |\n|---{'|--:' * (len(header) - 1)}|")
    for name, *numbers in rows:
        print(f"| {name} | {' | '.join(f'{number:.3g}' for number in numbers)} |", flush=True)


def compare(title, name, plain, ours, factor=1):
    """Print the medians of the seconds of a plain way, scaled up by `factor`, of ours, and of their ratio."""
    pairs = [(timed(plain)[0] * factor, timed(ours)[0]) for _ in range(REPEATS)]
    row = name, *map(median, zip(*pairs, strict=True)), median(theirs / own for theirs, own in pairs)
    table(title, ("plain way", "its seconds", "ours", "ratio"), row)


def bench_training(data):
    (_, labels), recipe, epochs = load_train(data.train_file), recipes.get("reference"), TASKS[0].num_epochs
    encodings = encode(data.space, labels[TASKS[0].name].architectures)
    compare(
        f"Training eight tasks for {epochs} epochs",
        "autograd and a fused Adam, batches in memory",
        lambda: [train_plainly(task, encodings, torch.tensor(labels[task.name].ranks), EPOCHS) for task in TASKS],
        lambda: [learn(recipe, task, labels[task.name]) for task in TASKS],
        epochs / EPOCHS,
    )


def bench_scoring(data):
    architectures, _ = load_entries(data.test_file)
    models, networks = [predictor.model for predictor in load()], [Predictor(*data.space.shape).eval() for _ in TASKS]
    for network, model in zip(networks, models, strict=True):
        network.load_state_dict(model.networks[0])

    @torch.no_grad()
    def plain():
        chunks = [encode(data.space, architectures[i : i + ROWS]) for i in range(0, len(architectures), ROWS)]
        return [network(encodings) for encodings in chunks for network in networks]

    title = f"Scores of {len(architectures):,} architectures by eight predictors"
    compare(title, f"{ROWS:,} at a time through the networks", plain, lambda: score(models, architectures))


def bench_ranks(data):
    scores = score_all(load(), load_entries(data.test_file)[0]).numpy()
    title = f"Ranks of {scores.shape[1]:,} architectures by eight predictors"
    compare(title, "scipy's rankdata", lambda: [rankdata(row, "min") for row in scores], lambda: [*map(ranks, scores)])


def bench_search(data):
    (predictor,), (sampled, _) = load([SEARCHED]), load_entries(data.test_file)
    model = predictor.model
    score_names = lambda names: score([model], names)[0]  # noqa: E731
    ways = {
        "exact search": lambda: best(model, top=1).scores[0],
        "evolution, 10,000 evaluations": lambda: evolve(data.space, score_names, 10_000).scores[0],
        f"best of {len(sampled):,} sampled": lambda: score([model], sampled).min().item(),
    }
    runs = {name: [timed(way) for _ in range(REPEATS)] for name, way in ways.items()}
    rows = [(name, *map(median, zip(*run, strict=True))) for name, run in runs.items()]
    table(f"The best architecture of all for {SEARCHED}", ("search", "seconds", "predicted score"), *rows)


PARTS = {"training": bench_training, "scoring": bench_scoring, "ranks": bench_ranks, "search": bench_search}


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parts, data = parser.parse_args(argv).parts, cli.open_data(project_path("data", "surrogate"))
    print(f"{cores()} cores, {versions()}; medians of {REPEATS}", flush=True)
    for part in parts:
        PARTS[part](data)


if __name__ == "__main__":
    cli.run(main)
