"""The project's folders: data, results and logs, and which of them a command uses."""

import contextlib
import os
from pathlib import Path

from files import InputError, check_file, make_folder, say

TRAIN_FILE = "CVPR_2022_NAS_Track2_train.json"
TEST_FILE = "CVPR_2022_NAS_Track2_test.json"
PUBLISHED = "published"  # in results/ and logs/: the project's own run; only tools/publish.py writes there
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


def check_output(path, inputs):
    """Make the folder of the output file `path`; raise where writing it would fail or replace one of the `inputs`.

    Raises InputError where it is the same file as an input, links resolved, or in the published run; OSError where it
    cannot be written.
    """
    check_unpublished(path)
    check_file(path)
    for other in inputs:
        same = os.path.realpath(path) == os.path.realpath(other)
        if same or (os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)):
            raise InputError(f"{path}: would replace {other}, which this command reads or writes: choose another name")
    make_folder(Path(os.path.realpath(path)).parent)
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)  # raises where its name is too long


def choose_folders(args):
    """Set the folders of `args` that are None: data_path, results_path and log_path.

    data_path becomes data/ or, if neither of the competition's files is there, the surrogate benchmark; a line of
    output says which. The surrogate has its own results and logs. Raises InputError where data_path is a file.
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
