"""What the scripts share at the command line. No torch here: `--help` and a wrong flag answer at once."""

import argparse
import errno
import gc
import os
import sys
from pathlib import Path

from tasks import RECIPES, TASKS, InputError, find_task, first_line


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, exit status 2."""

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
    """Keeps the table's order, each task once."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(task for task in TASKS if task in values))


def own_folder(*names):
    """The project's own folder of that name, wherever the script is run from."""
    return os.path.relpath(Path(__file__).parent.joinpath(*names))


def add_output(parser, flag, name, help):
    """A flag for a folder; choose_folders fills it in where it is not given."""
    default = f"{own_folder(name)}; on the surrogate benchmark {own_folder(name, 'surrogate')}"
    parser.add_argument(flag, metavar="FOLDER", help=f"{help} (default: {default})")


def add_shared_arguments(parser):
    """The flags that training and scoring have in common; choose_folders fills in the folders that are not given."""
    add_data(parser)
    add_output(parser, "--results_path", "results", "folder of the checkpoints")
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")


def add_data(parser):
    """The flags for the data and its tasks."""
    default = f"{own_folder('data')}; where it lacks them the surrogate benchmark, {own_folder('data', 'surrogate')}"
    parser.add_argument("--data_path", metavar="FOLDER", help=f"folder of the competition's files (default: {default})")
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=_task,
        action=_TasksAction,
        default=TASKS,
        metavar="TASK",
        help=f"only these of {', '.join(task.name for task in TASKS)} (default: all)",
    )


def add_recipe(parser, kind):
    """The flag for the recipe and that for the name of what is written, which by default is `kind` and the recipe."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="reference",
        help="the reference's method, or an ensemble, which ranks better (default: reference)",
    )
    default = " or ".join(f"{kind}_{recipe.ending}" for recipe in RECIPES.values())
    parser.add_argument("--save_name", type=file_name, help=f"name of what is written (default: {default})")


def choose_recipe(args, kind):
    """Fill in what the recipe decides: the tasks with its settings, and the name if it was not given."""
    recipe, names = RECIPES[args.recipe], [task.name for task in args.tasks]
    args.tasks = tuple(task for task in recipe.tasks if task.name in names)
    args.save_name = args.save_name or f"{kind}_{recipe.ending}"


def choose_folders(args):
    """Fill in the folders that were not given: the data, said in a line, and the outputs, which follow the data.

    Makes the surrogate's files where they are used and missing. Raises as surrogate.make.
    """
    from dataset import TEST_FILE, TRAIN_FILE
    from surrogate import make

    surrogate = own_folder("data", "surrogate")
    if args.data_path is None:
        data = own_folder("data")
        # One of the two files is enough: the other is then missed by name, never taken from the surrogate.
        if any(Path(data, name).exists() for name in (TRAIN_FILE, TEST_FILE)):
            args.data_path = data
            print(f"data: the competition's files in {data}", flush=True)
        else:
            args.data_path = surrogate
            print(f"data: the surrogate benchmark in {surrogate}, as {data} lacks the competition's files", flush=True)
    below = []
    if Path(args.data_path).resolve() == Path(surrogate).resolve():
        make(args.data_path)
        below = ["surrogate"]
    for name, output in (("results_path", "results"), ("log_path", "logs")):
        if getattr(args, name, "") is None:
            setattr(args, name, own_folder(output, *below))


def load_checkpoints(args):
    """Choose the folders and read the checkpoints: [(path, content)], one for each of args.tasks.

    Without --results_path, the published checkpoint in results/ stands in for a task that was not trained on the data,
    and a line says so. Raises as choose_folders and checkpoint.load.
    """
    import checkpoint

    given = args.results_path is not None
    choose_folders(args)
    train, data = training_file(args)
    published = own_folder("results")
    loaded, untrained = [], []
    for task in args.tasks:
        path = checkpoint.path_of(args.results_path, task)
        content = checkpoint.load(path, task) if given or path.exists() else {}
        if not given and (data is None or content.get("data") != data):
            untrained.append(task.name)
            path = checkpoint.path_of(published, task)
            content = checkpoint.load(path, task)
        loaded.append((path, content))
    if untrained:
        print(f"not trained on {train}: {', '.join(untrained)}; using the published checkpoints in {published}")
    return loaded


def training_file(args):
    """(path, fingerprint) of the training file beside the data that is scored; None where there is none."""
    import checkpoint
    from dataset import TRAIN_FILE

    path = Path(args.data_path, TRAIN_FILE)
    return path, checkpoint.fingerprint(path) if path.exists() else None


def check_device(name):
    """Raise InputError unless torch can compute on the device called `name`."""
    import torch

    try:
        torch.zeros(1, device=name).item()  # "meta" holds no numbers
    except Exception as error:
        raise InputError(f"--device {name}: {first_line(error)}") from None


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_folder(path):
    """Make a folder that can be written into; raises OSError."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(path))


def describe(error):
    """An InputError, OSError or MemoryError in one line, whatever the text from a file in it is."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    text = _shortened(text)  # the next line would take seconds for the longest
    return _shortened("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _shortened(text):
    return text if len(text) <= 1000 else f"{text[:500]} ... {text[-400:]}"


def run(main):
    """Call `main()` and exit with the status it returns; a user's mistake is one line and status 2.

    Where this Python lacks a package, the script is run again with that of .venv, if there is one.
    """
    name = Path(sys.argv[0]).name
    gc.disable()  # searching torch's modules for garbage, then and at the exit, takes half a second; there is none
    for stream in ("stdin", "stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by the caller: the next file opened would be taken for it
            setattr(sys, stream, open(os.devnull, "r+"))  # noqa: SIM115
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()  # here, where its failing can be said
    except (InputError, OSError, MemoryError) as error:
        if isinstance(error, OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what failed is not tried again at the exit
        print(f"{name}: {describe(error)}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        environment = Path(__file__).parent.joinpath(".venv").resolve()  # what env.sh makes; this may be another Python
        python = environment / "bin" / "python"
        if python.exists() and Path(sys.prefix).resolve() != environment:
            os.execv(python, [python, *sys.argv])
        print(f"{name}: {error}: bash train.sh installs what is needed", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    gc.freeze()
    sys.exit(status)
