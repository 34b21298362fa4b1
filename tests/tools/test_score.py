import itertools
import json

import numpy as np
import pytest
from helpers import make_entries
from scipy.stats import kendalltau

from common.files import InputError
from space import sample_architectures
from tasks import TASKS
from tools.score import score

N = 30
ARCHITECTURES = sample_architectures(N, seed=4)
TASK_NAMES = [task.name for task in TASKS]


@pytest.fixture
def truth():
    return make_entries(ARCHITECTURES)


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """scored(submission, truth, intervals, **options): what score returns for files with these entries."""
    monkeypatch.chdir(tmp_path)

    def run(submission, truth, intervals=None, **options):
        for name, entries in (("submission", submission), ("truths", truth), ("intervals", intervals)):
            (tmp_path / name).write_text(json.dumps(entries))
        return score("submission", "truths", intervals_path=intervals and "intervals", **options)

    return run


def entries_of(**fields):
    """{"arch0": {"arch": ..., field: its first value}, ...}"""
    rows = [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]
    return {f"arch{i}": {"arch": ARCHITECTURES[i], **row} for i, row in enumerate(rows)}


@pytest.mark.parametrize("top", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("kind", "sign"), [("rank", 1), ("accuracy", -1)])
def test_figures_are_means_over_all_orders_of_equal_ranks_whatever_the_order_of_the_files(scored, kind, sign, top):
    random, orders = np.random.RandomState(0), list(itertools.permutations(range(5)))
    values = {"veri": ([0, 0, 2, 2, 2], [1.5, 1.5, 1.5, 7, 9]), "own-1": ([0, 1, 2, 3, 4], [0.5, 1, 2, 3, 4])}
    submission, truth, intervals, expected = {}, {}, {}, {}
    for name, both in values.items():
        ours, labels = (random.permutation(some).tolist() for some in both)
        true = [sum(sign * other < sign * own for other in labels) for own in labels]
        low = random.randint(3, size=5).tolist()
        covered = [low[i] <= true[i] <= low[i] + 1 for i in range(5)]
        submission[f"{name}_rank"], truth[f"{name}_{kind}"] = ours, labels
        intervals[f"{name}_rank_interval"] = [[end, end + 1] for end in low]
        tops = [sorted(order, key=ours.__getitem__)[:top] for order in orders]
        true_tops = [sorted(order, key=true.__getitem__)[:top] for order in orders]
        expected[name] = {
            "tau": pytest.approx(kendalltau(ours, true).statistic),
            "in_top": pytest.approx(np.mean([len({*a} & {*b}) for a, b in itertools.product(tops, true_tops)])),
            "best": pytest.approx(np.mean([true[order[0]] for order in tops])),
            "coverage": pytest.approx(np.mean(covered)),
            "top_coverage": pytest.approx(np.mean([[covered[i] for i in order] for order in tops])),
        }
    files = dict(reversed(entries_of(**submission).items())), entries_of(**truth), entries_of(**intervals)
    assert scored(*files[:2], dict(reversed(files[2].items())), top=top) == expected


def test_tasks_that_are_not_predicted_are_skipped_with_a_line_and_refused_where_asked_for(scored, truth, caplog):
    caplog.set_level("INFO")
    submission = json.loads(json.dumps(truth))
    for entry in submission.values():
        entry["veri_rank"] = -1
        del entry["sop_rank"]
    assert list(scored(submission, truth)) == [name for name in TASK_NAMES if name not in ("veri", "sop")]
    assert caplog.messages == ["not predicted in submission, so not counted: veri, sop"]
    assert list(scored(submission, truth, tasks=["msmt17", "cplfw"])) == ["cplfw", "msmt17"]
    with pytest.raises(InputError, match=r"^submission: does not predict veri: name other --tasks$"):
        scored(submission, truth, tasks=["cplfw", "veri"])
    nothing = {name: {"arch": entry["arch"]} for name, entry in truth.items()}
    with pytest.raises(InputError, match=r"^submission: does not predict cplfw, .*, sop: name other --tasks$"):
        scored(nothing, truth)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("rank", [-1, N, 3.0, "3", None, True, [3], "missing"])
def test_a_rank_that_is_no_integer_in_range_is_named(scored, truth, rank):
    submission = json.loads(json.dumps(truth))
    submission["arch9"]["sop_rank"] = rank
    if rank == "missing":
        del submission["arch9"]["sop_rank"]
    expected = "expected an integer from 0 to 29, or --tasks without sop$"
    with pytest.raises(InputError, match=f"^submission: arch9: sop_rank is .*: {expected}"):
        scored(submission, truth)


@pytest.mark.parametrize("which", ["submission", "truth"])
def test_equal_ranks_are_refused(scored, truth, which):
    files = {"submission": truth, "truth": json.loads(json.dumps(truth))}
    for entry in files[which].values():
        entry["veri_rank"] = 7
    with pytest.raises(InputError, match=r"^submission: veri: tau is undefined, as all ranks are equal here or in tr"):
        scored(**files)


@pytest.mark.parametrize("ends", [None, [1], [1, 2, 3], [1, 2.5], "01", [True, 2]])
def test_intervals_of_another_form_are_named(scored, truth, ends):
    intervals = {name: {"arch": entry["arch"], "sop_rank_interval": [0, 9]} for name, entry in truth.items()}
    intervals["arch9"]["sop_rank_interval"] = ends
    with pytest.raises(InputError, match=r"^intervals: arch9: sop_rank_interval is .*: expected .low, high., as test"):
        scored(truth, truth, intervals, tasks=["sop"])


@pytest.mark.parametrize("spoiled", ["submission", "intervals"])
def test_files_of_other_architectures_are_refused(scored, truth, spoiled):
    intervals = {name: {"arch": entry["arch"], "sop_rank_interval": [0, 9]} for name, entry in truth.items()}
    files = {"submission": json.loads(json.dumps(truth)), "intervals": intervals}
    del files[spoiled]["arch9"]
    with pytest.raises(InputError, match=f"^{spoiled}: arch9 is missing: expected the 30 architectures of truths"):
        scored(truth=truth, **files)


def test_the_command_prints_a_table_or_json(script, tmp_path):
    ranks = {"msmt17_rank": [0, 1, 2, 3], "sop_rank": [0, 1, 1, 3], "veri_rank": [-1] * 4}
    ends = [[0, 1], [1, 2], [3, 3], [0, 3]]
    truth = entries_of(veri_rank=[3, 2, 1, 0], msmt17_accuracy=[0.5, 0.75, 0.25, 0], sop_rank=[9, 8, 7, 0])
    intervals = entries_of(msmt17_rank_interval=ends, sop_rank_interval=ends)
    files = {"Track2_submitA_x.json": entries_of(**ranks), "truth.json": truth, "intervals.json": intervals}
    for name, entries in files.items():
        (tmp_path / name).write_text(json.dumps(entries))
    command = ("tools/score.py", "Track2_submitA_x.json", "truth.json", "--top", 3, "--uncertainty", "intervals.json")
    said = (
        "not predicted in Track2_submitA_x.json, so not counted: veri\n"
        "msmt17_accuracy: only the order of these labels counts, the largest is the best\n"
        "sop_rank: only the order of these labels counts, the smallest is the best\n"
    )
    answer = script(*command)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == said + (
        "task            tau  in top 3  true rank of the best  coverage  coverage, top 3\n"
        "msmt17       0.6667         3                      1     0.500            0.333\n"
        "sop         -0.9129         2                      3     0.500            0.333\n"
        "mean        -0.1231\n"
    )
    assert script(*command[:-2], "--tasks", "sop").stdout == said.splitlines(True)[2] + (
        "task            tau  in top 3  true rank of the best\n"
        "sop         -0.9129         2                      3\n"
        "mean        -0.9129\n"
    )
    answer = script(*command, "--json")
    assert answer.stderr == said
    content = json.loads(answer.stdout)
    assert list(content) == ["mean_tau", "tasks"]
    assert content["mean_tau"] == pytest.approx((2 / 3 - 5 / 30**0.5) / 2)
    assert list(content["tasks"]) == ["msmt17", "sop"]
    sop = {"tau": -5 / 30**0.5, "in_top": 2, "best": 3, "coverage": 1 / 2, "top_coverage": 1 / 3}
    assert content["tasks"]["sop"] == pytest.approx(sop)
    for files in (("truth.json", "intervals.json"), ("intervals.json", "Track2_submitA_x.json")):
        answer = script("tools/score.py", *files)
        swapped = f"score.py: {' '.join(files)}: swapped: name the submission first, then the truth\n"
        assert (answer.returncode, answer.stdout, answer.stderr) == (2, "", swapped)
