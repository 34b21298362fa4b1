import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.stats import kendalltau, norm

import checkpoint
import dataset
import ensemble
import gaussian_process
import training
from metrics import ranks
from network import Predictor
from scoring import score
from tasks import ENSEMBLE, TASKS, SettingError, settings

SHORT = dataclasses.replace(ENSEMBLE[5], num_epochs=30, lr=3e-3, dropout_ratio=0.1, batch_size=16)
ARCHITECTURES = dataset.sample_architectures(160, seed=1)
OTHERS = dataset.sample_architectures(300, seed=2)


def heads(architectures):
    """Ranks that one choice decides wherever another allows it, and a little of everything else."""
    random = np.random.RandomState(0)
    return np.argsort(np.argsort([int(a[1]) * int(a[4]) + 0.1 * random.randn() for a in architectures]))


def used(architectures):
    return dataset.encode(architectures).flatten(1)[:, dataset.USED].double()


@pytest.fixture(scope="module")
def trained():
    return ensemble.train(SHORT, dataset.encode(ARCHITECTURES), heads(ARCHITECTURES))


def one_hot(architecture):
    """The choices of a string, walked character by character: its depth, then all heads and MLP ratios."""
    choices = [["j", "k", "l"].index(architecture[0])]
    for position in range(1, 37, 3):
        choices += [int(architecture[position]) - 1, int(architecture[position + 1]) - 1]
    return choices  # -1: absent


def test_the_process_predicts_the_posterior_mean_of_its_covariance(monkeypatch):
    random = np.random.RandomState(3)
    s, v, noise, c = np.exp(random.randn(25) - 3), 0.2, 0.3, 0.4
    point = np.r_[np.log(s), np.log(v), np.log(noise), c]
    monkeypatch.setattr(gaussian_process, "minimize", lambda *args, **kwargs: SimpleNamespace(x=point))
    some, true = ARCHITECTURES[:40], heads(ARCHITECTURES[:40])
    ours = ensemble.process_scores([gaussian_process.fit(used(some), true)], used(OTHERS))[0].numpy()

    def features(architectures, centre=None):
        rows = []
        for architecture in architectures:
            row = []
            for choice, chosen in enumerate(one_hot(architecture)):
                x = [float(chosen == alternative) for alternative in range(3)]
                level = (chosen - 1) * (chosen >= 0)
                row += [value * math.sqrt(s[choice]) for value in (level, *x)]
            rows.append(row)
        rows = np.array(rows)
        centre = rows.mean(0) if centre is None else centre
        return rows - centre, centre

    x, centre = features(some)
    test, _ = features(OTHERS, centre)
    z = norm.ppf((true + 0.5) / 40)
    y = (np.exp(c * z) - 1) / c
    first, across = x @ x.T, test @ x.T
    expected = (across + v * across**2) @ np.linalg.inv(first + v * first**2 + noise * np.eye(40)) @ (y - y.mean())
    np.testing.assert_allclose(ours - ours.mean(), expected - expected.mean(), atol=1e-10)


def test_the_process_finds_what_two_choices_do_together():
    matrix = gaussian_process.fit(used(ARCHITECTURES), heads(ARCHITECTURES))
    found = ensemble.process_scores([matrix], used(OTHERS))[0]
    assert kendalltau(found, [int(a[1]) * int(a[4]) for a in OTHERS]).statistic > 0.85
    additive = used(ARCHITECTURES).numpy()
    weights = np.linalg.lstsq(additive, heads(ARCHITECTURES), rcond=None)[0]
    true = [int(a[1]) * int(a[4]) for a in OTHERS]
    assert kendalltau(found, true).statistic > kendalltau(used(OTHERS).numpy() @ weights, true).statistic


def test_opinions_are_those_of_each_model_in_its_standard_deviations(trained):
    assert len(trained.members) == 4
    processes, *others = ensemble.opinions([trained, trained], OTHERS)[1]
    encodings, known = dataset.encode(OTHERS), dataset.encode(ARCHITECTURES)
    for state_dict, opinion in zip(trained.members, others, strict=True):
        predictor = Predictor().eval()
        predictor.load_state_dict(state_dict)
        with torch.no_grad():
            theirs, on_known = predictor(encodings), predictor(known)
        np.testing.assert_allclose(opinion, (theirs - on_known.mean()) / on_known.std(), atol=1e-4)
    x, known = used(OTHERS), used(ARCHITECTURES)
    theirs, on_known = (((part @ trained.matrix) * part).sum(1) for part in (x, known))
    np.testing.assert_allclose(processes, (theirs - on_known.mean()) / on_known.std(), atol=1e-4)
    assert len({state_dict["fc2.weight"].sum().item() for state_dict in trained.members}) == 4


def test_half_the_process_half_the_members():
    opinion = torch.tensor([[1.0, 2.0], [3.0, 8.0], [5.0, 6.0]])
    assert ensemble.combine(opinion).tolist() == [2.5, 4.5]
    assert ensemble.combine(opinion[:1]).tolist() == [1.0, 2.0]


def test_uncertainty_is_the_deviation_of_the_rank():
    opinion = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]])
    assert ensemble.uncertainty(opinion).tolist() == [1.0, 0.5, 0.5]  # ranks 0 1 2 and 2 0 1


class Collapsing(training.Trainer):
    """Trainings with the seeds `collapse` end as constants; `seeds` are those that were started."""

    seeds, collapse, flatten = [], (), 0.0

    def __init__(self, task, *args):
        super().__init__(task, *args)
        self.seeds.append(task.seed)

    def epoch(self):
        super().epoch()
        if self.task.seed in self.collapse:
            self.step.parameters.mul_(self.flatten)


@pytest.mark.parametrize("flatten", [0.0, 0.5, math.nan])
def test_a_collapsed_member_is_trained_again(monkeypatch, trained, flatten):
    """A constant one; one with the right order, as far as its tiny scores tell; one that diverged."""
    monkeypatch.setattr(Collapsing, "flatten", flatten)
    monkeypatch.setattr(Collapsing, "seeds", [])
    monkeypatch.setattr(Collapsing, "collapse", (1, 1001))
    monkeypatch.setattr(ensemble, "Trainer", Collapsing)
    again = ensemble.train(SHORT, dataset.encode(ARCHITECTURES), heads(ARCHITECTURES))
    assert Collapsing.seeds == [0, 1, 1001, 2001, 2, 3]
    assert again.collapsed == 2
    assert len(again.members) == 4
    for place in (0, 2, 3):
        assert torch.equal(again.members[place]["fc2.weight"], trained.members[place]["fc2.weight"])


def test_members_that_always_collapse_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(Collapsing, "collapse", [seed + 1000 * attempt for attempt in range(10) for seed in range(4)])
    monkeypatch.setattr(ensemble, "Trainer", Collapsing)
    short = dataclasses.replace(SHORT, num_epochs=1)
    alone = ensemble.train(short, dataset.encode(ARCHITECTURES), heads(ARCHITECTURES))
    assert (alone.members, alone.collapsed) == ([], 40)
    path = checkpoint.path_of(tmp_path, short, "ensemble")
    ensemble.save(path, short, alone, "f" * 64)
    (opinion,) = ensemble.opinions([ensemble.pick(ensemble.load(path, short))], OTHERS)
    assert kendalltau(ensemble.combine(opinion), [int(a[1]) * int(a[4]) for a in OTHERS]).statistic > 0.85


@pytest.mark.parametrize("wrong, message", [("few", "fewer than a batch of 16"), ("same", "have the same rank")])
def test_what_cannot_be_learnt_from_is_refused(wrong, message):
    n = 15 if wrong == "few" else 40
    labels = np.arange(n) if wrong == "few" else np.zeros(n, int)
    with pytest.raises(SettingError, match=message):
        ensemble.train(SHORT, dataset.encode(ARCHITECTURES[:n]), labels)


def test_a_file_gives_back_what_was_saved(trained, tmp_path):
    path = checkpoint.path_of(tmp_path, SHORT, "ensemble")
    assert path.name == "veri_ensemble.pth"
    ensemble.save(path, SHORT, trained, "f" * 64)
    content = ensemble.load(path, SHORT)
    assert content["task"] == settings(SHORT)
    assert checkpoint.is_of(content, SHORT, "f" * 64, ensemble.versions())
    assert not checkpoint.is_of(content, SHORT, "e" * 64, ensemble.versions())
    assert not checkpoint.is_of(content, SHORT, "f" * 64, checkpoint.versions())  # scipy counts, too
    (ours,), (theirs,) = (ensemble.opinions([one], OTHERS) for one in (ensemble.pick(content), trained))
    assert torch.equal(ours, theirs)
    first = path.read_bytes()
    ensemble.save(path, SHORT, trained, "f" * 64)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "change, message",
    [
        ({"matrix": torch.zeros(75, 75).double()}, "matrix: expected 87 x 87 finite numbers"),
        ({"matrix": torch.zeros(87, 87).double().to_sparse()}, "matrix: expected 87 x 87 finite numbers"),
        ({"matrix": torch.zeros(87, 87, dtype=torch.complex64)}, "matrix: expected 87 x 87 finite numbers"),
        ({"deviations": torch.tensor([1.0, 1, 1, 1, 0]).double()}, "deviations: expected numbers above 0"),
        ({"matrix": torch.full((87, 87), torch.nan).double()}, "matrix: expected 87 x 87 finite numbers"),
        ({"means": torch.zeros(4).double()}, "means: expected 5 finite numbers"),
        ({"deviations": None}, "deviations: expected 5 finite numbers"),
        ({"members": {}}, "not an ensemble's checkpoint"),
        ({"collapsed": "2"}, "not an ensemble's checkpoint"),
        ({"task": {"name": "sop"}}, "the checkpoint of sop: expected veri"),
        ({"member": [1, 2]}, "member 3: expected a state dict"),
        ({"member": {"fc1.weight": torch.zeros(2, 2)}}, "member 3 is of another network"),
        ({"member": {key: value / 0 for key, value in Predictor().state_dict().items()}}, "member 3 holds weights"),
    ],
)
def test_a_file_that_is_no_ensemble_of_the_task_is_refused(trained, tmp_path, change, message):
    path = tmp_path / "veri_ensemble.pth"
    members = [*trained.members[:3], change.get("member", trained.members[3])]
    content = {"task": settings(SHORT), **trained._asdict(), "members": members}
    checkpoint.write(path, content | {key: value for key, value in change.items() if key != "member"})
    with pytest.raises(checkpoint.CheckpointError, match=message):
        ensemble.load(path, SHORT)


def test_the_other_recipes_checkpoint_is_refused(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match=r"not an ensemble's checkpoint: main\.py --recipe ensemble"):
        ensemble.load(ROOT / "results" / "veri_final.pth", SHORT)


def test_on_the_surrogate_it_beats_the_default_and_wider_means_wronger(generated):
    known = json.loads(generated[dataset.TRAIN_FILE])
    truth = json.loads(generated["truth.json"])
    architectures = [entry["arch"] for entry in truth.values()]
    place = [task.name for task in TASKS].index("veri")
    key = TASKS[place].rank_key
    encodings = dataset.encode([entry["arch"] for entry in known.values()])
    labels = np.array([entry[key] for entry in known.values()])
    true = np.array([entry[key] for entry in truth.values()])

    run = training.train(TASKS[place], encodings, labels)
    default = score([run.snapshots[run.index].state_dict], architectures)[0]
    (opinion,) = ensemble.opinions([ensemble.train(ENSEMBLE[place], encodings, labels)], architectures)
    combined = ensemble.combine(opinion)
    # The standard error of tau on so many architectures is below 0.001.
    assert kendalltau(combined, true).statistic > kendalltau(default, true).statistic + 0.002

    error = abs(ranks(combined) - true)
    quarters = np.array_split(error[np.argsort(ensemble.uncertainty(opinion))], 4)
    assert [part.mean() for part in quarters] == sorted(part.mean() for part in quarters)
    assert quarters[3].mean() > 1.5 * quarters[0].mean()
