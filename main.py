"""Train a predictor for each task.

    python main.py                              all tasks that the training file labels, with the settings of tasks.py
    python main.py --tasks cplfw sop            only these
    python main.py --num_epochs 100 --lr 5e-4   a flag replaces every task's setting
    python main.py --recipe gp                  a Gaussian process for each task, which ranks better

Writes results/<task>_final.pth, or <task>_<recipe>.pth, and the curves for TensorBoard in logs/<save_name>/; trained on
the surrogate benchmark, it writes to results/surrogate/ and logs/surrogate/<save_name>/.
"""

import startup

if __name__ == "__main__":
    startup.prepare()

import argparse
import dataclasses
import shlex

import cli
from recipes import DEFAULT
from tasks import TASKS, SettingError, Task


def parse_arguments(argv=None):
    """Parse the flags; `settings` holds the given ones of tasks.Task, {name: value}."""
    parser = cli.Parser(description=__doc__)
    cli.add_predictors(parser)
    cli.add_output(parser, "--log_path", "logs", "folder of the TensorBoard files")
    cli.add_recipe(parser, "train")
    parser.add_argument("--jobs", type=cli.positive, help="tasks trained side by side (default: the number of cores)")
    parser.add_argument(
        "--log_interval", type=cli.positive, default=50, help="epochs between two lines, in a log (default: 50)"
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
    cli.fill_save_name(args)
    args.settings = {field.name: getattr(args, field.name) for field in fields}
    args.settings = {name: value for name, value in args.settings.items() if value is not None}
    try:
        dataclasses.replace(TASKS[0], **args.settings)
    except SettingError as error:
        parser.error(f"--{error}")
    repeated = {"recipe": DEFAULT, "data_path": None, "results_path": None}
    given = {name: getattr(args, name) for name, default in repeated.items() if getattr(args, name) != default}
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    flags += ["--tasks", *(task.name for task in args.tasks)] if args.tasks else []
    args.scoring_flags = " ".join(["", *map(shlex.quote, flags)])
    return args


def main():
    args = parse_arguments()
    from experiment import train_tasks  # only now: `--help` and a wrong flag need not wait for torch

    return train_tasks(args)


if __name__ == "__main__":
    cli.run(main)
