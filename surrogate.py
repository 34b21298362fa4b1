"""The surrogate benchmark: synthetic files in the competition's format, with the true ranks of the test file.

An architecture's score on a task is the sum of its choices' effects, fitted to real measurements, plus noise with the
standard deviation of the fit's residuals: data/surrogate/effects.json, made by tools/surrogate.py. The idea is that of
NAS-Bench-301 (Siems et al., arXiv:2008.09777).
"""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from dataset import LAYERS, LENGTH, TEST_FILE, TRAIN_FILE, WIDTH, DataError, columns, sample_architectures
from files import first_line, read_file, say, sha256, write_file
from folders import SURROGATE, is_surrogate, project_folder
from metrics import ranks
from tasks import TASKS

EFFECTS_FILE, TRUTH_FILE = "effects.json", "truth.json"
TRAINED, TOTAL, SEED = 500, 100_000, 2022
UNIT = 1e-6
GENERATE = "python tools/surrogate.py generate --output FOLDER, then --data_path FOLDER"


def generate(effects):
    """Generate the surrogate's files, {name: bytes}: 500 ranked architectures, 99,500 without ranks, those with ranks.

    effects: {task name: {"depth": 3 effects, "heads": 12 x 3, "mlp_ratio": 12 x 3, "residual": the noise's standard
    deviation}}. The same effects give the same bytes on every machine.
    """
    architectures = sample_architectures(TOTAL, SEED)
    chosen = columns(architectures)
    random = np.random.RandomState(SEED + 1)  # SEED's numbers made the architectures
    training, truth = [], []
    for task in TASKS:
        noise = effects[task.name]["residual"] * random.standard_normal(TOTAL)
        # Whole numbers: their sums are exact, and where machines differ in a logarithm's last bit, it is rounded away.
        scores = np.rint(noise / UNIT).astype(np.int64) + true_scores(effects[task.name], chosen)
        scores = scores * TOTAL + np.arange(TOTAL)  # no two are equal: ranks are a permutation
        training.append(ranks(scores[:TRAINED]).tolist())
        truth.append(ranks(scores[TRAINED:]).tolist())
    placeholders = [[-1] * (TOTAL - TRAINED)] * len(TASKS)
    return {
        TRAIN_FILE: _file(architectures[:TRAINED], training, 1),
        TEST_FILE: _file(architectures[TRAINED:], placeholders, TRAINED + 1),
        TRUTH_FILE: _file(architectures[TRAINED:], truth, TRAINED + 1),
    }


def true_scores(effects, chosen):
    """Scores of n architectures on one task without noise, the lower the better, in units of UNIT: (n,) int64.

    effects: the task's, as for `generate`; chosen: (n, 37), as dataset.columns.
    """
    table = np.zeros((LENGTH, WIDTH + 1))  # [position, column]; the last column is that of an absent layer
    table[0, 0:3] = effects["depth"]
    table[1::3, 3:6] = effects["heads"]
    table[2::3, 6:9] = effects["mlp_ratio"]
    return np.rint(table / UNIT).astype(np.int64)[np.arange(LENGTH), chosen].sum(1)


def _file(architectures, rows, start):
    """JSON of one file as bytes; rows: the ranks of each task; start: number of the first architecture."""
    # The same text as json.dumps, in a sixth of the time; nothing in an architecture string needs an escape.
    form = '"arch%d": {' + "".join(f'"{task.rank_key}": %d, ' for task in TASKS) + '"arch": "%s"}'
    names = range(start, start + len(architectures))
    return f"{{{', '.join(map(form.__mod__, zip(names, *rows, architectures, strict=True)))}}}".encode()


def input_files(data_path):
    """Paths of the files that a command on the folder `data_path` may read; no output may replace one of them."""
    return [Path(data_path, name) for name in (TRAIN_FILE, TEST_FILE, TRUTH_FILE)] + [
        Path(project_folder("data", SURROGATE), EFFECTS_FILE)
    ]


def prepare(data_path):
    """Make the surrogate's files where `data_path` is its folder and they are missing; raises as make."""
    if is_surrogate(data_path):
        make(data_path)


def make(folder, effects_path=None):
    """Make the surrogate's files in `folder` that are missing or differ from their SHA-256 sums in effects.json.

    effects_path: path of effects.json, by default in `folder`. Raises DataError where effects.json is damaged or the
    generated files do not match its sums, and where it would replace a symbolic link or, outside the folder of
    effects.json, any other file. Raises OSError where `folder` cannot be written to.
    """
    path = Path(effects_path or Path(folder, EFFECTS_FILE))
    tasks, recorded = _read_effects(path)
    files = {name: Path(folder, name) for name in recorded}
    files = {name: file for name, file in files.items() if not file.is_file() or sha256(file) != recorded[name]}
    if not files:
        return
    for file in files.values():
        if os.path.lexists(file) and (file.is_symlink() or not os.path.samefile(folder, path.parent)):
            raise DataError(f"{file}: not the surrogate's: choose a folder without it")
    say(f"making the surrogate benchmark in {folder}")
    for name, data in generate(tasks).items():
        if hashlib.sha256(data).hexdigest() != recorded[name]:
            raise DataError(f"{path}: makes another {name} than its SHA-256 says: restore the file, or fit it again")
        try:
            if name in files:
                write_file(files[name], data)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS):
                error.strerror += f": make it elsewhere: {GENERATE}"
            raise


def _read_effects(path):
    """(effects by task, {file name: SHA-256}) of effects.json; raises DataError where it is damaged, OSError."""
    try:
        content = json.loads(read_file(path))
        tasks, recorded = content["tasks"], content["sha256"]
        for task in TASKS:
            effects = tasks[task.name]
            arrays = [np.array(effects[name], dtype=float) for name in ("depth", "heads", "mlp_ratio", "residual")]
            if [array.shape for array in arrays] != [(3,), (LAYERS, 3), (LAYERS, 3), ()]:
                raise ValueError(f"{task.name} has effects of other shapes")
            if not all((abs(array) < 1000).all() for array in arrays):
                raise ValueError(f"{task.name} has effects that are not finite or too large")
        if set(recorded) != {TRAIN_FILE, TEST_FILE, TRUTH_FILE}:
            raise ValueError("the SHA-256 sums are of other files")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise DataError(f"{path}: damaged: {what}: restore the file, or fit it again") from None
    return tasks, recorded
