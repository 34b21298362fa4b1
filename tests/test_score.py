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
        return score(tmp_path / "submission.json", tmp_path / "truth.json")

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
        (lambda content: content["arch510"].pop("sop_rank"), "arch510: 'sop_rank' is missing"),
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
    taus = score(tmp_path / "submission.json", tmp_path / "truth.json")
    taus["mean"] = np.mean(list(taus.values()))
    table = script("tools/score.py", "submission.json", "truth.json").stdout
    assert [line.split() for line in table.splitlines()] == [[name, f"{tau:.4f}"] for name, tau in taus.items()]
    assert json.loads(script("tools/score.py", "submission.json", "truth.json", "--json").stdout) == pytest.approx(taus)


def test_a_refusal_is_one_line_and_status_2(script, truth, tmp_path):
    truth["arch510"]["sop_rank"] = -1
    (tmp_path / "submission.json").write_text(json.dumps(truth))
    for files in (("submission.json", "truth.json"), ("nowhere.json", "truth.json")):
        answer = script("tools/score.py", *files)
        assert (answer.returncode, answer.stdout, len(answer.stderr.splitlines())) == (2, "", 1)
        assert answer.stderr.startswith(f"score.py: {files[0]}: ")
