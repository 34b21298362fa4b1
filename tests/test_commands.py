"""Every command as a user runs it: what it writes, beside plain counts; what it says and advises; mistakes."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers import (
    README_RECIPE,
    ROOT,
    OwnRecipe,
    add_recipe,
    files,
    make_data,
    make_entries,
    run_command,
    save_checkpoint,
)
from scipy.stats import kendalltau

import recipes
from common.files import InputError
from engine.checkpoint import to_bytes
from engine.predictors import load, rank_intervals, score_all, shares_beaten
from recipes import reference
from space import VIT
from tasks import TEST_FILE, TRAIN_FILE, find_task
from tools import traverse

ARCHITECTURES = VIT.sample(530, seed=8)
TRAINED, RANKED = ARCHITECTURES[:230], ARCHITECTURES[230:]
LARGEST, SMALLEST = "l" + "111" * 12, "j" + "331" * 10 + "000000"
WHERE, SHORT = ("--data_path", "data", "--results_path", "r"), ("--num_epochs", 40, "--batch_size", 8)
exec(README_RECIPE, README := {})


def measured(architectures, **more):
    """Entries with the same labels as ranks of one task and as accuracies of another."""
    return {
        key: {"arch": entry["arch"], "a_rank": entry["sop_rank"], "New-2_accuracy": -entry["sop_rank"]} | more
        for key, entry in make_entries(architectures).items()
    }


def read(name):
    return json.loads(Path(name).read_text())


def run(name, *flags, **options):
    """Run a command that succeeds: what it prints."""
    answer = run_command(name, *flags, **options)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


class Noisy(OwnRecipe):
    """A user's recipe that draws random numbers."""

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return {"effects": torch.as_tensor(ranks - ranks.mean()).float() @ encodings.flatten(1) + torch.randn(370)}


@pytest.fixture(scope="module", params=[*recipes.RECIPES, Noisy, README["Recipe"]])
def chain(request, tmp_path_factory):
    """A recipe; the current folder has its predictors in r/ and its submission s, which `make` makes again."""
    few = SHORT if request.param == "reference" else ()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("chain"))
        recipe = recipes.get(request.param) if request.param in recipes.RECIPES else add_recipe(patch, request.param)
        data = make_data(Path("d\udcff\n"), measured(TRAINED), measured(RANKED, veri_rank=5))  # not UTF-8
        where = ("--data_path", data, "--results_path", "r", "--recipe", recipe.name)
        intervals = ("--uncertainty", "new/intervals") if recipe.rank_interval else ()

        def make(jobs):
            run("main.py", *where, "--log_path", "l", "--jobs", jobs, "--seed", 7, *few)
            run("test.py", *where, "--save_name", "s", *intervals)

        make(jobs=3)
        predictors = load(["a", "New-2"], recipe=recipe.name, results="r")
        yield SimpleNamespace(**locals())


def test_the_same_bytes_are_written_with_any_number_of_jobs_and_threads(chain):
    def outputs():
        return {path: content for path, content in files(Path()).items() if not path.startswith("l/")}

    before = outputs()
    torch.set_num_threads(3)
    chain.make(jobs=1)
    torch.set_num_threads(1)
    assert outputs() == before
    seed = 7 if "seed" in chain.recipe.settings else None
    assert [each.checkpoint["task"].get("seed") for each in chain.predictors] == [seed] * 2


def test_ranks_are_numbers_of_smaller_scores_in_one_direction_and_scored_by_kendalls_tau(chain):
    scores, submission = score_all(chain.predictors, RANKED)[0], read("Track2_submitA_s.json").values()
    ranks = [(scores < score).sum() for score in scores]
    for key, expected in (("arch", RANKED), ("a_rank", ranks), ("New-2_rank", ranks), ("veri_rank", [-1] * 300)):
        assert [entry[key] for entry in submission] == expected  # of veri nothing is predicted
    flags = ("Track2_submitA_s.json", chain.data / TEST_FILE, *chain.intervals)
    tau = -kendalltau(ranks, [entry["New-2_accuracy"] for entry in submission]).statistic
    assert json.loads(run("tools/score.py", *flags, "--json"))["mean_tau"] == pytest.approx(tau) and tau > 0.2
    text = run("tools/score.py", *flags)
    assert text.count(f" {tau:.4f}") == 3 and text.count("coverage") == len(chain.intervals)
    assert "not predicted in Track2_submitA_s.json, so not counted: veri\n" in text
    if chain.intervals:
        found = [entry["a_rank_interval"] for entry in read("new/intervals").values()]
        assert found == rank_intervals(chain.predictors[0], scores, scores).tolist()


def test_the_share_of_the_space_that_an_architecture_beats_is_counted(chain):
    few = [LARGEST, SMALLEST, RANKED[0]]
    found = json.loads(run("tools/rank.py", "-", *chain.where, "--json", text="\n".join(few).encode()))
    scores = score_all(chain.predictors, [*few, *VIT.sample(100_000, seed=0)]).numpy()
    intervals = shares_beaten(chain.predictors, few).intervals if chain.intervals else None
    text = run("tools/rank.py", *few, *chain.where)
    for i, (entry, params) in enumerate(zip(found, VIT.measure(few)["params"], strict=True)):
        share = (scores[0, 3:] > scores[0, i]).mean()
        assert (entry["arch"], entry["params"], entry["tasks"]["a"]["beats"]) == (few[i], params, share)
        assert f"params {params / 1e6:.4g}M" in text and f"{100 * share:.3f} %" in text
        if chain.intervals:
            low, high = entry["tasks"]["New-2"]["interval"]
            assert [low, high] == intervals[1, i].tolist()
            assert f"{100 * low:.1f} to {100 * high:.1f} %" in text and "too narrow if you picked it" in text
    assert found[0]["tasks"]["a"]["beats"] > 0.8 > 0.2 > found[1]["tasks"]["a"]["beats"]
    assert found[1]["decisions"] == VIT.values(SMALLEST)
    order = [
        line.split()[0] for line in run("tools/rank.py", *chain.where, "--tasks", "a", *few, RANKED[1]).splitlines()
    ]
    several = [*few, RANKED[1]]
    shares = dict(zip(several, shares_beaten(chain.predictors[:1], several).beaten[0], strict=True))
    assert [name for name in order if name in shares] == sorted(several, key=lambda name: -shares[name])


def test_a_search_finds_architectures_within_a_budget_and_accounts_for_all(chain):
    text = run("tools/search.py", *chain.where, "--tasks", "a", "--max", "params=57.5e6", "--json", "best")
    found, (predictor, _) = read("best"), chain.predictors
    best, proven = found.pop("architectures"), predictor.model.function is None
    assert found == {"tasks": ["a"], "recipe": chain.recipe.name, "proven": proven}
    assert proven == ("nothing is proven" not in text) == ("no other architecture has a better" in text)
    counts = re.findall(r"([\d,]+) (?:ruled|scored|left)", text)
    assert sum(int(count.replace(",", "")) for count in counts) == VIT.size
    expected = score_all([predictor], [entry["arch"] for entry in best])[0].tolist()
    assert [entry["score"] for entry in best] == pytest.approx(sorted(expected), rel=1e-6, abs=1e-4)
    assert len(best) == 10 and max(entry["params"] for entry in best) <= 57_500_000


def test_cross_validation_ranks_what_was_held_out(chain):
    run("tools/crossval.py", *chain.where[:2], "--tasks", "a", "--recipes", chain.recipe.name, "--json", "taus")
    assert np.min(read("taus")["tau"][chain.recipe.name]) > 0.2


def test_flags_win_over_the_settings_of_the_task(command, data_folder):
    given = {"lr": 2e-3, "weight_decay": 0.0, "batch_size": 10, "train_ratio": 0.75, "seed": 8, "dropout_ratio": 0.1}
    given |= {"val_interval": 2, "num_epochs": 5, "keep": 2}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    run("main.py", *WHERE, "--log_path", "l", "--tasks", "sop_rank", "--save_name", "mine", "--no-cos", *words)
    checkpoint = torch.load("r/sop_final.pth", weights_only=True)
    assert checkpoint["task"] == {"name": "sop", "snapshot": -4, "cos": False} | given
    assert Path("l/mine/sop").exists()


class Noted(OwnRecipe):
    """Fails for sop, stops early for cplfw, and has a remark on all but market1501."""

    def fit(self, task, *others):
        if task.name == "sop":
            raise InputError("nothing was saved")
        return super().fit(task, *others) | {"stopped": "early" if task.name == "cplfw" else None}

    def summary(self, checkpoint):
        return {"count": 12345, "tau": 0.5 if checkpoint["stopped"] else 0.25}

    def remark(self, checkpoint):
        return None if checkpoint["task"]["name"] == "market1501" else "look at it"


def test_figures_remarks_and_errors_of_each_task_are_printed(command, monkeypatch, data_folder):
    add_recipe(monkeypatch, Noted)
    tasks = ("--tasks", "veri", "sop", "cplfw", "market1501")
    answer = command("main.py", *WHERE, "--log_path", "l", "--recipe", "own", *tasks)
    assert (answer.returncode, answer.stderr) == (1, "main.py: cplfw: early\nmain.py: sop: nothing was saved\n")
    rows = "task count tau", "cplfw 12345 0.5000", "market1501 12345 0.2500", "veri 12345 0.2500"
    found = [" ".join(line.split()[:3]) for line in answer.stdout.splitlines()]
    assert found[1:7] == [*rows, "mean 0.3333", "cplfw, veri: look"]
    assert "--tasks cplfw market1501 veri ranks the test architectures" in answer.stdout  # those that are trained


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(command, monkeypatch, data_folder, tmp_path):
    class Interrupted(reference.Recipe):
        def fit(self, task, *others):
            if task.name == "cplfw" and not Path("go on").exists():
                os.kill(os.getppid(), signal.SIGINT)
                signal.pause()
            return super().fit(task, *others)

    add_recipe(monkeypatch, Interrupted)
    flags = (*WHERE, "--log_path", "l", "--recipe", "own", "--tasks", "sop", "cplfw", "--jobs", 1, *SHORT)
    answer = command("main.py", *flags)  # sop first: it has more steps
    said = "main.py: interrupted; finished: sop; --resume skips what is finished\n"
    assert (answer.returncode, answer.stderr, "\nsop " in answer.stdout) == (130, said, True)  # in the table
    finished = files(tmp_path / "r")
    assert list(finished) == ["sop_own.pth"]
    Path("go on").touch()
    assert "training 1 of 2 tasks" in run("main.py", *flags, "--resume")
    assert files(tmp_path / "r").items() > finished.items()


def test_a_snapshot_can_be_chosen_and_the_best_are_traversed(command, data_folder):
    where, taus, validations = (*WHERE, "--tasks", "veri", "sop"), [], []
    run("main.py", *where, "--log_path", "l", *SHORT, "--val_interval", 1)
    run("tools/traverse.py", *where)
    truth = make_entries([entry["arch"] for entry in read(f"data/{TEST_FILE}").values()], start=201, seed=6)
    Path("truth").write_text(json.dumps(truth))
    for k in (1, 2, 3):
        said, name = run("test.py", *where, "--model_path_index", -k, "--save_name", k), f"Track2_submitA_{k}.json"
        assert read(name) == read(f"Track2_submitA_traverse_data_{k}.json")
        scored = json.loads(run("tools/score.py", name, "truth", "--tasks", "veri", "sop", "--json"))["tasks"]
        taus.append([scored[task]["tau"] for task in ("veri", "sop")])
        validations.append(re.findall(r"validation tau (\S+)", said))
    curve = {tau for _, tau in torch.load("r/veri_final.pth", weights_only=True)["validate_ktau"]}
    assert [tau for tau, _ in validations] == [f"{tau:.4f}" for tau in sorted(curve)[:-4:-1]]
    table = " ".join(run("tools/traverse.py", *where, "--top", 3, "--truth", "truth").split())
    assert all(" ".join(f"{tau:.4f}" for tau in (*row, np.mean(row))) in table for row in taus)
    assert len(list(Path().glob("Track2*"))) == 13  # none by the last command


def test_the_best_snapshot_is_one_that_has_a_tau():
    table = traverse.table(["veri"], np.array([[0.5], [0.4], [0.3]]), np.array([[np.nan], [-0.5], [-0.75]]))
    assert table.split()[-6:] == ["veri", "2", "-0.5000", "0.4000", "nan", "0.5000"]


def test_the_published_run_ranks_a_test_file_alone_as_before_and_has_the_curves(command, home, data_folder):
    for path in data_folder.iterdir():
        shutil.copy(path, home / "data")
    run("main.py", *SHORT, "--val_interval", 1)
    run("test.py", "--save_name", "own")
    shutil.rmtree(home / "logs" / "published" / "sop")  # new files are added, old ones replaced
    run("tools/publish.py")
    for path in (home / "results").glob("*.pth"):
        expected = torch.load(path, weights_only=True)
        assert len(expected["snapshots"]) > 1
        expected["snapshots"] = {expected["index"]: expected["snapshots"][expected["index"]]}
        assert (home / "results" / "published" / path.name).read_bytes() == to_bytes(expected)
        path.unlink()
    (home / "data" / TRAIN_FILE).unlink()
    assert "using the published checkpoints" in run("test.py", "--save_name", "p p")
    assert read("Track2_submitA_p p.json") == read("Track2_submitA_own.json")
    own, published = (files(home / "logs" / name) for name in ("train_final", "published"))
    assert {Path(path).name for path in published} == {"events.out.tfevents.published"}  # not the machine's
    own, published = ({Path(path).parent: logged[path] for path in logged} for logged in (own, published))
    assert own.items() <= published.items() and len(published) == 16 > len(own) > 12  # of few no tau is logged


@pytest.fixture
def follow(command, home, tmp_path):
    """Run a command as printed, and with more flags: follow("python 'the project/main.py' --tasks sop", ...)."""

    def follow(line, *flags, status=0):
        program, path, *words = shlex.split(line)
        name = str((tmp_path / path).resolve().relative_to(home))
        assert (ROOT / name).exists() and program == {".sh": "bash", ".py": "python"}[Path(name).suffix]
        answer = command({"train.sh": "main.py", "test.sh": "test.py"}.get(name, name), *words, *flags)
        assert answer.returncode == status, answer.stderr
        return answer.stdout + answer.stderr

    return follow


def advice(pattern, output):
    """The groups of a pattern for a line of the output."""
    return re.search(f"^{pattern}$", output, re.MULTILINE).groups()


def small(folder, count, test=None):
    return make_data(Path(folder), make_entries(TRAINED[:count]), test)


@pytest.mark.parametrize(
    ("folder", "flags", "results", "name"),
    [
        ("own 'data'", "--data_path \"own 'data'\" --results_path 'r 1' --tasks cplfw", "r 1", "own 'data'_final"),
        ("the project/data", "--recipe ridge --tasks sop veri", "the project/results", "ridge"),
        (None, "--recipe gp --tasks sop", "the project/results/surrogate", "surrogate_gp"),
    ],
)
def test_advice_leads_from_missing_checkpoints_to_the_true_ranks(follow, folder, flags, results, name):
    if folder:
        small(folder, 130, measured(RANKED))
    test = f"python 'the project/test.py' {flags}"
    output = follow(*advice(r"test\.py: .*: train it: (python .*)", follow(test, status=2)))
    assert ("the surrogate benchmark, as the project/data lacks the competition's files" in output) == (not folder)
    logs, run_logs = advice(r".*; curves: tensorboard --logdir (.*) \((.*)\)", output)
    assert [os.path.dirname(run_logs)] == shlex.split(logs)
    for task in flags.split("--tasks ")[1].split():
        assert list(Path(run_logs, task).glob("*/events*")) and list(Path(results).glob(f"{task}_*.pth"))
    said, submission = follow(test), Path(f"Track2_submitA_test_{name}.json")
    before = read(submission)
    submission.unlink()
    follow(*advice("next: (bash .*) ranks the test architectures", output))
    assert read(submission) == before
    if not folder:
        assert "true rank of the best" in follow(*advice("next: (python .*) compares it with the true ranks", said))


def test_without_a_test_file_a_search_is_next_and_where_the_test_file_goes(follow):
    small("mine", 130)
    flags = "--data_path mine --recipe ridge --tasks sop"
    output = follow(f"python 'the project/main.py' {flags}")
    assert "no other architecture" in follow(*advice("next: (python .*) finds the best architecture of all", output))
    (path,) = advice("to rank architectures of your choice, put them into (.*)", output)
    Path(path).write_text(json.dumps({"a": {"arch": LARGEST}}))
    follow(f"python 'the project/test.py' {flags}")


def test_flags_named_for_too_few_architectures_are_enough(follow):
    small("mine", 60)
    line = "python 'the project/main.py' --data_path mine --num_epochs 1"
    needed, recipe = advice(r".* needs (\d+); or choose (--recipe gp)", follow(line, status=2))
    follow(f"python 'the project/main.py' --data_path mine --tasks sop {recipe}")
    make_data(Path("mine"), make_entries(VIT.sample(int(needed), seed=4)))
    follow(line)


def test_recipes_sizes_and_snapshots_that_are_named_work(follow):
    small("mine", 50, measured(RANKED))
    flags = "--data_path mine --tasks sop"
    line = f"python 'the project/tools/crossval.py' {flags}"
    assert "without reference: sop: 40 architectures are too few" in follow(line)
    given = f"{line} --recipes reference ridge"
    follow(f"{line} {advice('.*; leave reference out: (--recipes .*)', follow(given, status=2))[0]}")
    sizes = advice(r".*expected numbers from (\d+) to (\d+).*", follow(line, "--sizes", 99, status=2))
    for size in sizes:
        follow(line, "--recipes", "ridge", "--sizes", size)
    for more in ("--num_epochs 9 --val_interval 2 --batch_size 8", "--recipe gp"):
        follow(f"python 'the project/main.py' {flags} {more}")
    line = f"python 'the project/test.py' {flags}"
    for index in advice(r".*it holds \d+, (-\d+) to (-1)", follow(line, "--model_path_index", -99, status=2)):
        follow(line, "--model_path_index", index)
    (recipe,) = advice(".*has no rank intervals: use (--recipe gp)", follow(line, "--uncertainty", "u", status=2))
    follow(f"{line} {recipe} --uncertainty u")


def test_where_the_surrogate_cannot_be_made_a_command_makes_it_elsewhere(follow, monkeypatch, generated):
    train = "python 'the project/main.py' --recipe ridge --tasks sop --results_path r --log_path l"
    for number in (errno.EACCES, errno.EROFS):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", Mock(side_effect=OSError(number, "refused")))
            line, flag = advice(".*make it elsewhere: (python .*), then (--data_path FOLDER)", follow(train, status=2))
    follow(line.replace("FOLDER", "made"))
    assert files(Path("made")) == generated
    follow(f"{train} {flag.replace('FOLDER', 'made')}")


@pytest.mark.parametrize("name", ["main.py", "test.py", *(f"tools/{path.name}" for path in ROOT.glob("tools/*.py"))])
def test_help_shows_commands_whose_flags_exist(command, name):
    text = run(name, "--help")
    assert text.startswith(f"usage: {Path(name).name} [-h]")
    for other, flags in re.findall(r"\bpython (\S+\.py)((?: [^\s,<`]+)*)", text):
        assert set(re.findall(r"--\w+", flags)) <= set(re.findall(r"--\w+", run(other, "--help")))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, checkpoints of sop and veri in r/, and what leads to mistakes."""
    folder, own = tmp_path_factory.mktemp("world"), OwnRecipe("own", "own", VIT)
    test = {key: entry | {"veri_rank": -1} for key, entry in make_entries(RANKED, start=201).items()}
    make_data(folder / "data", make_entries(TRAINED[:200]), test)
    make_data(folder / "nine", make_entries(TRAINED[:9]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for flags in SHORT, ("--recipe", "gp"):
            run("main.py", *WHERE, "--log_path", "l", "--tasks", "sop", "veri", *flags)
        for name, size in (("cut", 1000), ("renamed", None)):
            os.mkdir(name)
            Path(name, "sop_final.pth").write_bytes(Path("r/sop_gp.pth").read_bytes()[:size])
            shutil.copy("r/veri_final.pth", name)
            os.symlink("r/sop_final.pth", f"Track2_submitA_{name}_2.json")
        for task, effects in (("sop", torch.zeros(370)), ("veri", torch.arange(370.0))):
            save_checkpoint(Path(f"r/{task}_own.pth"), own, find_task(task), {"effects": effects})
    return folder


@pytest.fixture
def in_the_world(command, monkeypatch, world, tmp_path):
    add_recipe(monkeypatch, OwnRecipe)
    shutil.copytree(world, tmp_path, dirs_exist_ok=True, symlinks=True)


def test_of_a_predictor_that_gives_one_score_to_all_nothing_is_said(in_the_world):
    flags = (LARGEST, *WHERE, "--recipe", "own", "--tasks", "sop")
    said = run("tools/rank.py", *flags)
    assert "sop_own.pth: gives one score to all" in said and "nothing is known" in said and " %" not in said
    assert json.loads(run("tools/rank.py", *flags, "--json"))[0]["tasks"] == {"sop": {"beats": None}}


TWO = "--tasks sop veri --data_path data --results_path r"
TOO_FEW = "sop: 200 architectures are too few for batches of 50: "
SIZES = "--sizes: expected numbers from 2 to 160, which a fold of 200 architectures trains on"
SWAPPED = "swapped: name the submission first, then the truth"
MISTAKES = {
    "main.py --data_path data --results_path s --log_path l": {
        "--batch_size 1": "--batch_size 1: must be at least 2",
        "--jobs 0": "argument --jobs: '0': expected an integer above 0 (see --help)",
        "--results_path ''": "argument --results_path: '': expected a folder's name (see --help)",
        "--save_name a/b": "argument --save_name: 'a/b': expected a name without a path",
        "--tasks 'a b'": "argument --tasks: 'a b': expected a task's name, such as sop (see --help)",
        "--recipe best": "argument --recipe: invalid choice: 'best' (choose from ",
        "--snapshot -1": "unrecognized arguments: --snapshot -1 (see --help)",
        "--device nowhere": "--device nowhere: ",
        "--data_path nowhere": "--data_path nowhere: no such folder",
        "--data_path cut": "cut/train.json: No such file or directory",
        "--tasks x": f"data/{TRAIN_FILE}: does not label the task 'x'",
        "--recipe gp --train_ratio 0.5": "--train_ratio: the recipe gp has no such setting",
        "--recipe gp --results_path /proc/nowhere": "/proc/nowhere: No such file or directory",
        "--tasks sop --train_ratio 0.8": f"{TOO_FEW}160 train and 40 validate; the recipe needs 246; or choose",
        "--tasks sop --train_ratio 0.995": f"{TOO_FEW}199 train and 1 validate; the recipe needs 9801; or choose --r",
        "--recipe gp --results_path 'the project/results/published'": "the project/results/published/cplfw_gp.pth: ",
    },
    f"test.py {TWO}": {
        "--recipe ridge --uncertainty u": "--uncertainty: the recipe ridge has no rank intervals: use --recipe gp",
        "--device meta": "--device meta: ",
        "--data_path nine": "nine/test.json: is missing: put ",
        "--results_path cut": "cut/sop_final.pth: damaged, or not a checkpoint: ",
        "--results_path renamed": "renamed/sop_final.pth: a checkpoint of the recipe gp: expected reference",
        "--results_path nowhere": "nowhere: no checkpoint of the recipe reference for sop, veri: train it: python ",
        "--recipe ridge": "r: no checkpoint of the recipe ridge for sop, veri: train it: python ",
        "--recipe gp --model_path_index -1": "r/sop_gp.pth: the recipe gp has no snapshots to choose from",
        "--save_name cut_2": "Track2_submitA_cut_2.json: would replace r/sop_final.pth, which ",
        "--recipe gp --uncertainty r/veri_gp.pth": "r/veri_gp.pth: would replace a checkpoint: choose another name",
        "--recipe gp --save_name s --uncertainty Track2_submitA_s.json": "Track2_submitA_s.json: would replace Track2_",
    },
    f"tools/rank.py {TWO}": {
        f"{LARGEST} j1": "architecture 2: arch has 2 characters: expected 37",
        '\'{"depth": 10, "depth": 11}\'': "architecture 1: key 'depth' occurs twice in one object: expected once",
        "- <": "standard input: is empty: expected one architecture per line",
        f"- <{LARGEST}\nj1": "standard input: line 2: arch has 2 characters: expected 37",
        "- <" + "\udcff" * 37: "standard input: line 1: arch position 0 (depth) is '",
    },
    "tools/score.py": {
        "truth.json truth": f"truth.json truth: {SWAPPED}",
        "truth Track2_submitA_s.json": f"truth Track2_submitA_s.json: {SWAPPED}",
        f"data/{TEST_FILE} data/{TEST_FILE} --tasks veri sop": f"data/{TEST_FILE}: does not predict veri: name other",
    },
    f"tools/search.py {TWO}": {
        "--top 1001": "argument --top: '1001': expected an integer from 1 to 1,000 (see --help)",
        "--json .": "argument --json: '.': expected a file's name (see --help)",
        "--max macs=1": "--max: no architecture is within the budget: the smallest macs is 11,457,257,984",
        "--max x=1": "--max: no cost is called 'x': ViT-Base has params, macs",
        "--max params": "argument --max: 'params': expected NAME=VALUE, such as params=70e6 (see --help)",
        "--weight sop=0 veri=0": "--weight: all are 0: expected one above 0",
        "--weight x=1": "--weight x: the tasks are sop, veri",
        f"--json data/{TRAIN_FILE}": f"data/{TRAIN_FILE}: would replace data/{TRAIN_FILE}, which ",
        "--json r/sop_final.pth": "r/sop_final.pth: would replace a checkpoint: choose another name",
    },
    "tools/search.py --data_path data --results_path r --recipe own": {
        "--tasks veri --pareto": "--pareto: no bound is known for this model of the recipe own",
        "--tasks sop veri": "sop: one score for all architectures, so none is the best: train again",
    },
    "tools/crossval.py --data_path data": {
        "--sizes 1 20": SIZES,
        "--sizes 20 161": SIZES,
        "--seed -1": "argument --seed: '-1': expected an integer from 0 to 2**32 - 1 (see --help)",
        "--seed 4294967295 --repeats 2": "--repeats: the last seed is above 2**32 - 1 (see --help)",
        f"--json data/{TRAIN_FILE}": f"data/{TRAIN_FILE}: would replace data/{TRAIN_FILE}, which ",
        "--data_path nine": f"nine/{TRAIN_FILE}: 9 architectures are labelled for ",
    },
    f"tools/traverse.py {TWO}": {
        "--top 99": "r/",
        f"--top 2 --truth data/{TRAIN_FILE}": f"data/{TRAIN_FILE}: arch201 is missing",
        "--top 2 --save_name cut": "Track2_submitA_cut_2.json: would replace r/sop_final.pth, which ",
    },
    "tools/surrogate.py": {
        "--output data": f"data/{TRAIN_FILE}: not the surrogate's: move it to a folder of its own",
        "--fit nowhere": "--fit nowhere: no such folder",
    },
    "tools/publish.py": {"": "the project/results/cplfw_final.pth: No such file or directory"},
}
MISTAKES = [(f"{start} {flags}", message) for start, some in MISTAKES.items() for flags, message in some.items()]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=range(len(MISTAKES)))
@pytest.mark.usefixtures("in_the_world")
def test_a_mistake_is_one_line_and_status_2_and_changes_nothing(tmp_path, line, message):
    before, (words, _, text) = files(tmp_path), line.partition("<")
    answer = run_command(*shlex.split(words), text=text.encode(errors="surrogateescape"))
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert answer.stderr.startswith(f"{Path(line.split()[0]).name}: {message}")
    assert files(tmp_path) == before
