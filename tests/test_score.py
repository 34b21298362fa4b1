import itertools
import json
import math

import numpy as np
import pytest
from conftest import make_content

import dataset
from tasks import TASKS
from tools.score import score

N = 60


@pytest.fixture
def truth(tmp_path):
    """The content of a file with true ranks, written to truth.json."""
    content = make_content(dataset.sample_architectures(N, seed=4), start=501)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return content


@pytest.fixture
def scored(tmp_path):
    """Write a submission and score it."""

    def write_and_score(submission):
        (tmp_path / "submission.json").write_text(json.dumps(submission))
        figures = score(tmp_path / "submission.json", tmp_path / "truth.json")
        return {name: row["tau"] for name, row in figures.items()}

    return write_and_score


def changed(content, change):
    """A copy of the content, each entry after change(entry, task)."""
    copy = json.loads(json.dumps(content))
    for entry, task in itertools.product(copy.values(), TASKS):
        change(entry, task)
    return copy


def test_perfect_is_1_and_reversed_is_minus_1(truth, scored):
    assert scored(truth) == {task.name: pytest.approx(1, abs=1e-12) for task in TASKS}
    reversed_ = changed(truth, lambda entry, task: entry.update({task.rank_key: N - 1 - entry[task.rank_key]}))
    assert scored(reversed_) == {task.name: pytest.approx(-1, abs=1e-12) for task in TASKS}


def test_tau_equals_a_count_of_pairs_whatever_the_order_of_the_file(truth, scored):
    random = np.random.RandomState(1)
    submission = changed(truth, lambda entry, task: entry.update({task.rank_key: random.randint(N)}))
    taus = scored(dict(reversed(submission.items())))
    for task in TASKS:
        balance = untied = 0
        for a, b in itertools.combinations(truth, 2):
            ours = np.sign(submission[a][task.rank_key] - submission[b][task.rank_key])
            balance += ours * np.sign(truth[a][task.rank_key] - truth[b][task.rank_key])
            untied += abs(ours)
        assert taus[task.name] == pytest.approx(balance / math.sqrt(untied * N * (N - 1) / 2), abs=1e-12)


def test_a_constant_task_is_refused(truth, scored):
    for entry in truth.values():
        entry["veri_rank"] = 7
    with pytest.raises(
        dataset.DataError, match=r"submission\.json: veri_rank: tau is undefined, as all ranks are equal"
    ):
        scored(truth)


@pytest.mark.parametrize("rank", [-1, N, 3.0, "3", None, True, [3]])
def test_a_rank_that_is_no_integer_in_range_is_named(truth, scored, rank):
    truth["arch510"]["sop_rank"] = rank
    with pytest.raises(
        dataset.DataError, match=r"submission\.json: arch510: sop_rank is .*: expected an integer from 0 to 59"
    ):
        scored(truth)


def renamed(content):
    content["arch9"] = content.pop("arch510")


def exchanged(content):
    content["arch510"]["arch"], content["arch511"]["arch"] = content["arch511"]["arch"], content["arch510"]["arch"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("arch510"), "arch510 is missing: expected the 60 architectures of"),
        (lambda content: content["arch510"].pop("sop_rank"), "arch510: sop_rank is missing: expected an integer"),
        (lambda content: content.update(arch9=dict(content["arch510"])), "arch9 is not one of the 60 architectures of"),
        (renamed, "arch510 is missing"),
        (exchanged, "arch510: arch is [jkl][0-3]{36}: expected [jkl][0-3]{36}"),
        (lambda content: content["arch510"].update(arch="j"), "arch510: arch has 1 characters: expected 37"),
    ],
)
def test_other_architectures_or_tasks_are_refused(truth, scored, spoil, message):
    spoil(truth)
    with pytest.raises(dataset.DataError, match=f"submission.json: {message}"):
        scored(truth)


def test_the_table_and_the_json_hold_each_task_and_the_mean(script, truth, tmp_path):
    submission = changed(truth, lambda entry, task: entry.update({task.rank_key: entry[task.rank_key] // 2}))
    (tmp_path / "submission.json").write_text(json.dumps(submission))
    figures = score(tmp_path / "submission.json", tmp_path / "truth.json", top=7)
    mean = np.mean([row["tau"] for row in figures.values()])
    command = ("tools/score.py", "submission.json", "truth.json", "--top", 7)
    lines = [line.split() for line in script(*command).stdout.splitlines()]
    assert lines[0][:5] == ["task", "tau", "in", "top", "7"]
    assert lines[1:-1] == [
        [name, f"{row['tau']:.4f}", str(row["in_top"]), str(row["best"])] for name, row in figures.items()
    ]
    assert lines[-1] == ["mean", f"{mean:.4f}"]
    content = json.loads(script(*command, "--json").stdout)
    assert content.pop("mean") == pytest.approx(mean)
    assert content.pop("top")["sop"] == {key: figures["sop"][key] for key in ("in_top", "best")}
    assert content == pytest.approx({name: row["tau"] for name, row in figures.items()})


def test_the_top_is_that_of_the_smallest_ranks(truth, tmp_path):
    random = np.random.RandomState(3)
    submission = changed(truth, lambda entry, task: entry.update({task.rank_key: random.randint(N)}))
    (tmp_path / "submission.json").write_text(json.dumps(submission))
    for k in (1, 10, 1000):
        figures = score(tmp_path / "submission.json", tmp_path / "truth.json", top=k)
        for task in TASKS:
            ours = sorted(submission, key=lambda name: submission[name][task.rank_key])
            true = sorted(truth, key=lambda name: truth[name][task.rank_key])
            assert figures[task.name]["in_top"] == len(set(ours[:k]) & set(true[:k]))
            assert figures[task.name]["best"] == truth[ours[0]][task.rank_key]


def test_some_tasks_can_be_scored_and_swapped_files_are_noticed(script, truth, tmp_path):
    for entry in truth.values():
        del entry["cplfw_rank"]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for entry in truth.values():
        entry["veri_rank"] = -1
    (tmp_path / "Track2_submitA_x.json").write_text(json.dumps(truth))
    answer = script("tools/score.py", "Track2_submitA_x.json", "truth.json")
    assert answer.returncode == 2
    assert (
        "Track2_submitA_x.json: arch501: veri_rank is -1: expected an integer from 0 to 59, or --tasks without veri"
        in answer.stderr
    )
    answer = script("tools/score.py", "Track2_submitA_x.json", "truth.json", "--tasks", "sop", "msmt17")
    assert [line.split()[:2] for line in answer.stdout.splitlines()[1:]] == [
        ["msmt17", "1.0000"],
        ["sop", "1.0000"],
        ["mean", "1.0000"],
    ]
    answer = script("tools/score.py", "truth.json", "Track2_submitA_x.json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert (
        answer.stderr
        == "score.py: truth.json Track2_submitA_x.json: swapped: name the submission first, then the truth\n"
    )


def test_the_coverage_is_the_share_of_true_ranks_inside(script, truth, tmp_path):
    intervals = {name: {"arch": entry["arch"]} for name, entry in truth.items()}
    for i, (name, entry) in enumerate(intervals.items()):
        rank = truth[name]["sop_rank"]
        entry["sop_rank_interval"] = [rank, rank + 1] if i < 15 else [rank + 1, N] if i < 40 else [0, rank]
    for name, content in (("submission", truth), ("intervals", intervals)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    flags = ("submission.json", "truth.json", "--tasks", "sop", "--uncertainty", "intervals.json")
    assert f"coverage {35 / 60:.3f}" in script("tools/score.py", *flags).stdout
    answer = script("tools/score.py", "submission.json", "truth.json", "--uncertainty", "intervals.json")
    assert answer.returncode == 2
    assert answer.stderr.endswith(
        "intervals.json: arch501: cplfw_rank_interval is null: expected [low, high], as test.py writes\n"
    )


def test_a_refusal_is_one_line_and_status_2(script, truth, tmp_path):
    truth["arch510"]["sop_rank"] = -1
    (tmp_path / "submission.json").write_text(json.dumps(truth))
    for files in (("submission.json", "truth.json"), ("nowhere.json", "truth.json")):
        answer = script("tools/score.py", *files)
        assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
        assert answer.stderr.startswith(f"score.py: {files[0]}: ")
