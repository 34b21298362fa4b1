"""Rank the test architectures: the submission, and the intervals of the ranks."""

import json
from pathlib import Path

import recipes
import surrogate
from dataset import TEST_FILE, load_entries
from files import InputError, count, say, write_file
from folders import check_output
from metrics import ranks
from predictors import load_predictors
from recipes import PROBABILITY
from scoring import score


def rank_test_file(args):
    """Do what test.py's arguments ask for. Raises InputError and OSError, for mistakes before any scoring."""
    if args.uncertainty and recipes.get(args.recipe).rank_interval is None:
        raise InputError(f"--uncertainty: the recipe {args.recipe} has no rank intervals: use --recipe gp")
    recipe, loaded = load_predictors(args, args.model_path_index)
    for task, each in zip(args.tasks, loaded, strict=True):
        say(f"{task.name:<10}  {recipe.describe(each.content, each.index)}")
    test_file, path = Path(args.data_path, TEST_FILE), submission_path(args.save_name)
    inputs = [*surrogate.input_files(args.data_path), *(each.path for each in loaded)]
    check_output(path, inputs)
    if args.uncertainty:
        check_output(args.uncertainty, [*inputs, path])
    architectures, content = load_entries(test_file)
    scores = score([each.model for each in loaded], architectures, args.device)
    write_submission(path, content, args.tasks, scores, args.largest)
    say(f"{path}: {len(architectures)} architectures ranked for {count(len(args.tasks), 'task')}")
    if args.uncertainty:
        contents = [each.content for each in loaded]
        write_intervals(args.uncertainty, content, recipe, args.tasks, contents, scores, args.largest)
        say(f"{args.uncertainty}: intervals that hold the true rank with probability {PROBABILITY}")


def submission_path(name):
    """Path of the submission called `name`, in the current folder."""
    return f"Track2_submitA_{name}.json"


def write_submission(path, content, tasks, scores, largest=False):
    """Write a submission: the test file's content with the rank fields of k tasks filled in, in place.

    scores: (k, n), a row a task; largest: the largest score has rank 0. Raises InputError where a score is not finite,
    OSError.
    """
    for task, row in zip(tasks, scores, strict=True):
        if not row.isfinite().all():
            raise InputError(
                f"{task.name}: {(~row.isfinite()).sum()} of {len(row)} scores are not finite: train it again"
            )
        for entry, rank in zip(content.values(), ranks(-row if largest else row).tolist(), strict=True):
            entry[task.rank_key] = rank
    write_file(path, json.dumps(content).encode())


def write_intervals(path, content, recipe, tasks, contents, scores, largest=False):
    """Write {key: {"arch": string, "<task>_rank_interval": [low, high], ...}}, ranks among the n entries of `content`.

    contents: of the k tasks' checkpoints; scores: (k, n); largest: the largest score has rank 0. Raises OSError.
    """
    entries = {key: {"arch": entry["arch"]} for key, entry in content.items()}
    for task, fitted, row in zip(tasks, contents, scores, strict=True):
        low, high = recipe.rank_interval(fitted, row, len(entries), PROBABILITY)
        if largest:
            low, high = len(entries) - 1 - high, len(entries) - 1 - low
        for entry, *interval in zip(entries.values(), low.tolist(), high.tolist(), strict=True):
            entry[f"{task.rank_key}_interval"] = interval
    write_file(path, json.dumps(entries).encode())
