"""The surrogate benchmark: stand-ins for the competition's two files, and the true ranks, which it never published.

An architecture's score on a task is the sum of its choices' effects, fitted to real measurements, plus noise of the
size that the fit left over: data/surrogate/effects.json, made by tools/surrogate.py. The idea is that of NAS-Bench-301
(Siems et al., arXiv:2008.09777).
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from checkpoint import fingerprint, write_whole
from dataset import LENGTH, TEST_FILE, TRAIN_FILE, WIDTH, DataError, columns, sample_architectures
from metrics import ranks
from tasks import TASKS

EFFECTS_FILE, TRUTH_FILE = "effects.json", "truth.json"
TRAINED, TOTAL, SEED = 500, 100_000, 2022
UNIT = 1e-6


def generate(effects):
    """The surrogate's files, {name: bytes}: 500 ranked architectures, 99,500 without ranks, the same with their ranks.

    effects: {task name: {"depth": 3 effects, "heads": 12 x 3, "mlp_ratio": 12 x 3, "residual": the noise's standard
    deviation}}. The same effects give the same bytes on every machine.
    """
    architectures = sample_architectures(TOTAL, SEED)
    chosen = columns(architectures)
    random = np.random.RandomState(SEED + 1)  # SEED's numbers made the architectures
    training, truth = [], []
    for task in TASKS:
        table = np.zeros((LENGTH, WIDTH + 1))  # [position, column]; the last column is that of an absent layer
        table[0, 0:3] = effects[task.name]["depth"]
        table[1::3, 3:6] = effects[task.name]["heads"]
        table[2::3, 6:9] = effects[task.name]["mlp_ratio"]
        noise = effects[task.name]["residual"] * random.standard_normal(TOTAL)
        # Whole numbers: their sums are exact, and where machines differ in a logarithm's last bit, it is rounded away.
        table, scores = np.rint(table / UNIT).astype(np.int64), np.rint(noise / UNIT).astype(np.int64)
        for effect, column in zip(table, chosen.T, strict=True):
            scores += effect[column]
        scores = scores * TOTAL + np.arange(TOTAL)  # no two are equal: ranks are a permutation
        training.append(ranks(scores[:TRAINED]).tolist())
        truth.append(ranks(scores[TRAINED:]).tolist())
    placeholders = [[-1] * (TOTAL - TRAINED)] * len(TASKS)
    return {
        TRAIN_FILE: _file(architectures[:TRAINED], training, 1),
        TEST_FILE: _file(architectures[TRAINED:], placeholders, TRAINED + 1),
        TRUTH_FILE: _file(architectures[TRAINED:], truth, TRAINED + 1),
    }


def _file(architectures, rows, start):
    """rows: of each task the ranks; start: the number of the first architecture."""
    # As json.dumps writes it, in a sixth of the time; nothing in an architecture string needs an escape.
    form = '"arch%d": {' + "".join(f'"{task.rank_key}": %d, ' for task in TASKS) + '"arch": "%s"}'
    names = range(start, start + len(architectures))
    return f"{{{', '.join(map(form.__mod__, zip(names, *rows, architectures, strict=True)))}}}".encode()


def make(folder):
    """Make the surrogate's files in `folder`, which holds effects.json, unless they are there as it says.

    Raises DataError where other files would come out than those whose sha256 it records, OSError.
    """
    path = Path(folder, EFFECTS_FILE)
    content = json.loads(path.read_text())
    recorded = content["sha256"]
    if all(Path(folder, name).exists() and fingerprint(Path(folder, name)) == recorded[name] for name in recorded):
        return
    print(f"making the surrogate benchmark in {folder}", flush=True)
    for name, data in generate(content["tasks"]).items():
        if hashlib.sha256(data).hexdigest() != recorded[name]:
            raise DataError(f"{path}: makes another {name} than its sha256 says: restore the file, or fit it again")
        write_whole(Path(folder, name), data)
