"""Train the predictors, one a task.

    python main.py                              all eight tasks, the settings of tasks.py
    python main.py --tasks cplfw sop            only these
    python main.py --num_epochs 100 --lr 5e-4   a flag wins over every task's setting
    python main.py --recipe ensemble            four predictors and a Gaussian process a task, which rank better

Writes results/<task>_final.pth, or <task>_ensemble.pth, and the curves for TensorBoard in logs/<save_name>/; trained on
the surrogate benchmark, results/surrogate/<task>_final.pth and logs/surrogate/<save_name>/.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from pathlib import Path

import cli
from tasks import MEMBERS, InputError, SettingError, Task, settings


def parse_arguments(argv=None):
    """The parsed arguments; `tasks` are those to train, in the table's order, with the settings given as flags."""
    parser = cli.Parser(description=__doc__)
    cli.add_shared_arguments(parser)
    cli.add_output(parser, "--log_path", "logs", "folder of the TensorBoard files")
    cli.add_recipe(parser, "train")
    parser.add_argument("--jobs", type=cli.positive, help="tasks trained side by side (default: the cores)")
    parser.add_argument("--keep", type=cli.positive, default=50, help="snapshots kept a task (default: 50)")
    parser.add_argument(
        "--log_interval", type=cli.positive, default=50, help="epochs between two lines, off a terminal (default: 50)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="skip tasks already trained on this data with these settings and versions"
    )
    group = parser.add_argument_group("settings, by default each task's own")
    fields = [field for field in dataclasses.fields(Task) if field.name not in ("name", "snapshot")]
    for field in fields:
        how = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        group.add_argument(f"--{field.name}", help=field.metadata["help"], **how)
    args = parser.parse_args(argv)
    given = {field.name: getattr(args, field.name) for field in fields if getattr(args, field.name) is not None}
    if args.recipe == "ensemble":
        for name in ("train_ratio", "val_interval"):
            if name in given:
                parser.error(f"--{name}: an ensemble has no validation part")
        if args.keep != parser.get_default("keep"):
            parser.error("--keep: an ensemble has no snapshots")
    cli.choose_recipe(args, "train")
    try:
        args.tasks = [dataclasses.replace(task, **given) for task in args.tasks]
    except SettingError as error:
        parser.error(f"--{error}")
    return args


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one task: a result, and what went wrong if anything did."""

    error: str | None = None
    best: tuple[float, int] | None = None  # tau, epoch
    chosen: tuple[int, float] | None = None  # index, tau
    members: tuple[int, int] | None = None  # an ensemble's, and how many trainings collapsed
    seconds: float = 0.0

    @property
    def saved(self):
        """Whether there is a checkpoint."""
        return bool(self.best or self.members)


def train_task(task, encodings, ranks, fingerprint, args, on_epoch):
    """Train, log and save what scores one task; returns its Outcome."""
    from torch.utils.tensorboard import SummaryWriter

    import checkpoint

    began = time.perf_counter()
    logs = Path(args.log_path, args.save_name, task.name)
    earlier = list(logs.glob("*/events.out.tfevents.*"))
    train, parts = {"reference": (train_one, ("train", "validate")), "ensemble": (train_ensemble, ("train",))}[
        args.recipe
    ]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(SummaryWriter(logs / part, flush_secs=1)) for part in parts]
        rows = "".join(f"| {name} | {value} |\n" for name, value in settings(task).items())
        writers[0].add_text(f"{task.name}/settings", f"| setting | value |\n|---|---|\n{rows}")

        def log(epoch, loss, train_ktau, validate_ktau):
            writers[0].add_scalar(f"{task.name}/loss", loss, epoch)
            writers[0].add_scalar(f"{task.name}/ktau", train_ktau, epoch)
            if validate_ktau is not None:
                writers[1].add_scalar(f"{task.name}/ktau", validate_ktau, epoch)
            on_epoch(epoch, loss, train_ktau, validate_ktau)

        path = checkpoint.path_of(args.results_path, task, args.recipe)
        outcome = train(path, task, encodings, ranks, fingerprint, args, log)
    if outcome.saved:  # the run they belong to is replaced; TensorBoard would draw both as one curve
        for file in earlier:
            file.unlink(missing_ok=True)
    return dataclasses.replace(outcome, seconds=time.perf_counter() - began)


def train_one(path, task, encodings, ranks, fingerprint, args, log):
    """Train one predictor, the reference's recipe, and save it; returns its Outcome."""
    import checkpoint
    from training import train

    run = train(task, encodings, ranks, args.keep, args.device, log)
    if not run.snapshots:
        return Outcome(f"stopped: {run.stopped}; nothing was saved")
    checkpoint.save(path, run, fingerprint)
    return Outcome(
        run.stopped and f"stopped: {run.stopped}; the snapshots before it were saved",
        best(run.validate_ktau),
        (run.index, run.snapshots[run.index].ktau),
    )


def train_ensemble(path, task, encodings, ranks, fingerprint, args, log):
    """Train an ensemble and save it; returns its Outcome."""
    import ensemble

    trained = ensemble.train(task, encodings, ranks, args.device, log)
    kept = len(trained.members)
    if not kept:
        return Outcome("all its predictors collapsed or diverged: train longer, or lower --lr; nothing was saved")
    ensemble.save(path, task, trained, fingerprint)
    missing = f"only {kept} of {MEMBERS} predictors did not collapse or diverge; they were saved"
    return Outcome(missing if kept < MEMBERS else None, members=(kept, trained.collapsed))


def best(validate_ktau):
    """(tau, epoch) of the best validation, of equal ones the latest. validate_ktau: (epoch, tau) pairs."""
    from metrics import nan_below

    return max(((ktau, epoch) for epoch, ktau in validate_ktau), key=lambda pair: (nan_below(pair[0]), pair[1]))


def trained_before(task, fingerprint, args):
    """The Outcome of an earlier training that would only be repeated, or None."""
    import checkpoint

    if args.recipe == "ensemble":
        from ensemble import load, versions
    else:
        from checkpoint import load, versions
    path = checkpoint.path_of(args.results_path, task, args.recipe)
    try:
        content = load(path, task)
        chosen = checkpoint.pick(path, content) if args.recipe == "reference" else None
    except (InputError, OSError):
        return None
    if not checkpoint.is_of(content, task, fingerprint, versions()):
        return None
    if args.recipe == "ensemble":
        return Outcome(members=(len(content["members"]), content["collapsed"]))
    curve = content.get("validate_ktau")
    if not (isinstance(curve, list) and curve):
        return None
    return Outcome(best=best(curve), chosen=(chosen.index, chosen.ktau))


def epochs(task, args):
    """How many epochs the training of `task` has in all."""
    return task.num_epochs * (MEMBERS if args.recipe == "ensemble" else 1)


def work(connection, parent, task, encodings, ranks, fingerprint, args):
    """In a process of its own: train one task and send what happens through `connection`."""
    sent = 0.0
    threading.excepthook = lambda _: None  # TensorBoard's thread hands its error on to whoever writes next

    def on_epoch(epoch, *values):
        nonlocal sent
        if os.getppid() != parent:
            os._exit(1)  # the parent was killed: nobody waits for this any more
        if time.perf_counter() - sent > 0.1 or epoch % args.log_interval == 0 or epoch == epochs(task, args):
            sent = time.perf_counter()
            connection.send((epoch, *values))

    try:
        outcome = train_task(task, encodings, ranks, fingerprint, args, on_epoch)
    except (InputError, OSError) as error:
        if isinstance(error, OSError) and not error.filename:  # TensorBoard's does not say where
            error.filename = str(Path(args.log_path, args.save_name, task.name))
        outcome = Outcome(cli.describe(error))
    connection.send(outcome)


def train_side_by_side(queue, jobs, device):
    """Train every task of `queue`, [(task, more arguments of train_task)], `jobs` at a time in processes.

    Yields (task name, message): the values of an epoch now and then, at last the Outcome. A worker that dies takes no
    other with it. Every worker has ended when this ends, however it does.
    """
    # A forked worker has torch at once; CUDA cannot be used in one.
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    queue, running = list(queue), {}
    try:
        while queue or running:
            while queue and len(running) < jobs:
                task, *rest = queue.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(theirs, os.getpid(), task, *rest))
                # Ctrl-C reaches the whole process group, but it is the parent that ends its workers.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                process.start()
                running[ours] = task.name, process
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                theirs.close()
            for connection in multiprocessing.connection.wait(list(running)):
                name, process = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, OSError):  # OSError: it died while sending
                    process.join()
                    message = Outcome(f"its process died, exit status {process.exitcode}")
                if isinstance(message, Outcome):
                    process.join()
                    connection.close()
                    del running[connection]
                yield name, message
    finally:
        for _, process in running.values():
            process.kill()
        for _, process in running.values():
            process.join()


class Progress:
    """A bar a task on a terminal; elsewhere a line a task every so many epochs."""

    def __init__(self, epochs, log_interval):
        """epochs: how many each task has, by its name."""
        from tqdm import tqdm

        self.interval, self.epochs, self.bars = log_interval, epochs, {}
        if sys.stderr.isatty():
            for position, (name, total) in enumerate(epochs.items()):
                form = f"{name:<10} {{n_fmt:>4}}/{{total_fmt}} {{bar:20}} {{desc}}"
                self.bars[name] = tqdm(total=total, position=position, bar_format=form)

    def epoch(self, name, epoch, loss, train_ktau, validate_ktau):
        """What is known of a task after an epoch."""
        figures = f"loss {loss:.4f}  tau train {train_ktau:7.4f}"
        if validate_ktau is not None:
            figures += f"  validation {validate_ktau:7.4f}"
        if self.bars:
            self.bars[name].n = epoch
            self.bars[name].set_description_str(figures)
        elif epoch % self.interval == 0 or epoch == self.epochs[name]:
            print(f"{name:<10} epoch {epoch:>4}/{self.epochs[name]}  {figures}", flush=True)

    def close(self):
        """Leave the terminal in order."""
        for bar in self.bars.values():
            bar.close()


def table(outcomes, args):
    """The results as text, a line a task; of the reference's recipe their mean, too."""
    done = {name: outcome for name, outcome in outcomes.items() if outcome.saved}
    if args.recipe == "ensemble":
        lines = [f"{'task':<10}  members  collapsed trainings  seconds"]
        for name, outcome in done.items():
            members, collapsed = outcome.members
            lines.append(f"{name:<10}  {members:7}  {collapsed:19}  {outcome.seconds:7.1f}")
        return "\n".join(lines)
    lines = [f"{'task':<10}  best tau @ epoch  snapshot     tau  seconds"]
    for name, outcome in done.items():
        (best, epoch), (index, ktau) = outcome.best, outcome.chosen
        lines.append(f"{name:<10}  {best:8.4f} @ {epoch:<5}  {index:8}  {ktau:6.4f}  {outcome.seconds:7.1f}")
    if done:
        best = sum(outcome.best[0] for outcome in done.values()) / len(done)
        chosen = sum(outcome.chosen[1] for outcome in done.values()) / len(done)
        lines.append(f"{'mean':<10}  {best:8.4f}  {'':16}  {chosen:6.4f}")
    return "\n".join(lines)


def main():
    args = parse_arguments()
    # Imported only now, so that --help does not wait for torch; and here, so that the forked workers share it.
    import torch.utils.tensorboard  # noqa: F401

    import checkpoint
    from dataset import TRAIN_FILE, encode, load_train

    if args.recipe == "ensemble":
        import gaussian_process  # noqa: F401
        from ensemble import check_size
    else:
        from training import check_size

    cli.check_device(args.device)
    cli.choose_folders(args)
    path = Path(args.data_path, TRAIN_FILE)
    architectures, ranks = load_train(path)
    trained = {task: check_size(task, len(architectures)) for task in args.tasks}
    for folder in (args.results_path, Path(args.log_path, args.save_name)):
        cli.make_folder(folder)
    encodings, fingerprint = encode(architectures), checkpoint.fingerprint(path)
    shared = [task.name for task in args.tasks if len(set(ranks[task.name].tolist())) < len(architectures)]
    if shared:
        print(f"some architectures share a rank, which is allowed: {', '.join(shared)}")

    outcomes = {}
    if args.resume:
        before = {task.name: trained_before(task, fingerprint, args) for task in args.tasks}
        outcomes = {name: outcome for name, outcome in before.items() if outcome}
        print(f"already trained on {path} with these settings and versions: {', '.join(outcomes) or 'no task'}")
    tasks = [task for task in args.tasks if task.name not in outcomes]
    # The longest first: the short ones fill the gaps at the end.
    steps = {task: epochs(task, args) * (trained[task] // task.batch_size) for task in tasks}
    queue = [
        (task, encodings, ranks[task.name], fingerprint, args) for task in sorted(tasks, key=steps.get, reverse=True)
    ]
    what = "ensemble" if args.recipe == "ensemble" else "predictor"
    print(
        f"training {len(queue)} {what}{'s' * (len(queue) != 1)} on the {len(architectures)} architectures of {path}",
        flush=True,
    )
    progress, interrupted = Progress({task.name: epochs(task, args) for task in tasks}, args.log_interval), False
    try:
        with contextlib.closing(train_side_by_side(queue, args.jobs or cli.cores(), args.device)) as messages:
            for name, message in messages:
                if isinstance(message, Outcome):
                    outcomes[name] = message
                else:
                    progress.epoch(name, *message)
    except KeyboardInterrupt:
        interrupted = True
    progress.close()
    outcomes = {task.name: outcomes[task.name] for task in args.tasks if task.name in outcomes}
    print(table(outcomes, args))
    for name, outcome in outcomes.items():
        if outcome.error:
            print(f"main.py: {name}: {outcome.error}", file=sys.stderr)
    if interrupted:
        print(f"main.py: interrupted; finished: {', '.join(outcomes) or 'no task'}", file=sys.stderr)
        return 130
    return 1 if any(outcome.error for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    cli.run(main)
