"""Flags, progress and one-line errors of the commands. Does not import torch, so that `--help` is instant."""

import argparse
import atexit
import errno
import gc
import logging
import math
import os
import shlex
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from common.files import InputError, describe, first_line, log, printable
from common.paths import PUBLISHED, project_path
from recipes import DEFAULT, RECIPES
from tasks import FILES, TASKS, find_task

PROBABILITY = 0.8  # with which the intervals that the commands print hold the true rank


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
first_seed = _checked(int, lambda n: 0 <= n < 2**31, "an integer from 0 to 2**31 - 1")
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


def add_recipe(parser, default=DEFAULT):
    """Add the flag for the recipe."""
    help = "method of training and scoring, see recipes/ (default: %(default)s)"
    parser.add_argument("--recipe", choices=RECIPES, default=default, help=help)


def add_predictors(parser):
    """Add the flags for trained predictors of any recipe."""
    add_recipe(parser)
    add_checkpoints(parser)


def add_checkpoints(parser):
    """Add the flags for trained predictors of one recipe: data, tasks, checkpoints and device."""
    add_data(parser)
    add_output(parser, "--results_path", "results", "folder of the checkpoints")
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda (default: cpu)")


def check_device(name):
    """Raise InputError unless torch can compute on the device called `name`."""
    import torch

    try:
        torch.zeros(1, device=name).item()  # "meta" holds no numbers
    except Exception as error:
        raise InputError(f"--device {name}: {first_line(error)}") from None


def default_folder():
    """Path of the folder with the competition's files, or the surrogate's if both are missing."""
    # If either file is there, use this folder; a missing other file is then an error, not replaced by the surrogate's.
    has_files = any(Path(project_path("data", name)).exists() for name in FILES)
    return project_path("data") if has_files else project_path("data", "surrogate")


def is_surrogate(data):
    """Whether this is the folder of the surrogate benchmark."""
    from data.surrogate import generate

    return os.path.samefile(data.folder, generate.FOLDER)


def open_data(given=None, flag="--data_path"):
    """dataset.Data of the folder of the flag, or of the default one; makes the surrogate's files where they lack."""
    from data.surrogate import generate
    from dataset import find_data

    try:
        data = find_data(given or default_folder())
    except InputError as error:
        raise InputError(f"{flag} {error}") from None
    if given is None:
        surrogate = f"the surrogate benchmark, as {project_path('data')} lacks the competition's files"
        log.info(f"data: {data.folder}, {surrogate if is_surrogate(data) else 'the competition files'}")
    if is_surrogate(data):
        try:
            generate.make(data.folder)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS):
                command = f"python {quoted_path('tools', 'surrogate.py')} --output FOLDER"
                error.strerror += f": make it elsewhere: {command}, then --data_path FOLDER"
            raise
    return data


def load_predictors(args, data, snapshot=None):
    """Predictors that the flags of add_predictors choose, as engine.predictors.load; says a missing one's command."""
    from engine.predictors import MissingError, load

    check_device(args.device)
    train = lambda tasks: f"python {quoted_path('main.py')}{flags(data, args.recipe, tasks, args.results_path)}"  # noqa: E731
    try:
        predictors = load(args.tasks, data=data, recipe=args.recipe, results=args.results_path, snapshot=snapshot)
    except MissingError as error:
        others = f"; there are checkpoints of --recipe {' or '.join(error.recipes)}" if error.recipes else ""
        raise InputError(f"{error}: train it: {train(error.tasks)}{others}") from None
    stale = [each.task.name for each in predictors if each.is_foreign and PUBLISHED not in each.path.parts]
    if stale:
        log.warning(f"to update: {train(stale)}")
    return predictors


def quoted_path(*names):
    """Path of a file of the project for a command that is printed: quoted for the shell where it has to be."""
    return shlex.quote(project_path(*names))


def flags(data, recipe, tasks=None, results=None):
    """Flags that make a command use this data, recipe name, task names and folder of checkpoints, each as needed."""
    words = ["--recipe", recipe] if recipe != DEFAULT else []
    words += ["--data_path", data.folder] if not os.path.samefile(data.folder, default_folder()) else []
    words += ["--results_path", results] if results else []
    words += ["--tasks", *tasks] if tasks else []
    return "".join(f" {shlex.quote(str(word))}" for word in words)


def short(number):
    """A cost in four digits: 68.68M, 14.07G, 0.012."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(number) >= unit:
            return f"{number / unit:.4g}{name}"
    return f"{number:.6g}"


def decisions_text(values):
    """What space.Space.values says, in a line: "depth 10, heads 12 11 ..."."""
    texts = {name: " ".join(map(str, of)) if isinstance(of, list) else of for name, of in values.items()}
    return ", ".join(f"{name} {of}" for name, of in texts.items())


def _pair(least, example):
    """NAME=VALUE with a finite value of at least `least`: (name, value)."""

    def convert(text):
        name, _, value = text.rpartition("=")
        return (name, float(value)) if name else None

    return _checked(convert, lambda pair: least <= pair[1] < math.inf, f"NAME=VALUE, such as {example}")


budget, weight = _pair(-1e300, "params=70e6"), _pair(0, "latency=0.5")


def checked_budgets(args, space):
    """Budgets of --max: {cost: largest value}; raises InputError where the space has no such cost or nothing within."""
    try:
        space.limits(dict(args.max))
    except InputError as error:
        raise InputError(f"--max: {error}") from None
    return dict(args.max)


def add_json(parser, help):
    """Add --json for a file that the command writes."""
    parser.add_argument("--json", type=output_file, metavar="FILE", help=help)


def add_jobs(parser, what):
    """Add --jobs, the number of processes."""
    parser.add_argument("--jobs", type=positive, help=f"{what} (default: the number of cores)")


def add_seed(parser, what):
    """Add --seed."""
    parser.add_argument("--seed", type=seed, default=0, help=f"seed of {what} (default: 0)")


def add_seeds(parser, default):
    """Add --seeds and --first, for consecutive seeds."""
    help = f"how many seeds (default: {default})"
    parser.add_argument("--seeds", type=positive, default=default, metavar="N", help=help)
    parser.add_argument("--first", type=first_seed, default=0, metavar="SEED", help="the first of them (default: 0)")


def add_budgets(parser):
    """Add --max."""
    help = "only architectures whose cost NAME (of space.json; params, macs) is at most VALUE; may be repeated"
    parser.add_argument("--max", nargs="+", action="extend", default=[], type=budget, metavar="NAME=VALUE", help=help)


class Progress:
    """A bar for each task on a terminal; elsewhere a line for each task every few epochs."""

    def __init__(self, log_interval):
        self.interval, self.bars, self.validation_taus = log_interval, {}, {}

    def __call__(self, name, epoch, epochs, loss, train_tau, validation_tau):
        """Show one epoch of the task `name`; a tau of None was not measured; it is NaN where all have one score.

        A bar fits 80 columns for names of up to 10 characters, and shows the last validation tau that was measured.
        """
        if not sys.stderr.isatty():
            if epoch % self.interval == 0 or epoch == epochs:
                of = f"/{epochs}" if epoch <= epochs else ""
                taus = {"tau train (dropout on)": train_tau, "validation": validation_tau}
                figures = _figures(loss, taus, "none, as all scores are equal")
                print(f"{name:<10} epoch {epoch:>4}{of}  {figures}", flush=True)
            return
        if name not in self.bars:
            form = f"{name:<10} {{n_fmt:>3}}/{{total_fmt}} {{bar:6}} {{desc}}"
            self.bars[name] = tqdm(total=epochs, position=len(self.bars), bar_format=form)
        bar = self.bars[name]
        if validation_tau is not None:
            self.validation_taus[name] = validation_tau
        taus = {"tau train": train_tau, "validation": self.validation_taus.get(name)}
        bar.set_description_str(_figures(loss, taus, f"{'none':>7}"), refresh=False)
        bar.update(epoch - bar.n)
        if epoch == epochs:
            bar.refresh()

    def close(self, finished=()):
        """Leave the bars as they are, those of the tasks `finished` full: a recipe may need fewer epochs."""
        for name, bar in self.bars.items():
            if name in finished:
                bar.total = bar.n
            bar.close()


def _figures(loss, taus, undefined):
    """Text of a loss and of {name: tau}; undefined: what is said of NaN."""
    known = {name: tau for name, tau in taus.items() if tau is not None}
    texts = [f"{name} {undefined if math.isnan(tau) else f'{tau:7.4f}'}" for name, tau in known.items()]
    return "  ".join([*([] if loss is None else [f"loss {loss:.4f}"]), *texts])


def _raise(record):
    raise  # the failure of a handler, a broken pipe or a full disk, ends the command


def call(main, argv=None):
    """Call `main(argv)`: the status that it returns, 0 for None; a user's mistake is one line and status 2."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    name, level, handler = Path(sys.argv[0]).name, log.level, logging.StreamHandler(sys.stdout)
    handler.format = lambda record: printable(record.getMessage())
    handler.handleError = _raise
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        try:
            return main(argv) or 0
        finally:
            sys.stdout.flush()  # here, where a failure can be reported
    except (InputError, OSError, MemoryError) as error:
        if isinstance(error, OSError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the exit would try the failed write again
        print(f"{name}: {describe(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def run(main):
    """Call `main()` and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path that the terminal's encoding lacks
    status = call(main)
    # When Python exits, which in a notebook is later: the work is done, let Python exit; and collecting
    # torch's modules takes half a second and finds nothing.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    atexit.register(gc.freeze)
    if status or "IPython" not in sys.modules:
        sys.exit(status)


def messages_to_stderr():
    """Keep standard output for a command's answer."""
    log.handlers[-1].setStream(sys.stderr)
