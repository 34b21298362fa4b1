"""Train a predictor for each task.

    python main.py                              all tasks that the training file labels, with the settings of tasks.py
    python main.py --tasks cplfw sop            only these
    python main.py --num_epochs 100 --lr 5e-4   a flag replaces every task's setting
    python main.py --recipe gp                  a Gaussian process for each task, for few labels, with intervals
    python main.py --data_path data/own         on your own measurements

Writes results/<task>_final.pth, or <task>_<recipe>.pth, and the curves for TensorBoard in logs/<save_name>/; with
--data_path NAME, in results/NAME/ and logs/NAME/<save_name>/.
"""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not there with PYTHONSAFEPATH

import cli
from common.files import InputError, log
from recipes import DEFAULT, RECIPES
from tasks import TASKS, Task


def parse_arguments(argv):
    """Parse the flags: (namespace, {name: value} of the given settings of tasks.Task)."""
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    cli.add_output(parser, "--log_path", "logs", "folder of the TensorBoard files")
    help = "name of the run in the logs (default: train_final; train_RECIPE with another recipe)"
    parser.add_argument("--save_name", type=cli.file_name, help=help)
    cli.add_jobs(parser, "tasks trained side by side")
    help = "epochs between two lines, where the output is not a terminal (default: 50)"
    parser.add_argument("--log_interval", type=cli.positive, default=50, help=help)
    help = "skip tasks already trained on this data with these settings and versions"
    parser.add_argument("--resume", action="store_true", help=help)
    group = parser.add_argument_group("settings, by default each task's own")
    fields = [field for field in dataclasses.fields(Task) if field.name not in ("name", "snapshot")]
    for field in fields:
        how = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        group.add_argument(f"--{field.name}", help=field.metadata["help"], **how)
    args = parser.parse_args(argv)
    given = {field.name: getattr(args, field.name) for field in fields}
    settings = {name: value for name, value in given.items() if value is not None}
    try:
        dataclasses.replace(TASKS[0], **settings)
    except InputError as error:
        parser.error(f"--{error}")
    return args, settings


def table(trained):
    """A line for each task of {name: TrainedTask}, and the means of the columns that hold floats, as text."""
    rows = [(name, task.summary | {"seconds": task.seconds}) for name, task in trained.items()]
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    floats = [c for c in columns[:-1] if all(isinstance(row.get(c), float) for _, row in rows)]
    if floats:
        rows.append(("mean", {c: sum(row[c] for _, row in rows) / len(rows) for c in floats}))
    lines = ["  ".join([f"{'task':<10}", *(f"{column:>9}" for column in columns)])]
    for name, row in rows:
        cells = [f"{name:<10}"]
        for column in columns:
            value = row.get(column, "")
            text = f"{value:.4f}" if column in floats else f"{value:.3g}" if isinstance(value, float) else str(value)
            cells.append(text.rjust(max(9, len(column))))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report(result, data, logs, args):
    """Print the table, remarks, errors and the next step of a engine.training.TrainingResult; returns the status."""
    if result.trained:
        print(table(result.trained))
    remarks = {}
    for name, task in result.trained.items():
        remarks.setdefault(task.remark, []).append(name)
    for remark, names in remarks.items():
        if remark:
            log.info(f"{', '.join(names)}: {remark}")
    errors = {name: task.error for name, task in result.trained.items() if task.error} | result.errors
    for name, error in errors.items():
        print(f"main.py: {name}: {error}", file=sys.stderr)
    if result.interrupted:
        finished = f"{', '.join(result.trained) or 'no task'}; --resume skips what is finished"
        print(f"main.py: interrupted; finished: {finished}", file=sys.stderr)
        return 130
    if result.trained:
        curves = f"; curves: tensorboard --logdir {shlex.quote(str(logs.parent))} ({logs})"
        has_curves = any(logs.glob("*/*/events*"))
        log.info(f"checkpoints: {args.results_path or data.results}{curves if has_curves else ''}")
        tasks = list(result.trained) if args.tasks or result.errors else None
        words = cli.flags(data, args.recipe, tasks, args.results_path)
        if data.test_file.exists():
            log.info(f"next: bash {cli.quoted_path('test.sh')}{words} ranks the test architectures")
        else:
            log.info(f"next: python {cli.quoted_path('tools', 'search.py')}{words} finds the best architecture of all")
            log.info(f"to rank architectures of your choice, put them into {data.test_file}")
        if data.space.digest or data.name not in ("", "surrogate"):
            words = cli.flags(data, DEFAULT, args.tasks)
            log.info(f"how good is the ranking: python {cli.quoted_path('tools', 'crossval.py')}{words}")
    return 1 if errors else 0


def main(argv=None):
    args, settings = parse_arguments(argv)
    # Only now: `--help` and a wrong flag need not wait for torch.
    import recipes
    from engine.training import TooFewError, train

    try:
        recipes.get(args.recipe).configure(TASKS[0], settings)
    except InputError as error:
        raise InputError(f"--{error}") from None
    cli.check_device(args.device)
    data = cli.open_data(args.data_path)
    logs = Path(args.log_path or data.logs, args.save_name or f"train_{RECIPES[args.recipe]}")
    progress = cli.Progress(args.log_interval)
    try:
        result = train(
            data,
            args.tasks,
            recipe=args.recipe,
            settings=settings,
            results=args.results_path,
            logs=logs,
            jobs=args.jobs,
            resume=args.resume,
            device=args.device,
            report=progress,
            raise_errors=False,
        )
    except TooFewError as error:
        smaller = f"--batch_size {error.batch_size} or " if error.batch_size >= 25 else ""
        raise InputError(f"{error}; or choose {smaller}--recipe gp") from None
    progress.close([name for name, task in result.trained.items() if not task.error])
    return report(result, data, logs, args)


if __name__ == "__main__":
    cli.run(main)
