import shutil

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tasks import TASKS, TEST_FILE, TRAIN_FILE

SMALL = ("--num_epochs", 6, "--batch_size", 8, "--val_interval", 1)


def test_the_published_run_keeps_what_scores_and_its_curves_without_the_machines_name(script, project, data_folder):
    for name in (TRAIN_FILE, TEST_FILE):
        shutil.copy(data_folder / name, project / "data" / name)
    results, logs = project / "results", project / "logs"
    assert script("main.py", *SMALL, root=project).returncode == 0
    trained = {path: path.read_bytes() for path in results.glob("*.pth")}
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert {path: path.read_bytes() for path in results.glob("*.pth")} == trained
    for folder in ("results", "results/published"):
        assert script("test.py", "--results_path", project / folder, root=project).returncode == 0
        (project.parent / "Track2_submitA_test_final.json").rename(project.parent / folder.replace("/", "_"))
    assert (project.parent / "results").read_bytes() == (project.parent / "results_published").read_bytes()
    for task in TASKS:
        own, published = (
            torch.load(folder / f"{task.name}_final.pth", weights_only=True)
            for folder in (results, results / "published")
        )
        assert list(published.pop("snapshots")) == [own["index"]]
        assert len(own.pop("snapshots")) > 1
        assert published == own
        for part, tag, curve in (
            ("train", "loss", enumerate(own["train_loss"], 1)),
            ("train", "ktau", enumerate(own["train_ktau"], 1)),
            ("validate", "ktau", own["validate_ktau"]),
        ):
            (path,) = (logs / "published" / task.name / part).iterdir()
            assert path.name == "events.out.tfevents.published"
            events = EventAccumulator(str(path)).Reload().Scalars(f"{task.name}/{tag}")
            assert torch.allclose(torch.tensor([[e.step, e.value] for e in events]), torch.tensor(list(curve)).float())


def test_without_a_trained_task_nothing_is_published(script, project):
    answer = script("tools/publish.py", root=project)
    assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
    assert answer.stderr.endswith("results/cplfw_final.pth: No such file or directory\n")
    assert not list(project.rglob("*.pth"))
