"""Train tasks side by side with a recipe: checkpoints, TensorBoard logs, and --resume."""

import contextlib
import fcntl
import math
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.tensorboard import SummaryWriter

import recipes
from common.files import InputError, log, write_file
from common.metrics import kendall_tau
from common.paths import check_output
from common.processes import JobResult, cores, run_jobs
from dataset import Labels, digest, load_train
from engine.checkpoint import to_bytes
from engine.trained import header, learn, load_checkpoint
from recipes.base import Recipe, TooFewError
from tasks import Task, find_task

SORTED = 0.2  # tau of labels and places from which a file is taken for sorted


class TrainedTask(NamedTuple):
    """A task whose checkpoint is saved."""

    summary: dict  # {column: number}, as Recipe.summary
    seconds: float = 0.0
    error: str | None = None  # why training ended early
    remark: str | None = None


class TrainingResult(NamedTuple):
    """What became of each task."""

    trained: dict  # {task name: TrainedTask}
    errors: dict  # {task name: a line that says why it has no new checkpoint}
    interrupted: bool  # by Ctrl-C; what is trained stays


class TrainingJob(NamedTuple):
    """What it takes to train one task."""

    recipe: Recipe
    task: Task
    labels: Labels
    device: str
    header: dict  # of the checkpoint
    path: Path  # of the checkpoint
    logs: Path  # folder of the TensorBoard files

    @property
    def steps(self):
        """(epochs, batches an epoch); raises TooFewError."""
        return self.recipe.train_steps(self.task, len(self.labels.ranks))


def train(
    data,
    tasks=None,
    *,
    recipe=recipes.DEFAULT,
    settings=None,
    results=None,
    logs=None,
    jobs=None,
    resume=False,
    device="cpu",
    report=None,
    raise_errors=True,
):
    """Train a predictor for each task: TrainingResult.

    data: dataset.Data; tasks: names, by default all that the training file labels; settings: {field of tasks.Task:
    value} for all tasks; results, logs: folders of the checkpoints and of the TensorBoard files, by default the data's;
    jobs: tasks side by side, by default the number of cores; resume: skip tasks already trained on this data with these
    settings, versions and this code; report: called after each epoch as report(task name, epoch, number of epochs,
    loss, train tau, validation tau), None for what is not known; raise_errors: raise InputError where a task fails, and
    log remarks as warnings, instead of leaving both to the result.

    Raises InputError, TooFewError and OSError for mistakes, before any training starts.
    """
    recipe = recipes.get(recipe, data.space)
    logs = Path(logs or data.logs / f"train_{recipe.suffix}")
    data.check_owner(results if data.logs not in logs.parents else None)
    is_default, results = not results, Path(results or data.results)
    entries, labels = load_train(data.train_file, tasks, data.space)
    content, todo = digest(entries), []
    for name, of_task in labels.items():
        task = recipe.configure(find_task(name), settings or {})
        outputs = header(recipe, task, content, device), recipe.path(results, task), logs / name
        todo.append(TrainingJob(recipe, task, of_task, device, *outputs))
    _check_sizes(todo)
    todo.sort(key=lambda job: -math.prod(job.steps))  # the longest first: the short ones fill the gaps at the end
    with contextlib.ExitStack() as stack:
        for job in todo:
            _check_outputs(data, job)
        for job in todo:
            stack.enter_context(_locked(job.logs / ".lock"))
            stack.enter_context(_locked(job.path.with_name(f".{job.path.name}.lock")))
        if is_default:
            data.own()
        trained = _trained_before(data, todo, resume)
        todo = [job for job in todo if job.task.name not in trained]
        count = max(len(of_task.ranks) for of_task in labels.values())
        log.info(f"training {len(todo)} of {len(labels)} tasks on the {count} architectures of {data.train_file}")
        _warn_of_order(todo)
        errors, interrupted = _run(todo, trained, jobs or cores(), device, report)
    if raise_errors and interrupted:
        raise KeyboardInterrupt
    if raise_errors and errors:
        raise InputError("; ".join(f"{name}: {error}" for name, error in errors.items()))
    for name, task in trained.items():
        if raise_errors and (task.error or task.remark):
            log.warning(f"{name}: {task.error or task.remark}")
    return TrainingResult({name: trained[name] for name in labels if name in trained}, errors, interrupted)


def _warn_of_order(todo):
    """Warn where a part of the file validates and the labels follow the order of the file."""
    sorted_tasks = []
    for job in todo:
        ranks = torch.from_numpy(job.labels.ranks)[None]
        tau = kendall_tau(torch.arange(ranks.shape[1])[None], ranks)
        if "train_ratio" in job.recipe.settings and abs(tau) > SORTED:
            sorted_tasks.append(job.task.name)
    if names := ", ".join(sorted_tasks):
        log.warning(f"{names}: the labels follow the order of the file, whose last entries validate: shuffle the file")


def _check_sizes(todo):
    """Raise TooFewError for the task that needs most, with a batch size that works for all."""
    errors = []
    for job in todo:
        try:
            _ = job.steps
        except TooFewError as error:
            errors.append(error)
    if errors:
        worst = max(errors, key=lambda error: error.needed)
        worst.batch_size = min(min(job.task.split_sizes(len(job.labels.ranks))) for job in todo)
        raise worst


def _check_outputs(data, job):
    """Raise InputError or OSError where the checkpoint or the logs could not be written."""
    try:
        str(job.logs).encode()
    except UnicodeEncodeError:
        raise InputError(f"{job.logs}: not UTF-8, which TensorBoard needs: choose another folder or name") from None
    check_output(job.logs / "events")
    check_output(job.path, [data.train_file, data.test_file])


@contextlib.contextmanager
def _locked(path):
    """Keep other trainings out while this file is there; the lock ends with the process."""
    descriptor, is_ours = os.open(path, os.O_CREAT | os.O_RDWR), True
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_ours = False
                what = f"{path.parent}: another training of the same name writes there"
                raise InputError(f"{what}: wait, or choose another save_name and results_path") from None
        yield
    finally:
        if is_ours:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _trained_before(data, todo, resume):
    """{task name: TrainedTask} of identical, completed runs with `resume`; says which checkpoints will be replaced."""
    trained, foreign, otherwise = {}, [], {}
    for job in todo:
        if not job.path.exists():
            continue
        try:
            checkpoint = load_checkpoint(job.recipe, job.path, job.task).checkpoint
            changes = _changes(checkpoint, job.header)
            summary = job.recipe.summary(checkpoint)
            _ = [f"{number:.4f}" for number in summary.values()]  # raises for other content
        except Exception:  # not a checkpoint, or one with other content than ours
            foreign.append(job.task.name)
            continue
        if resume and not changes:
            trained[job.task.name] = TrainedTask(summary)
            _restore_logs(job.logs)
        elif checkpoint.get("data") != job.header["data"]:
            foreign.append(job.task.name)
        elif resume or checkpoint["task"] != job.header["task"]:
            otherwise.setdefault("; ".join(changes), []).append(job.task.name)
    if resume:
        log.info(f"already trained on {data.train_file} with these settings: {', '.join(trained) or 'no task'}")
    for changes, names in otherwise.items():
        keep = "" if resume else ": to keep them, choose another results_path and save_name"
        log.warning(f"replaces checkpoints of {', '.join(names)}: {changes}{keep}")
    if foreign:
        log.warning(f"replaces checkpoints that were not trained on {data.train_file}: {', '.join(foreign)}")
    return trained


def _changes(checkpoint, wanted):
    """What differs between the header of a checkpoint and the wanted one: texts such as "seed 1, now 2"."""
    changes = [f"stopped early, {checkpoint['stopped']}"] if checkpoint.get("stopped") else []
    for key in ("task", "versions"):
        was, now = checkpoint.get(key, {}), wanted[key]
        changes += [f"{name} {was.get(name)}, now {value}" for name, value in now.items() if was.get(name) != value]
    changes += ["other data"] if checkpoint.get("data") != wanted["data"] else []
    return changes + (["the recipe's code has changed"] if checkpoint.get("code") != wanted["code"] else [])


def _run(todo, trained, processes, device, report):
    """Run the jobs and add to `trained`: ({task name: error}, whether Ctrl-C ended it)."""
    errors, interrupted = {}, False
    jobs = [(job.task.name, _train_task, (job,)) for job in todo]
    try:
        with contextlib.closing(run_jobs(jobs, processes, device)) as messages:
            for name, message in messages:
                if not isinstance(message, JobResult):
                    if report:
                        report(name, *message)
                elif message.error:
                    errors[name] = message.error
                else:
                    trained[name] = message.value
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for job in todo:
            if job.task.name not in trained:
                _restore_logs(job.logs)
    return errors, interrupted


def _train_task(send, job):
    """In a process of its own: train, log and save one task; returns TrainedTask."""
    began, name, epochs = time.perf_counter(), job.task.name, job.steps[0]
    threading.excepthook = lambda _: None  # TensorBoard's thread hands its error on to the next call
    _set_logs_aside(job.logs)
    try:
        with contextlib.ExitStack() as stack:
            writers = {}
            rows = "".join(f"| {key} | {value} |\n" for key, value in job.header["task"].items())

            def write(part, tag, value, epoch):
                if value is None:
                    return
                if part not in writers:
                    writers[part] = stack.enter_context(SummaryWriter(job.logs / part, flush_secs=1))
                    writers[part].add_text(f"{name}/settings", f"| setting | value |\n|---|---|\n{rows}")
                writers[part].add_scalar(f"{name}/{tag}", value, epoch)

            def report(epoch, loss=None, train_tau=None, validation_tau=None):
                write("train", job.recipe.loss_name, loss, epoch)
                write("train", "ktau", train_tau, epoch)
                write("validate", "ktau", validation_tau, epoch)
                send((epoch, epochs, loss, train_tau, validation_tau))

            fitted, is_constant = learn(job.recipe, job.task, job.labels, job.device, report)
            checkpoint = job.header | fitted
            write_file(job.path, to_bytes(checkpoint))
    except OSError as error:
        error.filename = error.filename or str(job.logs)  # TensorBoard's errors do not name a file
        raise
    for file in job.logs.glob(PREVIOUS):
        file.unlink()
    constant = "gives one score to all architectures: it ranks nothing" if is_constant else None
    seconds = time.perf_counter() - began
    return TrainedTask(
        job.recipe.summary(checkpoint), seconds, checkpoint["stopped"], constant or job.recipe.remark(checkpoint)
    )


# TensorBoard draws all event files of a folder as one run. While a task trains, the files of the run before it have
# names that TensorBoard does not read; they go when the new checkpoint is saved, and come back when it is not.
EVENTS, PREVIOUS = "*/events.out.tfevents.*", "*/events.out.previous.*"


def _set_logs_aside(logs):
    complete = list(logs.glob(PREVIOUS))  # of the last complete run, if a killed one left its own beside them
    for file in logs.glob(EVENTS):
        if complete:
            file.unlink()
        else:
            file.rename(file.with_name(file.name.replace("tfevents", "previous")))


def _restore_logs(logs):
    complete = list(logs.glob(PREVIOUS))
    for file in logs.glob(EVENTS) if complete else ():
        file.unlink()
    for file in complete:
        file.rename(file.with_name(file.name.replace("previous", "tfevents")))
