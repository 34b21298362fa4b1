"""The submission: the test file with its rank fields filled in, and the file of rank intervals beside it."""

import contextlib
import fcntl
import json
import os
from pathlib import Path

import numpy as np

from common.files import InputError, is_number, log, write_json
from common.metrics import ranks
from dataset import load_entries, load_same
from engine.predictors import rank_intervals, score_all
from tasks import find_task

NOT_PREDICTED = -1  # rank of a task that has no predictor; the surrogate's placeholder, too


def submission_path(name):
    """Path of the submission called `name`, in the current folder."""
    return Path(f"Track2_submitA_{name}.json")


def write_submission(predictors, test_file, path, intervals_path=None, device="cpu", probability=0.8):
    """Rank the architectures of a test file for k tasks, and write a submission; returns the number of architectures.

    The submission is the test file with `<task>_rank` filled in. Ranks of other tasks stay as a submission of the same
    architectures at `path` has them, and are NOT_PREDICTED where there is none.
    intervals_path: also write {key: {"arch": string, "<task>_rank_interval": [low, high], ...}}, intervals that hold
    the true rank among all with this probability. Raises as load_entries and score_all, OSError.
    """
    architectures, entries = load_entries(test_file, predictors[0].recipe.space)
    scores = score_all(predictors, architectures, device)
    intervals = {key: {"arch": entry["arch"]} for key, entry in entries.items()}
    ours = {predictor.task.rank_key for predictor in predictors}
    others = {field for entry in entries.values() for field in entry if field.endswith("_rank")} - ours
    for predictor, row in zip(predictors, scores, strict=True):
        for entry, found in zip(entries.values(), ranks(row).tolist(), strict=True):
            entry[predictor.task.rank_key] = found
        if intervals_path:
            ends = rank_intervals(predictor, row, row, probability)
            for entry, interval in zip(intervals.values(), ends.tolist(), strict=True):
                entry[f"{predictor.task.rank_key}_interval"] = interval
    with _locked(path):
        kept = _kept(path, entries, ours)
        for name, entry in entries.items():
            entry |= dict.fromkeys(others, NOT_PREDICTED) | kept.get(name, {})
        write_json(path, entries)
    if intervals_path:
        write_json(intervals_path, intervals)
    return len(entries)


@contextlib.contextmanager
def _locked(path):
    """Let one process at a time read and replace the file `path`; others wait."""
    descriptor = os.open(Path(path).parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _kept(path, entries, ours):
    """Ranks of other tasks than `ours` in a submission at `path` of the same architectures: {name: {field: rank}}."""
    try:
        before = load_same(path, path, entries)
        filled = {field for entry in before.values() for field, rank in entry.items() if rank != NOT_PREDICTED}
        fields = sorted(field for field in filled - ours if field.endswith("_rank"))
    except (InputError, OSError):  # there is none, or one of other architectures
        return {}
    if fields:
        log.info(f"{path}: keeps {', '.join(fields)}, which other predictors filled in")
    return {name: {field: entry[field] for field in fields if field in entry} for name, entry in before.items()}


def submitted_ranks(path, entries, task):
    """Ranks of a task in the entries of a submission, (n,), or None where nothing predicted them.

    They are any finite numbers, and only their order counts; raises InputError for anything else.
    """
    key = find_task(task).rank_key
    found = [entry.get(key, NOT_PREDICTED) for entry in entries.values()]
    if all(rank == NOT_PREDICTED for rank in found):
        return None
    for name, rank in zip(entries, found, strict=True):
        if not is_number(rank):
            raise InputError(f"{path}: {name}: {key} is {json.dumps(rank)[:40]}: expected a number, or other tasks")
    if not set(found) <= set(range(len(found))):
        log.info(f"{path}: {key}: no ranks from 0 to {len(found) - 1}: only their order counts")
    return np.array(found, float)


def submitted_intervals(path, entries, task):
    """Ends of a task's intervals in the entries of a file that write_submission wrote: (2, n) int64.

    Raises InputError where they are anything else.
    """
    key = f"{find_task(task).rank_key}_interval"
    for name, entry in entries.items():
        ends = entry.get(key)
        if not (isinstance(ends, list) and len(ends) == 2 and all(type(end) is int for end in ends)):
            found = json.dumps(ends)[:40]
            raise InputError(f"{path}: {name}: {key} is {found}: expected [low, high], as test.py writes")
    return np.array([entry[key] for entry in entries.values()]).T
