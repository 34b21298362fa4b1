"""Train tasks side by side with a recipe: checkpoints, TensorBoard logs, progress, and --resume."""

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import checkpoint
import recipes
import surrogate
from dataset import TRAIN_FILE, encode, load_train
from files import InputError, count, make_folder, say, sha256
from folders import check_output, check_unpublished, choose_folders
from predictors import check_device
from tasks import TASKS, find_task
from workers import Result, cores, run_jobs


class Trained(NamedTuple):
    """Result of training one task whose checkpoint is saved."""

    summary: dict  # {column: number}, as Recipe.summary
    seconds: float = 0.0
    error: str | None = None  # why training ended early
    remark: str | None = None


def train_tasks(args):
    """Train the tasks of main.py's arguments, print a table, and return the exit status.

    Raises InputError and OSError for mistakes, before any training starts.
    """
    recipe = recipes.get(args.recipe)
    recipe.configure(TASKS[0], args.settings)  # before the data are read: the flags alone may be wrong
    check_device(args.device)
    choose_folders(args)
    surrogate.prepare(args.data_path)
    path = Path(args.data_path, TRAIN_FILE)
    architectures, ranks = load_train(path, args.tasks, say)
    for name, row in ranks.items():
        if not row.any():
            raise InputError(f"{path}: {name}: all labels are equal: there is no order to learn")
    tasks = [recipe.configure(find_task(name), args.settings) for name in ranks]
    steps = {task.name: recipe.train_steps(task, len(architectures)) for task in tasks}
    logs = Path(args.log_path, args.save_name)
    _check_outputs(recipe, tasks, args, logs)
    data, encodings = sha256(path), encode(architectures)

    results = {}
    if args.resume:
        before = {task.name: _trained_before(recipe, task, data, args) for task in tasks}
        results = {name: trained for name, trained in before.items() if trained}
        say(f"already trained on {path} with these settings and versions: {', '.join(results) or 'no task'}")
    tasks = [task for task in tasks if task.name not in results]
    # The longest first: the short ones fill the gaps at the end.
    tasks.sort(key=lambda task: -steps[task.name][0] * steps[task.name][1])
    jobs = [
        (task.name, _train_task, (recipe, task, encodings, ranks[task.name], data, args, logs / task.name))
        for task in tasks
    ]
    what = f"training {count(len(jobs), 'task')} on the {len(architectures)} architectures of {path}"
    say(what if jobs else "nothing left to train")
    progress = Progress({task.name: steps[task.name][0] for task in tasks}, args.log_interval)
    interrupted = False
    try:
        with contextlib.closing(run_jobs(jobs, args.jobs or cores(), args.device)) as messages:
            for name, message in messages:
                if isinstance(message, Result):
                    results[name] = message.value or message.error
                else:
                    progress.epoch(name, *message)
    except KeyboardInterrupt:
        interrupted = True
    progress.close()
    return _report({name: results[name] for name in ranks if name in results}, interrupted, args, logs)


def _check_outputs(recipe, tasks, args, logs):
    """Raise InputError or OSError where a checkpoint or a log could not be written."""
    try:
        str(logs).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{logs}: not UTF-8, which TensorBoard needs: choose another --log_path or --save_name"
        ) from None
    paths, folders = [recipe.path(args.results_path, task) for task in tasks], [logs / task.name for task in tasks]
    for path in (args.results_path, logs, *folders):
        check_unpublished(path)
    for folder in (args.results_path, logs, *folders):
        make_folder(folder)
    for path in paths:
        check_output(path, surrogate.input_files(args.data_path))


def _trained_before(recipe, task, data, args):
    """Result of an identical, completed run, read from its checkpoint; None where there is none."""
    path = recipe.path(args.results_path, task)
    try:
        content = recipe.load(path, task)
        recipe.snapshot_index(path, content)
    except (InputError, OSError):
        return None
    same = all(content.get(key, "") == value for key, value in recipe.header(task, data, args.device).items())
    return Trained(recipe.summary(content)) if same else None


def _train_task(send, recipe, task, encodings, ranks, data, args, logs):
    """In a process of its own: train, log and save one task; returns Trained."""
    began, sent = time.perf_counter(), 0.0
    threading.excepthook = lambda _: None  # TensorBoard's thread hands its error on to the next call
    earlier = list(logs.glob("*/events.out.tfevents.*"))
    header = recipe.header(task, data, args.device)
    last_epoch = recipe.train_steps(task, len(ranks))[0]
    try:
        with contextlib.ExitStack() as stack:
            writers = {}

            def writer(part):
                if part not in writers:
                    writers[part] = stack.enter_context(SummaryWriter(logs / part, flush_secs=1))
                return writers[part]

            def report(epoch, loss, train_ktau=None, validate_ktau=None):
                nonlocal sent
                writer("train").add_scalar(f"{task.name}/loss", loss, epoch)
                for part, ktau in (("train", train_ktau), ("validate", validate_ktau)):
                    if ktau is not None:
                        writer(part).add_scalar(f"{task.name}/ktau", ktau, epoch)
                if time.perf_counter() - sent > 0.1 or epoch % args.log_interval == 0 or epoch == last_epoch:
                    sent = time.perf_counter()
                    send((epoch, loss, train_ktau, validate_ktau))

            rows = "".join(f"| {name} | {value} |\n" for name, value in header["task"].items())
            writer("train").add_text(f"{task.name}/settings", f"| setting | value |\n|---|---|\n{rows}")
            content = header | recipe.fit(task, encodings, ranks, args.device, report)
            checkpoint.save(recipe.path(args.results_path, task), content)
    except OSError as error:
        error.filename = error.filename or str(logs)  # TensorBoard's errors do not name a file
        raise
    for file in earlier:  # of the run that this one replaces: TensorBoard would draw both as one curve
        file.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    return Trained(recipe.summary(content), seconds, content["stopped"], recipe.remark(content))


class Progress:
    """A bar for each task on a terminal; elsewhere a line for each task every few epochs."""

    def __init__(self, epochs, log_interval):
        """epochs: {task name: number of epochs}."""
        self.interval, self.epochs, self.bars = log_interval, epochs, {}
        if sys.stderr.isatty():
            for position, (name, total) in enumerate(epochs.items()):
                form = f"{name:<10} {{n_fmt:>4}}/{{total_fmt}} {{bar:20}} {{desc}}"
                self.bars[name] = tqdm(total=total, position=position, bar_format=form)

    def epoch(self, name, epoch, loss, train_ktau, validate_ktau):
        """Show one epoch's metrics."""
        figures = f"loss {loss:.4f}"
        if train_ktau is not None:
            figures += f"  tau train (dropout on) {train_ktau:7.4f}"
        if validate_ktau is not None:
            figures += f"  validation {validate_ktau:7.4f}"
        if self.bars:
            self.bars[name].n = epoch
            self.bars[name].set_description_str(figures)
        elif epoch % self.interval == 0 or epoch == self.epochs[name]:
            print(f"{name:<10} epoch {epoch:>4}/{self.epochs[name]}  {figures}", flush=True)

    def close(self):
        """Close the progress bars."""
        for bar in self.bars.values():
            bar.close()


def _report(results, interrupted, args, logs):
    """Print the table, remarks and errors of {task name: Trained or error}, and the next step; returns the status."""
    done = {name: result for name, result in results.items() if isinstance(result, Trained)}
    if done:
        print(table(done))
    for name, trained in done.items():
        if trained.remark:
            print(f"{name}: {trained.remark}")
    failed = False
    for name, result in results.items():
        error = result.error if name in done else result
        if error:
            failed = True
            print(f"main.py: {name}: {error}", file=sys.stderr)
    if interrupted:
        print(f"main.py: interrupted; finished: {', '.join(done) or 'no task'}", file=sys.stderr)
        return 130
    if done:
        say(f"checkpoints: {args.results_path}; curves: tensorboard --logdir {args.log_path} ({logs})")
        say(f"next: bash test.sh{args.scoring_flags} ranks the test architectures")
    return 1 if failed else 0


def table(done):
    """Results as text: a line for each task of {name: Trained}, and the means of the columns that hold floats."""
    rows = {name: trained.summary | {"seconds": trained.seconds} for name, trained in done.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    floats = [c for c in columns[:-1] if all(isinstance(row[c], float) for row in rows.values())]
    if floats:
        rows["mean"] = {c: sum(row[c] for row in rows.values()) / len(rows) for c in floats}
    lines = ["  ".join([f"{'task':<10}", *(f"{column:>9}" for column in columns)])]
    for name, row in rows.items():
        cells = [f"{name:<10}"]
        for column in columns:
            text = "" if column not in row else f"{row[column]:.4f}" if column in floats else f"{row[column]:.4g}"
            cells.append(text.rjust(max(9, len(column))))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
