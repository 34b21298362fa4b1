"""Train tasks side by side with a recipe: checkpoints, TensorBoard logs, and --resume."""

import contextlib
import fcntl
import math
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

import recipes
from common.files import InputError, log, sha256, write_file
from common.paths import check_output
from common.processes import JobResult, cores, run_jobs
from dataset import Labels, load_train
from engine.checkpoint import to_bytes
from engine.trained import header, learn, load_checkpoint
from recipes.base import Recipe, TooFewError
from tasks import Task, find_task


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
):
    """Train a predictor for each task: TrainingResult.

    data: dataset.Data; tasks: names, by default all that the training file labels; settings: {field of tasks.Task:
    value} for all tasks; results, logs: folders of the checkpoints and of the TensorBoard files, by default the data's;
    jobs: tasks side by side, by default the number of cores; resume: skip tasks already trained on this data with these
    settings and versions; report: called after each epoch as report(task name, epoch, number of epochs, loss, train
    tau, validation tau), None for a missing tau.

    Raises InputError, TooFewError and OSError for mistakes, before any training starts.
    """
    recipe = recipes.get(recipe, data.space)
    results, logs = Path(results or data.results), Path(logs or data.logs / f"train_{recipe.suffix}")
    labels, sha, todo = load_train(data.train_file, tasks, data.space), sha256(data.train_file), []
    for name, of_task in labels.items():
        task = recipe.configure(find_task(name), settings or {})
        outputs = header(recipe, task, sha, device), recipe.path(results, task), logs / name
        todo.append(TrainingJob(recipe, task, of_task, device, *outputs))
    _check_sizes(todo)
    todo.sort(key=lambda job: -math.prod(job.steps))  # the longest first: the short ones fill the gaps at the end
    with contextlib.ExitStack() as stack:
        for job in todo:
            _check_outputs(data, job)
        for job in todo:
            stack.enter_context(_locked(job.logs))
        trained = _trained_before(data, todo, resume)
        todo = [job for job in todo if job.task.name not in trained]
        count = max(len(of_task.ranks) for of_task in labels.values())
        what = f"{len(todo)} of {len(labels)} tasks on the {count} architectures of {data.train_file}"
        log.info(f"training {what}")
        errors, interrupted = _run(todo, trained, jobs or cores(), device, report)
    return TrainingResult({name: trained[name] for name in labels if name in trained}, errors, interrupted)


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
    data.check_output(job.path)


@contextlib.contextmanager
def _locked(folder):
    """Keep other trainings out of the folder of a task's logs; the lock ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{folder}: another training writes there: wait, or choose another name") from None
        yield
    finally:
        os.close(descriptor)


def _trained_before(data, todo, resume):
    """{task name: TrainedTask} of identical, completed runs with `resume`; says which checkpoints will be replaced."""
    trained, replaced = {}, []
    for job in todo:
        if not job.path.exists():
            continue
        try:
            checkpoint = load_checkpoint(job.recipe, job.path, job.task).checkpoint
            if resume and all(checkpoint.get(key, "") == value for key, value in job.header.items()):
                summary = job.recipe.summary(checkpoint)
                _ = [f"{number:.4f}" for number in summary.values()]  # raises for other content
                trained[job.task.name] = TrainedTask(summary)
                _restore_logs(job.logs)
            elif checkpoint.get("data") != job.header["data"]:
                replaced.append(job.task.name)
        except Exception:  # not a checkpoint, or one with other content than ours
            replaced.append(job.task.name)
    if resume:
        log.info(f"already trained on {data.train_file} with these settings: {', '.join(trained) or 'no task'}")
    if replaced:
        log.warning(f"replaces checkpoints that were not trained on {data.train_file}: {', '.join(replaced)}")
    return trained


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

            def writer(part):
                if part not in writers:
                    writers[part] = stack.enter_context(SummaryWriter(job.logs / part, flush_secs=1))
                return writers[part]

            def report(epoch, loss, train_tau=None, validation_tau=None):
                writer("train").add_scalar(f"{name}/loss", loss, epoch)
                for part, tau in (("train", train_tau), ("validate", validation_tau)):
                    if tau is not None:
                        writer(part).add_scalar(f"{name}/ktau", tau, epoch)
                send((epoch, epochs, loss, train_tau, validation_tau))

            rows = "".join(f"| {key} | {value} |\n" for key, value in job.header["task"].items())
            writer("train").add_text(f"{name}/settings", f"| setting | value |\n|---|---|\n{rows}")
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
