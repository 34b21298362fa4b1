import shutil

import torch

from engine.checkpoint import to_bytes
from tasks import TASKS, TEST_FILE, TRAIN_FILE


def test_the_published_run_keeps_what_scores_and_its_curves_without_the_machines_name(script, project, data_folder):
    for name in (TRAIN_FILE, TEST_FILE):
        shutil.copy(data_folder / name, project / "data")
    flags = ("--num_epochs", 6, "--batch_size", 8, "--val_interval", 1)
    assert script("main.py", *flags, root=project).returncode == 0
    shutil.rmtree(project / "logs" / "published" / "sop")  # new files are added, old ones replaced
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stderr) == (0, "")

    for task in TASKS:
        own, published = (project / "results" / folder / f"{task.name}_final.pth" for folder in ("", "published"))
        expected = torch.load(own, weights_only=True)
        assert len(expected["snapshots"]) > 1
        expected["snapshots"] = {expected["index"]: expected["snapshots"][expected["index"]]}
        assert published.read_bytes() == to_bytes(expected)
        for part in ("train", "validate"):
            (source,) = (project / "logs" / "train_final" / task.name / part).iterdir()
            (target,) = (project / "logs" / "published" / task.name / part).iterdir()
            assert target.name == "events.out.tfevents.published"
            assert source.read_bytes() == target.read_bytes()


def test_without_a_trained_task_nothing_is_published(script, project):
    shutil.rmtree(project / "results" / "published")
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.endswith("results/cplfw_final.pth: No such file or directory\n")
    assert not list(project.rglob("*.pth"))
