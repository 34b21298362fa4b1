"""Flags and one-line errors of the commands. Does not import torch, so that `--help` is instant."""

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from common.files import InputError, describe, log, printable
from recipes import DEFAULT, RECIPES
from tasks import TASKS, find_task


class Parser(argparse.ArgumentParser):
    """Report a wrong flag in one line, with exit status 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: {printable(message)} (see --help)\n")


def _checked(convert, valid, expected):
    def check(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not valid(value):
            raise argparse.ArgumentTypeError(f"'{text}': expected {expected}")
        return value

    return check


positive = _checked(int, lambda n: n > 0, "an integer above 0")
top = _checked(int, lambda n: 0 < n <= 1000, "an integer from 1 to 1,000")
seed = _checked(int, lambda n: 0 <= n < 2**32, "an integer from 0 to 2**32 - 1")
folder = _checked(str, bool, "a folder's name")
output_file = _checked(Path, lambda path: path.name not in ("", ".."), "a file's name")
file_name = _checked(
    str,
    lambda s: s not in ("", ".", "..") and not set(s) & set("/\\\0"),
    "a name without a path, such as 'train_final'",
)
task_name = _checked(lambda text: find_task(text).name, bool, "a task's name, such as sop")


def add_tasks(parser, default):
    """Add --tasks; `default` describes in the help which tasks are used without the flag."""
    names = ", ".join(task.name for task in TASKS)
    help = f"only these, such as {names} (default: {default})"
    parser.add_argument("--tasks", nargs="+", action="extend", type=task_name, metavar="TASK", help=help)


def add_data(parser):
    """Add the flags for the data and its tasks."""
    add_tasks(parser, "all that the training file labels")
    default = "data, or data/surrogate if the competition's files are not there"
    parser.add_argument("--data_path", type=folder, metavar="FOLDER", help=f"folder of the files (default: {default})")


def add_output(parser, flag, name, help):
    """Add a flag for a folder of outputs."""
    default = f"{name}, or {name}/NAME with --data_path NAME"
    parser.add_argument(flag, type=folder, metavar="FOLDER", help=f"{help} (default: {default})")


def add_recipe(parser):
    """Add the flag for the recipe."""
    help = "method of training and scoring (see recipes/); gp ranks best (default: %(default)s)"
    parser.add_argument("--recipe", choices=RECIPES, default=DEFAULT, help=help)


def add_predictors(parser):
    """Add the flags for trained predictors: data, tasks, recipe, checkpoints and device."""
    add_data(parser)
    add_output(parser, "--results_path", "results", "folder of the checkpoints")
    add_recipe(parser)
    add_device(parser)


def add_device(parser):
    """Add the flag for the device."""
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")


def run(main):
    """Call `main()` and exit with the status it returns; a user's mistake is one line and status 2."""
    name = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a path that the terminal's encoding lacks
    handler = logging.StreamHandler(sys.stdout)
    handler.format = lambda record: printable(record.getMessage())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()  # here, where a failure can be reported
    except (InputError, OSError, MemoryError) as error:
        if isinstance(error, OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the exit would try the failed write again
        print(f"{name}: {describe(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: let Python exit
    gc.freeze()  # collecting torch's modules at the exit takes half a second and finds nothing
    sys.exit(status)


def messages_to_stderr():
    """Keep standard output for a command's answer."""
    log.handlers[0].setStream(sys.stderr)
