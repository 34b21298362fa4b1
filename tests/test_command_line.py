"""The scripts as a user runs them, end to end, on small sampled data."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REFERENCE_RECIPE, ROOT, choose
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_readme import blocks

import dataset
import main
import predictors
import training
from files import InputError, describe, make_folder
from metrics import ranks
from network import Predictor
from scoring import score
from tasks import TASKS, find_task

SMALL = ("--num_epochs", 4, "--batch_size", 8)


def weights(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.pth")}


def test_training_then_scoring(script, data_folder, tmp_path):
    trained = script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *SMALL)
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert "share a rank" not in trained.stdout
    assert sum("epoch    4/4" in line for line in lines) == 8
    assert [line.split()[0] for line in lines[-12:-2]] == ["task", *(task.name for task in TASKS), "mean"]
    assert lines[-2:] == [
        "checkpoints: r; curves: tensorboard --logdir l (l/train_final)",
        f"next: bash test.sh --data_path {data_folder} --results_path r ranks the test architectures",
    ]
    assert sorted(weights(tmp_path / "r")) == sorted(f"{task.name}_final.pth" for task in TASKS)

    scored = script("test.py", "--data_path", data_folder, "--results_path", "r")
    assert scored.returncode == 0, scored.stderr
    submission = json.loads((tmp_path / "Track2_submitA_test_final.json").read_text())
    content = json.loads((data_folder / dataset.TEST_FILE).read_text())
    assert list(submission) == list(content)
    encodings = dataset.encode([entry["arch"] for entry in content.values()])
    for task, line in zip(TASKS, scored.stdout.splitlines(), strict=False):
        chosen = choose(tmp_path / "r" / f"{task.name}_final.pth", task)
        assert line.split() == [task.name, "snapshot", str(chosen.index), "validation", "tau", f"{chosen.ktau:.4f}"]
        predictor = Predictor().eval()
        predictor.load_state_dict(chosen.state_dict)
        with torch.no_grad():
            expected = ranks(predictor(encodings))
        ours = [entry.pop(task.rank_key) for entry in submission.values()]
        assert all(type(rank) is int for rank in ours)
        assert sum(abs(a - b) for a, b in zip(ours, expected, strict=True)) <= 4  # near ties may fall either way
        for entry in content.values():
            del entry[task.rank_key]
    assert submission == content


@pytest.mark.parametrize("recipe", ["gp", "ridge"])
def test_another_recipe_trains_resumes_and_scores(script, data_folder, tmp_path, recipe):
    shared = ("--data_path", data_folder, "--results_path", "r", "--recipe", recipe, "--tasks", "sop", "cplfw")
    trained = script("main.py", *shared, "--log_path", "l", "--resume")
    assert trained.returncode == 0, trained.stderr
    lines = trained.stdout.splitlines()
    assert [line.split()[0] for line in lines[-6:]] == ["task", "cplfw", "sop", "mean", "checkpoints:", "next:"]
    flags = f"--recipe {recipe} --data_path {data_folder} --results_path r --tasks cplfw sop"
    assert lines[-1] == f"next: bash test.sh {flags} ranks the test architectures"
    assert sorted(weights(tmp_path / "r")) == [f"cplfw_{recipe}.pth", f"sop_{recipe}.pth"]
    events = EventAccumulator(str(tmp_path / "l" / f"train_{recipe}" / "sop" / "train")).Reload()
    assert events.Tags()["tensors"] == ["sop/settings/text_summary"]
    if recipe == "gp":
        steps = [event.step for event in events.Scalars("sop/loss")]
        assert steps == list(range(1, len(steps) + 1)) and 10 < len(steps) <= 30

    before = weights(tmp_path / "r")
    again = script("main.py", *shared, "--log_path", "l", "--resume")
    assert "versions: cplfw, sop" in again.stdout and "nothing left to train" in again.stdout
    assert script("main.py", *shared, "--log_path", "l", "--jobs", 1).returncode == 0
    assert weights(tmp_path / "r") == before

    scored = script("test.py", *shared)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.splitlines()[0].startswith("cplfw       leave-one-out tau ")
    submission = json.loads((tmp_path / f"Track2_submitA_test_{recipe}.json").read_text())
    loaded = predictors.load_models(["sop"], recipe, tmp_path / "r")
    expected = ranks(score(loaded, [entry["arch"] for entry in submission.values()])[0])
    assert [entry["sop_rank"] for entry in submission.values()] == expected.tolist()
    assert all(entry["veri_rank"] == -1 for entry in submission.values())

    train_file = data_folder / dataset.TRAIN_FILE
    train_file.write_text(train_file.read_text() + " ")
    assert f"not trained on {train_file}: cplfw, sop; used all the same" in script("test.py", *shared).stdout


def test_the_intervals_are_those_of_the_process(script, data_folder, tmp_path):
    shared = ("--data_path", data_folder, "--results_path", "r", "--recipe", "gp", "--tasks", "sop")
    script("main.py", *shared, "--log_path", "l")
    scored = script("test.py", *shared, "--uncertainty", "new/u.json")
    assert scored.returncode == 0, scored.stderr
    intervals = json.loads((tmp_path / "new" / "u.json").read_text())
    submission = json.loads((tmp_path / "Track2_submitA_test_gp.json").read_text())
    assert [list(entry) for entry in intervals.values()] == [["arch", "sop_rank_interval"]] * 300
    assert [e["arch"] for e in intervals.values()] == [e["arch"] for e in submission.values()]
    lows, highs = zip(*(entry["sop_rank_interval"] for entry in intervals.values()), strict=True)
    assert all(0 <= low <= high < 300 for low, high in zip(lows, highs, strict=True))
    order = sorted(range(300), key=[entry["sop_rank"] for entry in submission.values()].__getitem__)
    assert [lows[i] for i in order] == sorted(lows) and [highs[i] for i in order] == sorted(highs)


def test_a_recipe_is_one_file_and_one_line(script, project, data_folder, tmp_path):
    """Nearest neighbours, as the README adds them, train, resume, score and cross-validate."""
    (code,) = (block for block in blocks("python") if "recipes.base" in block)
    (project / "recipes" / "neighbours.py").write_text(code)
    table = project / "recipes" / "__init__.py"
    table.write_text(table.read_text().replace("RECIPES = {\n", 'RECIPES = {\n    "neighbours": "neighbours",\n'))
    data = ("--data_path", data_folder, "--tasks", "sop", "veri")
    flags = (*data, "--results_path", "r", "--recipe", "neighbours")
    for expected in ("no task", "veri, sop"):
        trained = script("main.py", *flags, "--log_path", "l", "--resume", root=project)
        assert trained.returncode == 0, trained.stderr
        assert f"with these settings and versions: {expected}" in trained.stdout
    assert script("test.py", *flags, root=project).returncode == 0
    submission = json.loads((tmp_path / "Track2_submitA_test_neighbours.json").read_text())
    architectures, known = dataset.load_train(data_folder / dataset.TRAIN_FILE)
    x, y = (dataset.encode(a).flatten(1).numpy() for a in (architectures, [e["arch"] for e in submission.values()]))
    distances = ((y[:, None] - x[None]) ** 2).sum(2)
    for row, entry in list(zip(distances, submission.values(), strict=True))[:20]:
        within = np.sort(row)[9]
        sure = known["sop"][row < within].sum()  # those at the tenth distance may be any
        ties, missing = np.sort(known["sop"][row == within]), 10 - (row < within).sum()
        entry["bounds"] = sure + ties[:missing].sum(), sure + ties[::-1][:missing].sum()
    checked = [entry for entry in submission.values() if "bounds" in entry]
    for a in checked:
        for b in checked:
            assert a["bounds"][1] >= b["bounds"][0] or a["sop_rank"] <= b["sop_rank"]
    answer = script("tools/crossval.py", *data, "--recipes", "neighbours", "ridge", root=project)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[0] == "| tau | neighbours | ridge |"
    assert "the recipe neighbours has no such setting" in script("main.py", *flags, "--lr", 1, root=project).stderr
    assert "no snapshots to choose from" in script("test.py", *flags, "--model_path_index", 0, root=project).stderr
    assert "has no rank intervals" in script("test.py", *flags, "--uncertainty", "u.json", root=project).stderr


def test_results_do_not_depend_on_jobs(script, data_folder, tmp_path):
    for jobs in (1, 3):
        flags = ("--data_path", data_folder, "--results_path", f"r{jobs}", "--log_path", "l", "--jobs", jobs, *SMALL)
        assert script("main.py", *flags).returncode == 0
        script("test.py", "--data_path", data_folder, "--results_path", f"r{jobs}", "--save_name", jobs)
    assert len(weights(tmp_path / "r1")) == 8
    assert weights(tmp_path / "r1") == weights(tmp_path / "r3")
    first, second = (tmp_path / f"Track2_submitA_{jobs}.json" for jobs in (1, 3))
    assert first.read_bytes() == second.read_bytes()


def test_flags_win_over_the_tasks_settings(script, data_folder, tmp_path):
    flags = ("--lr", 2e-3, "--weight_decay", 0, "--batch_size", 10, "--train_ratio", 0.75, "--seed", 8)
    flags += ("--dropout_ratio", 0.1, "--no-cos", "--val_interval", 2, "--num_epochs", 5, "--keep", 2)
    script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", *flags)
    content = torch.load(tmp_path / "r" / "sop_final.pth", weights_only=True)
    assert content["task"] == {
        "name": "sop",
        "lr": 2e-3,
        "weight_decay": 0.0,
        "batch_size": 10,
        "train_ratio": 0.75,
        "seed": 8,
        "dropout_ratio": 0.1,
        "cos": False,
        "val_interval": 2,
        "snapshot": -4,
        "num_epochs": 5,
        "keep": 2,
    }
    assert [epoch for epoch, _ in content["validate_ktau"]] == [1, 2, 4]
    assert len(content["snapshots"]) == 2
    encodings = dataset.ArchPerfDataset(data_folder, "sop")
    task = dataclasses.replace(find_task("sop"), **main.parse_arguments(list(map(str, flags))).settings)
    run = training.train(task, encodings.encodings, encodings.ranks)
    assert content["train_loss"] == run.train_loss


def test_cos_can_be_asked_for():
    assert main.parse_arguments(["--cos"]).settings == {"cos": True}
    assert main.parse_arguments(["--no-cos"]).settings == {"cos": False}
    assert main.parse_arguments([]).settings == {}


def test_only_the_named_tasks_are_trained_and_filled(script, data_folder, tmp_path):
    shared = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop_rank", "cplfw")
    assert script("main.py", *shared, "--log_path", "l", *SMALL).returncode == 0
    assert sorted(weights(tmp_path / "r")) == ["cplfw_final.pth", "sop_final.pth"]
    assert script("test.py", *shared, "--model_path_index", -2, "--save_name", "two").returncode == 0
    for entry in json.loads((tmp_path / "Track2_submitA_two.json").read_text()).values():
        assert entry["veri_rank"] == -1
        assert entry["sop_rank"] >= 0 and entry["cplfw_rank"] >= 0


def test_the_index_given_is_used_for_every_task(script, data_folder):
    script("main.py", "--data_path", data_folder, "--results_path", "r", "--log_path", "l", *SMALL)
    scored = script("test.py", "--data_path", data_folder, "--results_path", "r", "--model_path_index", "-1")
    assert [line.split()[2] for line in scored.stdout.splitlines()[:8]] == ["-1"] * 8
    scored = script("test.py", "--data_path", data_folder, "--results_path", "r", "--model_path_index", "9")
    assert scored.returncode == 2
    assert "no snapshot 9: it holds" in scored.stderr


def test_the_logs_hold_both_curves_of_every_task(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--save_name", "mine")
    assert script("main.py", *flags, *SMALL, "--seed", 5).returncode == 0
    assert script("main.py", *flags, *SMALL, "--val_interval", 2).returncode == 0  # takes the first run's place
    for task in TASKS:
        content = REFERENCE_RECIPE.load(tmp_path / "r" / f"{task.name}_final.pth", task)
        read = {}
        for part in ("train", "validate"):
            events = EventAccumulator(str(tmp_path / "l" / "mine" / task.name / part)).Reload()
            read |= {(part, tag): events.Scalars(tag) for tag in events.Tags()["scalars"]}
            if part == "train":
                assert events.Tags()["tensors"] == [f"{task.name}/settings/text_summary"]
        assert set(read) == {
            ("train", f"{task.name}/loss"),
            ("train", f"{task.name}/ktau"),
            ("validate", f"{task.name}/ktau"),
        }
        curve = read["validate", f"{task.name}/ktau"]
        assert [event.step for event in curve] == [1, 2, 4]
        assert [event.value for event in curve] == pytest.approx([tau for _, tau in content["validate_ktau"]])
        assert [event.value for event in read["train", f"{task.name}/loss"]] == pytest.approx(content["train_loss"])


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("tools/score.py", ("no.json", "no.json"), "score.py: no.json: No such file or directory\n"),
        ("main.py", ("--data_path", "no"), f"main.py: no/{dataset.TRAIN_FILE}: No such file or directory\n"),
    ],
)
def test_without_the_packages_a_script_goes_on_in_the_environment_that_has_them(
    project, tmp_path, name, flags, message
):
    command = [sys.executable, "-S", str(project / name), *flags]  # -S: no packages
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2
    installs = "bash train.sh installs what training needs; requirements-dev.txt lists the rest"
    missing = rf"\w+\.py: No module named '\w+': {installs}\n"
    assert re.fullmatch(missing, answer.stderr)
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (2, message)


TOOLS = (
    "tools/surrogate.py",
    "tools/score.py",
    "tools/traverse.py",
    "tools/publish.py",
    "tools/plot.py",
    "tools/bench.py",
    "tools/crossval.py",
    "tools/search.py",
    "tools/rank.py",
)


@pytest.mark.parametrize("name", ["main.py", "test.py"])
@pytest.mark.parametrize("flags", [("--help",), ("--wrong",), ("--tasks", "imagenet")])
def test_help_and_wrong_flags_answer_without_torch(name, flags):
    code = f"import runpy, sys; sys.argv = {[name, *flags]!r}; sys.modules['torch'] = None; "
    code += f"runpy.run_path({name!r}, run_name='__main__')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == (0 if flags == ("--help",) else 2), answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) == (0 if flags == ("--help",) else 1)


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_help(script, name):
    answer = script(name, "--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"usage: {name.split('/')[1]} ")


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("main.py", ("--batch_size", "1"), "main.py: --batch_size 1: must be at least 2"),
        ("main.py", ("--num_epochs", "0"), "main.py: --num_epochs 0: must be at least 1"),
        ("main.py", ("--jobs", "0"), "main.py: argument --jobs: '0': expected an integer above 0"),
        ("main.py", ("--save_name", "../x"), "main.py: argument --save_name: '../x': expected a name without a path"),
        ("main.py", ("--device", "nowhere"), "main.py: --device nowhere: "),
        ("main.py", ("--data_path", "nowhere"), "main.py: nowhere/CVPR_2022_NAS_Track2_train.json: No such file"),
        (
            "test.py",
            ("--data_path", ".", "--results_path", "nowhere"),
            "test.py: nowhere/cplfw_final.pth: there is no checkpoint of cplfw",
        ),
        ("main.py", ("--recipe", "best"), "main.py: argument --recipe: invalid choice: 'best'"),
        ("main.py", ("--recipe", "gp", "--train_ratio", "0.5"), "main.py: --train_ratio: the recipe gp has no such"),
        ("main.py", ("--recipe", "ridge", "--keep", "3"), "main.py: --keep: the recipe ridge has no such setting"),
        ("test.py", ("--recipe", "gp", "--uncertainty", ""), "test.py: argument --uncertainty: '': expected a"),
        ("tools/crossval.py", ("--seed", "4294967295", "--repeats", "2"), "crossval.py: --repeats: the last seed"),
        ("tools/crossval.py", ("--seed", "4294967296"), "crossval.py: argument --seed: '4294967296': expected an"),
        ("test.py", ("--uncertainty", "u.json"), "test.py: --uncertainty: the recipe reference has no rank intervals"),
        (
            "test.py",
            ("--data_path", ".", "--results_path", "nowhere", "--recipe", "gp"),
            "test.py: nowhere/cplfw_gp.pth: there is no checkpoint of cplfw: train it on this data: python main.py",
        ),
        ("tools/crossval.py", ("--seed", "-1"), "crossval.py: argument --seed: '-1': expected an integer from 0"),
        ("tools/crossval.py", ("--recipes", "best"), "crossval.py: argument --recipes: invalid choice: 'best'"),
        ("test.py", ("--model_path_index", "best"), "test.py: argument --model_path_index: invalid int value"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(script, name, flags, message):
    answer = script(name, *flags)
    assert answer.returncode == 2
    assert answer.stderr.startswith(message)
    assert len(answer.stderr.splitlines()) == 1


def test_a_flag_cannot_break_a_message_into_lines(capsys):
    with pytest.raises(SystemExit):
        main.parse_arguments(["--tasks", "\n" + "x" * 10**6])
    stderr = capsys.readouterr().err
    assert "unknown task '\\nxxx" in stderr
    assert len(stderr) < 1200
    assert len(stderr.splitlines()) == 1


def test_a_device_without_numbers_is_refused():
    with pytest.raises(InputError, match="--device meta: "):
        predictors.check_device("meta")


def test_a_file_named_in_bytes_is_described_by_its_name():
    assert describe(PermissionError(13, "Permission denied", b"logs/events")) == "logs/events: Permission denied"


def test_an_empty_path_is_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder("")


def test_shared_ranks_are_said(script, data_folder):
    path = data_folder / dataset.TRAIN_FILE
    content = json.loads(path.read_text())
    content["arch7"]["veri_rank"] = content["arch8"]["veri_rank"]
    path.write_text(json.dumps(content))
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "veri")
    answer = script("main.py", *flags, *SMALL)
    assert answer.returncode == 0
    assert answer.stdout.startswith("some architectures share a rank, which is allowed: veri\ntraining 2 tasks")


def test_a_part_smaller_than_a_batch_is_said_before_training(script, data_folder, tmp_path):
    answer = script("main.py", "--data_path", data_folder, "--results_path", "r", "--batch_size", 30)
    assert answer.returncode == 2
    assert "vehicleid: the validation split has 20 of the 200 architectures" in answer.stderr
    assert not (tmp_path / "r").exists()


def test_a_diverging_task_is_named_and_the_others_kept(script, data_folder, tmp_path):
    flags = ("--data_path", data_folder, "--results_path", "r", "--log_path", "l", "--tasks", "sop", "--lr", "1e30")
    answer = script("main.py", *flags, *SMALL)
    assert answer.returncode == 1
    assert answer.stderr.startswith("main.py: sop: stopped: the loss is ")
    assert find_task("sop").name in answer.stderr


@pytest.mark.parametrize(
    ("change", "name", "flags", "message"),
    [
        ("none", "test.py", ("--results_path", "r"), "no entry has a label such as 'cplfw_rank'"),
        ("none", "tools/search.py", (), "no entry has a label such as 'cplfw_rank'"),
        ("none", "main.py", (), "no entry has a label such as 'cplfw_rank'"),
        ("equal", "main.py", ("--recipe", "gp"), "sop: all labels are equal: there is no order to learn"),
        ("few", "tools/crossval.py", ("--recipes", "ridge"), "9 architectures: expected at least 10"),
        (
            "few",
            "main.py",
            ("--tasks", "sop"),
            "sop: the training split has 7 of the 9 architectures, fewer than a batch",
        ),
    ],
)
def test_labels_that_nothing_can_be_learnt_from_are_refused(script, data_folder, change, name, flags, message):
    path = data_folder / dataset.TRAIN_FILE
    content = json.loads(path.read_text())
    if change == "none":
        content = {key: {"arch": entry["arch"]} for key, entry in content.items()}
    elif change == "equal":
        content = {key: {**entry, "sop_rank": 0.5} for key, entry in content.items()}
    else:
        content = dict(list(content.items())[:9])
    path.write_text(json.dumps(content))
    answer = script(name, "--data_path", data_folder, *flags)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_the_published_run_is_never_written_to(script, data_folder):
    published = ROOT / "results" / "published" / "sop_final.pth"
    before = published.read_bytes()
    for name, flags in (
        ("main.py", ("--results_path", published.parent, *SMALL)),
        ("main.py", ("--results_path", "r", "--log_path", ROOT / "logs", "--save_name", "published", *SMALL)),
        ("tools/crossval.py", ("--json", published)),
        ("tools/search.py", ("--tasks", "sop", "--json", published)),
    ):
        answer = script(name, "--data_path", data_folder, *flags)
        assert answer.returncode == 2
        assert "part of the published run, which stays as it is" in answer.stderr
    assert published.read_bytes() == before


def test_more_is_better_only_of_predictors_of_ones_own(script, data_folder):
    answer = script("tools/search.py", "--data_path", data_folder, "--tasks", "sop", "--largest", root=ROOT)
    assert answer.returncode == 2
    assert answer.stderr.startswith("search.py: --largest: in the published predictors smaller is better")
    answer = script("tools/search.py", "--data_path", data_folder, "--tasks", "sop", "--max_params", 10**40)
    assert answer.returncode == 0, answer.stderr


def test_with_more_is_better_rank_0_is_the_best_all_the_same(script, data_folder, tmp_path):
    tables = []
    for sign, flags in ((1, ()), (-1, ("--largest",))):
        train = json.loads((data_folder / dataset.TRAIN_FILE).read_text())
        test = json.loads((data_folder / dataset.TEST_FILE).read_text())
        for content in (train, test):  # a test file that knows its labels serves as the truth
            for i, entry in enumerate(content.values()):
                entry["sop_rank"] = sign * (entry["arch"].count("1") + i / 1000)
        folder = tmp_path / f"data{sign}"
        folder.mkdir()
        for name, content in ((dataset.TRAIN_FILE, train), (dataset.TEST_FILE, test)):
            (folder / name).write_text(json.dumps(content))
        shared = ("--data_path", folder, "--results_path", "r", "--tasks", "sop", "--recipe", "ridge")
        assert script("main.py", *shared, "--log_path", "l").returncode == 0
        assert script("test.py", *shared, *flags, "--save_name", sign).returncode == 0
        submission = f"Track2_submitA_{sign}.json"
        tables.append(script("tools/score.py", submission, folder / dataset.TEST_FILE, "--tasks", "sop", *flags).stdout)
    ranks = [
        [entry["sop_rank"] for entry in json.loads((tmp_path / f"Track2_submitA_{sign}.json").read_text()).values()]
        for sign in (1, -1)
    ]
    assert ranks[0] == ranks[1]
    assert tables[0] == tables[1] != ""
    assert float(tables[0].splitlines()[1].split()[1]) > 0.8


def test_intervals_are_mirrored_where_more_is_better(script, data_folder, tmp_path):
    shared = ("--data_path", data_folder, "--results_path", "r", "--tasks", "sop", "--recipe", "gp")
    assert script("main.py", *shared, "--log_path", "l").returncode == 0
    for name, flags in (("smallest", ()), ("largest", ("--largest",))):
        assert script("test.py", *shared, *flags, "--uncertainty", name).returncode == 0
    smallest, largest = (
        np.array([entry["sop_rank_interval"] for entry in json.loads((tmp_path / name).read_text()).values()])
        for name in ("smallest", "largest")
    )
    assert (largest == len(smallest) - 1 - smallest[:, ::-1]).all()


def test_the_next_command_can_be_pasted(script, data_folder):
    data_folder.rename(data_folder.parent / "my data")
    flags = ("--data_path", "my data", "--results_path", "r", "--log_path", "l", "--recipe", "ridge", "--tasks", "sop")
    trained = script("main.py", *flags)
    expected = "next: bash test.sh --recipe ridge --data_path 'my data' --results_path r --tasks sop ranks the test"
    assert trained.stdout.splitlines()[-1].startswith(expected)
