"""Publish the run in results/ and logs/train_final/: a small copy that does not depend on the machine.

    python main.py
    python tools/publish.py

Writes results/published/ with only the snapshots that score, and logs/published/ without the name of the machine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import recipes
from common.files import read_file, write_file
from common.paths import PUBLISHED, make_folder, project_path
from engine.checkpoint import to_bytes
from engine.trained import load_checkpoint
from tasks import TASKS


def publish(results, logs, to_results, to_logs):
    """Publish the checkpoints in the folder `results` and the TensorBoard files in `logs` to the other two folders."""
    recipe = recipes.get(recipes.DEFAULT)
    make_folder(to_results)
    for task in TASKS:
        predictor = load_checkpoint(recipe, recipe.path(results, task), task)
        used = {predictor.snapshot: predictor.checkpoint["snapshots"][predictor.snapshot]}
        write_file(recipe.path(to_results, task), to_bytes(predictor.checkpoint | {"snapshots": used}))
    for path in Path(logs).glob("*/*/events.out.tfevents.*"):
        target = Path(to_logs, path.parent.relative_to(logs), "events.out.tfevents.published")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, read_file(path))


def main(argv=None):
    cli.Parser(description=__doc__).parse_args(argv)
    published = project_path("results", PUBLISHED), project_path("logs", PUBLISHED)
    publish(project_path("results"), project_path("logs", "train_final"), *published)


if __name__ == "__main__":
    cli.run(main)
