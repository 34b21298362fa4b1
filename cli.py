"""What the scripts share at the command line. No torch here: `--help` and a wrong flag answer at once."""

import argparse
import errno
import os
import sys
from pathlib import Path

from tasks import TASKS, InputError, find_task, first_line


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, exit status 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


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
file_name = _checked(
    str,
    lambda s: s not in ("", ".", "..") and not set(s) & set("/\\\0"),
    "a name without a path, such as 'train_final'",
)


def _task(text):
    try:
        return find_task(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_folder(parser, flag, name, help):
    """A flag for a folder, by default the project's own folder `name`, wherever the script is run from."""
    default = os.path.relpath(Path(__file__).parent / name)
    parser.add_argument(flag, default=default, metavar="FOLDER", help=f"{help} (default: {default})")


def add_shared_arguments(parser):
    """The flags that training and scoring have in common."""
    add_folder(parser, "--data_path", "data", "folder of the competition's files")
    add_folder(parser, "--results_path", "results", "folder of the checkpoints")
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=_task,
        default=TASKS,
        metavar="TASK",
        help=f"only these of {', '.join(task.name for task in TASKS)} (default: all)",
    )
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")


def check_device(name):
    """Raise InputError unless torch can compute on the device called `name`."""
    import torch

    try:
        torch.empty(1, device=name)
    except Exception as error:
        raise InputError(f"--device {name}: {first_line(error)}") from None


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_folder(path):
    """Make a folder that can be written into; raises OSError."""
    Path(path).mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(path))


def describe(error):
    """An InputError or OSError in one line, whatever the text from a file in it is."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-400:]}"


def run(main):
    """Call `main()` and exit with the status it returns; a user's mistake is one line and status 2."""
    name = Path(sys.argv[0]).name
    try:
        status = main()
    except (InputError, OSError) as error:
        print(f"{name}: {describe(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
