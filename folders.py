"""The project's folders: data, results and logs, and which of them a command uses."""

import os
from pathlib import Path

from files import InputError, say

TRAIN_FILE = "CVPR_2022_NAS_Track2_train.json"
TEST_FILE = "CVPR_2022_NAS_Track2_test.json"
PUBLISHED = "published"  # of results/ and logs/: the project's own run, which no script writes to
SURROGATE = "surrogate"  # of data/, results/ and logs/


def project_folder(*names):
    """Path of a folder of the project, relative to the current folder."""
    return os.path.relpath(Path(__file__).parent.joinpath(*names))


def is_surrogate(data_path):
    """True for the folder of the surrogate benchmark."""
    return os.path.realpath(data_path) == os.path.realpath(project_folder("data", SURROGATE))


def check_unpublished(path):
    """Raise InputError where `path`, links resolved, lies in the published run."""
    for name in ("results", "logs"):
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(project_folder(name, PUBLISHED))):
            raise InputError(f"{path}: part of the published run, which stays as it is: choose another folder")


def choose_folders(args):
    """Fill in the folders of `args` that are None: data_path, said in a line, results_path and log_path.

    Without the competition's files in data/ the surrogate benchmark is used; results and logs follow the data. Raises
    InputError where data_path is a file.
    """
    if args.data_path is None:
        data, surrogate = project_folder("data"), project_folder("data", SURROGATE)
        # One of the two files is enough: the other is then missed by name, never taken from the surrogate.
        if any(Path(data, name).exists() for name in (TRAIN_FILE, TEST_FILE)):
            args.data_path = data
            say(f"data: the competition's files in {data}")
        else:
            args.data_path = surrogate
            say(f"data: the surrogate benchmark in {surrogate}, as {data} lacks the competition's files")
    elif os.path.exists(args.data_path) and not os.path.isdir(args.data_path):
        raise InputError(f"--data_path {args.data_path}: is a file: expected the folder of {TRAIN_FILE}")
    below = [SURROGATE] if is_surrogate(args.data_path) else []
    for name, output in (("results_path", "results"), ("log_path", "logs")):
        if getattr(args, name, "") is None:
            setattr(args, name, project_folder(output, *below))
