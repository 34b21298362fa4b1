"""Data of one's own by command: accuracies, tasks of any name, few architectures."""

import json

import numpy as np
from helpers import make_data

from space import sample_architectures
from tasks import TRAIN_FILE

ARCHITECTURES = sample_architectures(260, seed=8)


def measured(architectures, **fields):
    """Entries whose accuracy follows the size, with noise: {name: {"arch", each field: its factor times accuracy}}."""
    random, entries = np.random.RandomState(0), {}
    for i, arch in enumerate(architectures):
        accuracy = 80 + (arch.count("1") - arch.count("3")) / 8 + random.randn() / 10
        entries[f"a{i}"] = {"arch": arch} | {field: factor * accuracy for field, factor in fields.items()}
    return entries


def test_folders_of_one_name_share_results_which_every_command_says(script, project, tmp_path):
    def said(*command):
        return script(*command, "--data_path", folder, "--recipe", "ridge", root=project).stdout

    for folder in ("mine", "b/mine"):
        make_data(tmp_path / folder, measured(ARCHITECTURES[: 30 + len(folder)], own_accuracy=1))
        replaced = f"replaces checkpoints that were not trained on {folder}/{TRAIN_FILE}: own"
        assert (replaced in said("main.py")) == (folder == "b/mine")
    for folder in ("mine", "b/mine"):
        used = f"not trained on {folder}/{TRAIN_FILE}: own; used all the same"
        assert (used in said("tools/rank.py", ARCHITECTURES[0])) == (folder == "mine")


def test_accuracies_have_one_direction_in_every_command(script, project, tmp_path):
    """The same labels as accuracies and, negated, as ranks: what is said of one task is said of the other."""

    def run(name, *flags):
        answer = script(name, *flags, root=project)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    names, labels = ("New-Task_2", "other"), {"New-Task_2_accuracy": 1, "other_rank": -1}
    test = measured(ARCHITECTURES[60:], **labels)
    make_data(tmp_path / "mine", measured(ARCHITECTURES[:60], **labels), test)
    flags = ("--data_path", "mine", "--recipe", "gp")
    run("main.py", *flags)

    run("test.py", *flags)
    submission = json.loads((tmp_path / "Track2_submitA_test_mine_gp.json").read_text())
    for entry in submission.values():
        assert entry["New-Task_2_rank"] == entry["other_rank"]
    accuracies = [entry["New-Task_2_accuracy"] for entry in test.values()]
    best = np.argsort([entry["other_rank"] for entry in submission.values()])[:20]
    assert np.mean(np.array(accuracies)[best]) > np.quantile(accuracies, 0.8)
    (tmp_path / "truths").write_text(json.dumps(test))
    figures = json.loads(run("tools/score.py", "Track2_submitA_test_mine_gp.json", "truths", "--json").splitlines()[-1])
    assert figures["tasks"]["New-Task_2"] == figures["tasks"]["other"] and figures["mean_tau"] > 0.5

    largest, smallest = json.loads(
        run("tools/rank.py", "l" + "111" * 12, "j" + "331" * 10 + "000000", *flags, "--json")
    )
    for name in names:
        assert largest["tasks"][name]["beats"] >= 0.9 and smallest["tasks"][name]["beats"] <= 0.1
        run("tools/search.py", *flags, "--tasks", name, "--top", 1, "--json", "found")
        arch = json.loads((tmp_path / "found").read_text())["architectures"][0]["arch"]
        assert arch.count("1") - arch.count("3") > max(a.count("1") - a.count("3") for a in ARCHITECTURES)
