"""Flags and error messages shared by the scripts. Does not import torch, so that `--help` is instant."""

import argparse
import gc
import os
import signal
import sys
from pathlib import Path

import startup
from files import InputError, describe
from folders import SURROGATE, project_folder
from recipes import DEFAULT, RECIPES
from tasks import TASKS, find_task


class Parser(argparse.ArgumentParser):
    """Report a wrong flag in one line, with exit status 2."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(2, f"{self.prog}: {describe(InputError(message))} (see --help)\n")


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
output_file = _checked(Path, lambda path: path.name not in ("", ".."), "a file's name")
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


class _TasksAction(argparse.Action):
    """Store the tasks in the order of tasks.TASKS, without duplicates."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(task for task in TASKS if task in values))


def add_output(parser, flag, name, help):
    """Add a flag for a folder, which choose_folders fills in where it is not given."""
    default = f"{project_folder(name)}; on the surrogate benchmark {project_folder(name, SURROGATE)}"
    parser.add_argument(flag, metavar="FOLDER", help=f"{help} (default: {default})")


def add_data(parser):
    """Add the flags for the data and its tasks."""
    add_tasks(parser, "all that the training file labels")
    default = f"{project_folder('data')}, or the surrogate benchmark if they are not there"
    parser.add_argument("--data_path", metavar="FOLDER", help=f"folder of the competition's files (default: {default})")


def add_tasks(parser, default):
    """Add --tasks; `default` describes in the help which tasks are used without the flag."""
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=_task,
        action=_TasksAction,
        metavar="TASK",
        help=f"only these of {', '.join(task.name for task in TASKS)} (default: {default})",
    )


def add_recipe(parser, save_name=None):
    """Add --recipe and, given a `save_name`, --save_name with the default <save_name>_<the recipe's suffix>."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=DEFAULT,
        help="method of training and scoring (see recipes/); gp ranks best (default: %(default)s)",
    )
    if save_name:
        default = f"{save_name}_final; {save_name}_RECIPE with another recipe"
        parser.add_argument("--save_name", type=file_name, help=f"name of the output (default: {default})")
        parser.set_defaults(save_prefix=save_name)


def add_predictors(parser):
    """Add the flags for trained predictors: data, tasks, checkpoints and device."""
    add_data(parser)
    add_output(parser, "--results_path", "results", "folder of the checkpoints")
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")


def add_largest(parser):
    """Add --largest, for labels where larger is better."""
    parser.add_argument("--largest", action="store_true", help="larger labels are better, as with accuracies")


def fill_save_name(args):
    """Fill in the name of the output where it is not given."""
    args.save_name = args.save_name or f"{args.save_prefix}_{RECIPES[args.recipe]}"


def run(main):
    """Call `main()` and exit with the status it returns; a user's mistake is one line and status 2."""
    name = Path(sys.argv[0]).name
    gc.disable()  # collecting torch's modules, now and at the exit, takes half a second and finds nothing
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()  # here, where a failure can be reported
    except MemoryError as error:
        startup.end(describe(error), 2)  # Python's own exit may need memory, too
    except ModuleNotFoundError:
        raise  # startup looks for the Python that has the module
    except (InputError, OSError, ImportError) as error:
        if isinstance(error, OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the exit would try the failed write again
        print(f"{name}: {describe(error)}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: let Python exit
    gc.freeze()
    sys.exit(status)
