"""Make a finished run small enough to publish, and the same wherever it was made.

    python main.py
    python tools/publish.py

The checkpoints in results/ keep only the snapshot that scores; the TensorBoard files in logs/train_final/ lose the name
of the machine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cli
from tasks import TASKS


def publish(results, logs):
    """Publish the run whose checkpoints lie in the folder `results` and whose TensorBoard files lie in `logs`."""
    import checkpoint

    for task in TASKS:
        checkpoint.slim(checkpoint.path_of(results, task), task)
    for path in Path(logs).glob("*/*/events.out.tfevents.*"):
        path.replace(path.with_name("events.out.tfevents.published"))


def main():
    cli.Parser(description=__doc__).parse_args()
    publish(cli.own_folder("results"), cli.own_folder("logs", "train_final"))


if __name__ == "__main__":
    cli.run(main)
