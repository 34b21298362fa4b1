"""Publish the run in results/ and logs/train_final/: a small copy that does not depend on the machine.

    python main.py
    python tools/publish.py

Writes results/published/ with only the snapshots that score, and logs/published/ without the name of the machine.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import startup

if __name__ == "__main__":
    startup.prepare()

from pathlib import Path

import checkpoint
import cli
import recipes
from files import make_folder, read_file, write_file
from folders import PUBLISHED, project_folder
from tasks import TASKS


def publish(results, logs, to_results, to_logs):
    """Publish the checkpoints in the folder `results` and the TensorBoard files in `logs` to the other two folders."""
    recipe = recipes.get(recipes.DEFAULT)
    make_folder(to_results)
    for task in TASKS:
        content = recipe.load(recipe.path(results, task), task)
        content["snapshots"] = {content["index"]: content["snapshots"][content["index"]]}
        checkpoint.save(recipe.path(to_results, task), content)
    for path in Path(logs).glob("*/*/events.out.tfevents.*"):
        target = Path(to_logs, path.parent.relative_to(logs), "events.out.tfevents.published")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, read_file(path))


def main():
    cli.Parser(description=__doc__).parse_args()
    published = project_folder("results", PUBLISHED), project_folder("logs", PUBLISHED)
    publish(project_folder("results"), project_folder("logs", "train_final"), *published)


if __name__ == "__main__":
    cli.run(main)
