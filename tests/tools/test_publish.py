import shutil

import torch

from recipes.predictors import load, rank
from space import sample_architectures
from tasks import TASKS, TEST_FILE, TRAIN_FILE


def test_the_published_run_keeps_what_scores_and_its_curves_without_the_machines_name(script, project, data_folder):
    for name in (TRAIN_FILE, TEST_FILE):
        shutil.copy(data_folder / name, project / "data")
    flags = ("--num_epochs", 6, "--batch_size", 8, "--val_interval", 1)
    assert script("main.py", *flags, root=project).returncode == 0
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stderr) == (0, "")

    folders, architectures = (project / "results", project / "results" / "published"), sample_architectures(99, seed=1)
    own, published = (rank(load(results=folder), architectures) for folder in folders)
    for task in TASKS:
        assert (own[task.name] == published[task.name]).all()
        before, after = (torch.load(folder / f"{task.name}_final.pth", weights_only=True) for folder in folders)
        assert len(before.pop("snapshots")) > 1
        assert list(after.pop("snapshots")) == [before["index"]]
        assert before == after
        for part in ("train", "validate"):
            (source,) = (project / "logs" / "train_final" / task.name / part).iterdir()
            (target,) = (project / "logs" / "published" / task.name / part).iterdir()
            assert target.name == "events.out.tfevents.published"
            assert source.read_bytes() == target.read_bytes()


def test_without_a_trained_task_nothing_is_published(script, project):
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.endswith("results/cplfw_final.pth: No such file or directory\n")
    assert not list(project.rglob("*.pth"))
