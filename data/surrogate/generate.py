"""The surrogate benchmark: synthetic files in the competition's format, with the true ranks of the test file.

An architecture's score on a task is the sum of the effects of its decisions, fitted to real measurements, plus noise
with the standard deviation of the fit's residuals: effects.json, which tools/surrogate.py makes. The idea comes
from NAS-Bench-301 (Siems et al., arXiv:2008.09777).
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from common.files import InputError, first_line, log, read_file, sha256, write_file
from common.metrics import ranks
from space import VIT
from tasks import TASKS, TEST_FILE, TRAIN_FILE, TRUTH_FILE

FOLDER = Path(__file__).parent
EFFECTS = FOLDER / "effects.json"
TRAINED, TOTAL, SEED = 500, 100_000, 2022
UNIT = 1e-6


def generate(effects):
    """Generate the surrogate's files, {name: bytes}: 500 ranked architectures, 99,500 without ranks, those with ranks.

    effects: {task name: {"depth": 3 effects, "heads": 12 x 3, "mlp_ratio": 12 x 3, "residual": the noise's standard
    deviation}}. The same effects give the same bytes on every machine.
    """
    architectures = VIT.sample(TOTAL, SEED)
    random = np.random.RandomState(SEED + 1)  # SEED's numbers made the architectures
    training, truth = [], []
    for task in TASKS:
        noise = effects[task.name]["residual"] * random.standard_normal(TOTAL)
        # Whole numbers: their sums are exact, and where machines differ in a logarithm's last bit, it is rounded away.
        scores = np.rint(noise / UNIT).astype(np.int64) + true_scores(effects[task.name], architectures)
        scores = scores * TOTAL + np.arange(TOTAL)  # no two are equal: ranks are a permutation
        training.append(ranks(scores[:TRAINED]).tolist())
        truth.append(ranks(scores[TRAINED:]).tolist())
    placeholders = [[-1] * (TOTAL - TRAINED)] * len(TASKS)
    return {
        TRAIN_FILE: _file(architectures[:TRAINED], training, 1),
        TEST_FILE: _file(architectures[TRAINED:], placeholders, TRAINED + 1),
        TRUTH_FILE: _file(architectures[TRAINED:], truth, TRAINED + 1),
    }


def true_scores(effects, architectures):
    """Scores of n architectures on one task without noise, the lower the better, in units of UNIT: (n,) int64.

    effects: the task's, as for `generate`; architectures: n strings.
    """
    layers = [(*heads, *ratio, 0) for heads, ratio in zip(effects["heads"], effects["mlp_ratio"], strict=True)]
    table = np.zeros(VIT.shape)  # [position, column]
    table.flat[VIT.features] = [
        *effects["depth"],
        *sum(layers, ()),
    ]
    units = np.rint(np.pad(table, ((0, 0), (0, 1))) / UNIT).astype(np.int64)  # the last column is of an absent layer
    return units[np.arange(len(units)), VIT.columns(VIT.parse(architectures))].sum(1)


def _file(architectures, rows, start):
    """JSON of one file as bytes; rows: the ranks of each task; start: number of the first architecture."""
    # The same text as json.dumps, in a sixth of the time; nothing in an architecture string needs an escape.
    form = '"arch%d": {' + "".join(f'"{task.rank_key}": %d, ' for task in TASKS) + '"arch": "%s"}'
    names = range(start, start + len(architectures))
    return f"{{{', '.join(map(form.__mod__, zip(names, *rows, architectures, strict=True)))}}}".encode()


def make(folder=FOLDER):
    """Make the surrogate's files in `folder` that are missing or differ from their SHA-256 sums in effects.json.

    Raises InputError where effects.json is damaged or does not make files of these sums, and where a file would replace
    a symbolic link, somebody's JSON file or, in a folder other than FOLDER, any file; OSError where it cannot write.
    """
    try:
        content = json.loads(read_file(EFFECTS))
        recorded = content["sha256"]
        files = {name: Path(folder, name) for name in recorded}
        files = {name: file for name, file in files.items() if not file.is_file() or sha256(file) != recorded[name]}
        if not files:
            return
        for file in files.values():
            if os.path.lexists(file) and (file.is_symlink() or not os.path.samefile(folder, FOLDER) or _is_json(file)):
                raise InputError(f"{file}: not the surrogate's: move it to a folder of its own")
        log.info(f"making the surrogate benchmark in {os.path.relpath(folder)}")
        made = generate(content["tasks"])
        for name, file in files.items():
            if hashlib.sha256(made[name]).hexdigest() != recorded[name]:
                raise InputError(f"{os.path.relpath(EFFECTS)}: makes another {name} than its SHA-256 says: restore it")
            write_file(file, made[name])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{os.path.relpath(EFFECTS)}: damaged, restore it: {first_line(error)}") from None


def _is_json(file):
    """Whether a file holds JSON; a damaged one of the surrogate does not."""
    try:
        return bool(json.loads(file.read_bytes()))
    except (ValueError, RecursionError):
        return False
