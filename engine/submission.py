"""The submission: the test file with its rank fields filled in, and the file of rank intervals beside it."""

import json
from pathlib import Path

import numpy as np

from common.files import InputError, write_file
from common.metrics import ranks
from dataset import load_entries
from engine.predictors import rank_intervals, score_all
from tasks import find_task

NOT_PREDICTED = -1  # rank of a task that has no predictor; the surrogate's placeholder, too


def submission_path(name):
    """Path of the submission called `name`, in the current folder."""
    return Path(f"Track2_submitA_{name}.json")


def write_submission(predictors, test_file, path, intervals_path=None, device="cpu", probability=0.8):
    """Rank the architectures of a test file for k tasks, and write a submission; returns the number of architectures.

    The submission is the test file with `<task>_rank` filled in; the ranks of other tasks become NOT_PREDICTED.
    intervals_path: also write {key: {"arch": string, "<task>_rank_interval": [low, high], ...}}, intervals that hold
    the true rank among all with this probability. Raises as load_entries and score_all, OSError.
    """
    architectures, entries = load_entries(test_file, predictors[0].recipe.space)
    scores = score_all(predictors, architectures, device)
    intervals = {key: {"arch": entry["arch"]} for key, entry in entries.items()}
    others = {field for entry in entries.values() for field in entry if field.endswith("_rank")}
    for field in others.difference(predictor.task.rank_key for predictor in predictors):
        for entry in entries.values():
            entry[field] = NOT_PREDICTED
    for predictor, row in zip(predictors, scores, strict=True):
        for entry, found in zip(entries.values(), ranks(row).tolist(), strict=True):
            entry[predictor.task.rank_key] = found
        if intervals_path:
            ends = rank_intervals(predictor, row, row, probability)
            for entry, interval in zip(intervals.values(), ends.tolist(), strict=True):
                entry[f"{predictor.task.rank_key}_interval"] = interval
    write_file(path, json.dumps(entries).encode())
    if intervals_path:
        write_file(intervals_path, json.dumps(intervals).encode())
    return len(entries)


def submitted_ranks(path, entries, task):
    """Ranks of a task in the entries of a submission: (n,) int64, or None where nothing predicted them.

    Raises InputError unless they are integers from 0 to n - 1.
    """
    key = find_task(task).rank_key
    found = [entry.get(key, NOT_PREDICTED) for entry in entries.values()]
    if all(rank == NOT_PREDICTED for rank in found):
        return None
    for name, rank in zip(entries, found, strict=True):
        if type(rank) is not int or not 0 <= rank < len(entries):
            expected = f"expected an integer from 0 to {len(entries) - 1}, or other tasks"
            raise InputError(f"{path}: {name}: {key} is {json.dumps(rank)[:40]}: {expected}")
    return np.array(found)


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
