"""Where the project's own folders are, and whether an output may be written."""

import errno
import os
from pathlib import Path

from common.files import InputError, check_file

PUBLISHED = "published"  # in results/ and logs/: the project's own run; only tools/publish.py writes there


def project_path(*names):
    """Path of a file or folder of the project, relative to the current folder."""
    return os.path.relpath(Path(__file__).parents[1].joinpath(*names))


def make_folder(path):
    """Make a folder that can be written into; raises OSError."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(path))


def check_output(path, inputs=()):
    """Make the folder of the output file `path`; raise where writing it would fail or replace what has to stay.

    Raises InputError where it lies in the published run or is the same file as one of the `inputs`, links resolved;
    OSError where it cannot be written.
    """
    check_file(path)
    real = Path(os.path.realpath(path))
    for name in ("results", "logs"):
        if real.is_relative_to(os.path.realpath(project_path(name, PUBLISHED))):
            raise InputError(f"{path}: part of the published run, which stays as it is: choose another folder")
    for other in inputs:
        same = real == Path(os.path.realpath(other))
        if same or (os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)):
            raise InputError(f"{path}: would replace {other}, which this command reads or writes: choose another name")
    make_folder(real.parent)
