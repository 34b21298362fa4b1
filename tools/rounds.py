"""Replay the search for the best architecture by few measurements, where all measurements are known.

    python tools/rounds.py --data_path data/whole                 the training file is a complete table
    python tools/rounds.py --tasks msmt17 sop vehicleid           the surrogate: the whole space, measured with noise
    python tools/rounds.py --measurements 50 100 200 --seeds 10 --first 0 --json rounds.json

With N measurements: `random` measures N random architectures; `evolution` is regularized evolution with a population
of 20 and samples of 10; `rounds` measures N / 2 random ones, then in each round the ten best predicted ones; they end
with the best that they measured. `predicted` measures N random ones and ends with the best predicted one, unmeasured.

For a table it prints the median over the seeds of the true rank of the result among all of the table (0 is the best),
and how many seeds ended with the very best. For the surrogate, where no rank can be counted, it prints the mean of the
result's score without noise (lower is better).
"""

import collections
import contextlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

import cli
import recipes
from common.files import InputError, write_json
from common.metrics import markdown, rank_table
from common.processes import cores, run_jobs
from data.surrogate import generate
from dataset import Labels, load_train
from engine.model import score
from engine.trained import fit_labels
from search.evolution import mutate
from search.exact import best
from tasks import find_task

POPULATION, SAMPLE = 20, 10  # the usual choice for few measurements
ROUND = 10


class Table:
    """A complete table: labels of a dataset.Labels."""

    def __init__(self, space, labels):
        self.space, self.names = space, labels.architectures
        self.values = dict(zip(labels.architectures, labels.values.tolist(), strict=True))
        self.sorted = np.sort(labels.values)

    def has(self, name):
        """Whether it can be measured."""
        return name in self.values

    def measure(self, name, random):
        """Label of an architecture."""
        return self.values[name]

    def draw(self, random):
        """A random architecture."""
        return self.names[random.randint(len(self.names))]

    def predicted_best(self, model, count, known):
        """The `count` best predicted of all that are not known."""
        left = [name for name in self.names if name not in known]
        return [left[i] for i in np.argsort(score([model], left)[0].numpy(), kind="stable")[:count]]

    def judge(self, name):
        """True rank among all: the number of better ones."""
        return int(np.searchsorted(self.sorted, self.values[name]))


class Surrogate:
    """The surrogate benchmark's whole space; measurements are noisy."""

    def __init__(self, space, effects):
        self.space, self.effects = space, effects

    def has(self, name):
        return True

    def measure(self, name, random):
        return self.judge(name) + self.effects["residual"] * random.standard_normal()

    def draw(self, random):
        return self.space.strings(self.space.draw(1, random))[0]

    def predicted_best(self, model, count, known):
        return best(model, count, exclude=known).architectures

    def judge(self, name):
        """Score without noise."""
        return generate.true_scores(self.effects, [name]).item() * generate.UNIT


def fit(world, measured, recipe):
    """Model of a recipe fitted to {architecture: label}."""
    labels = Labels.of(list(measured), list(measured.values()), measured=True)
    return fit_labels(recipes.get(recipe, world.space), find_task("replay"), labels).model


def draw_new(world, known, random):
    """A random architecture that is not known."""
    while (name := world.draw(random)) in known:
        pass
    return name


def measure_random(world, count, random):
    """Measure `count` random architectures: {architecture: label}."""
    measured = {}
    while len(measured) < count:
        name = draw_new(world, measured, random)
        measured[name] = world.measure(name, random)
    return measured


def by_random(world, count, random, recipe):
    measured = measure_random(world, count, random)
    return min(measured, key=measured.get)


def by_evolution(world, count, random, recipe):
    measured = measure_random(world, min(POPULATION, count), random)
    living = collections.deque(measured, maxlen=POPULATION)
    while len(measured) < count:
        parent = min((living[i] for i in random.randint(len(living), size=SAMPLE)), key=measured.get)
        tried = (mutate(world.space, world.space.parse([parent])[0], random) for _ in range(100))
        children = (world.space.strings(child[None])[0] for child in tried)
        child = next((name for name in children if name not in measured and world.has(name)), None)
        child = child or draw_new(world, measured, random)
        measured[child] = world.measure(child, random)
        living.append(child)
    return min(measured, key=measured.get)


def by_rounds(world, count, random, recipe):
    measured = measure_random(world, count // 2, random)
    while len(measured) < count:
        size = min(ROUND, count - len(measured))
        for name in world.predicted_best(fit(world, measured, recipe), size, set(measured)):
            measured[name] = world.measure(name, random)
    return min(measured, key=measured.get)


def by_prediction(world, count, random, recipe):
    measured = measure_random(world, count, random)
    return world.predicted_best(fit(world, measured, recipe), 1, set(measured))[0]


METHODS = {"random": by_random, "evolution": by_evolution, "rounds": by_rounds, "predicted": by_prediction}


def replay(_, method, world, count, seed, recipe):
    """What one of the METHODS ends with after `count` measurements, judged."""
    return world.judge(method(world, count, np.random.RandomState(seed), recipe))


def table(measurements, found):
    """Mean scores as Markdown; found: {method: (tasks, measurements, seeds) array}."""
    return markdown("measurements", measurements, found, lambda i, values: f"{values[:, i].mean():.3f}")


def main(argv=None):
    parser = cli.Parser(description=__doc__)
    cli.add_data(parser)
    cli.add_recipe(parser, "gp")
    help = "how many to replay (default: 50 100 200)"
    parser.add_argument("--measurements", nargs="+", type=cli.positive, default=[50, 100, 200], metavar="N", help=help)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help="only these")
    cli.add_seeds(parser, 10)
    cli.add_jobs(parser, "processes")
    cli.add_json(parser, "write every result")
    args = parser.parse_args(argv)
    data = cli.open_data(args.data_path)
    if args.json:
        data.check_output(args.json)
    _, labels = load_train(data.train_file, args.tasks, data.space)
    is_table = not cli.is_surrogate(data)
    if is_table:
        worlds = [Table(data.space, of_task) for of_task in labels.values()]
    else:
        effects = json.loads(generate.EFFECTS.read_text())["tasks"]
        worlds = [Surrogate(data.space, effects[name]) for name in labels]
    few = min(len(of_task.ranks) for of_task in labels.values()) if is_table else data.space.size
    if min(args.measurements) < 4:
        raise InputError("--measurements: expected at least 4: half of them have to show an order")
    if max(args.measurements) >= few:
        raise InputError(f"--measurements: {data.train_file} has {few} architectures: measure fewer")
    found = {name: np.zeros((len(worlds), len(args.measurements), args.seeds)) for name in args.methods}
    jobs = [
        ((name, t, i, s), replay, (METHODS[name], worlds[t], args.measurements[i], args.first + s, args.recipe))
        for name, of_method in found.items()
        for t, i, s in np.ndindex(of_method.shape)
    ]
    with contextlib.closing(run_jobs(jobs, args.jobs or cores())) as messages:
        for (name, *index), result in tqdm(messages, total=len(jobs), disable=None):
            if result.error:
                raise InputError(f"{name}: {result.error}")
            found[name][tuple(index)] = result.value
    print((rank_table if is_table else table)(args.measurements, found))
    if args.json:
        content = {"tasks": list(labels), "measurements": args.measurements, "ranks": is_table}
        content["results"] = {name: values.tolist() for name, values in found.items()}
        write_json(args.json, content)


if __name__ == "__main__":
    cli.run(main)
