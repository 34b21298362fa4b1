"""The recommended recipe: four predictors and a Gaussian process a task, averaged.

Where the reference trusts one snapshot and its tau on 50 to 150 architectures, here nothing is chosen by validation:
all architectures train, and four predictors that differ in their seed, each at its last epoch, are averaged with a
Gaussian process on the same choices. tools/crossval.py measures what that is worth.
"""

import json
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy
import torch

import checkpoint
from dataset import USED
from metrics import ranks
from network import one_thread
from scoring import evaluate, networks
from tasks import MEMBERS, SettingError, settings
from training import Trainer

ATTEMPTS = 10  # trainings a member at most
# A member whose scores of the architectures it was trained on have a smaller standard deviation has collapsed: the loss
# hardly tells its scores apart, though their order may look right. Measured on 220 trainings: on cplfw 28 of 60 ended
# below 0.04, most below 0.0001; all others, on every task, above 0.13.
FLAT = 0.1


class Ensemble(NamedTuple):
    """What scores one task."""

    matrix: torch.Tensor  # (87, 87), the Gaussian process's
    members: list  # state dicts of Predictor
    means: torch.Tensor  # (1 + members,): of each one's scores on the training architectures, the process first
    deviations: torch.Tensor  # (1 + members,): their standard deviations
    collapsed: int  # how many trainings were given up


def check_size(task, n):
    """Return n, how many architectures train; raises SettingError where they do not fill a batch."""
    if n < task.batch_size:
        raise SettingError(
            f"{task.name}: {n} architectures are fewer than a batch of {task.batch_size}: change --batch_size"
        )
    return n


def process_scores(matrices, x):
    """What k matrices of gaussian_process.fit make of n USED encodings (n, 87): the posterior means, up to a constant.

    Returns (k, n), a row a matrix.
    """
    products = (x @ torch.cat(matrices, 1)).view(len(x), len(matrices), -1)
    return products.mul_(x[:, None]).sum(2).t()


@one_thread()
def train(task, encodings, labels, device="cpu", on_epoch=None):
    """Train the ensemble of a task, of tasks.ENSEMBLE.

    encodings: (n, 37, 10) float32 tensor; labels: n ranks; on_epoch: called as on_epoch(epoch, loss, train tau, None),
    epochs counted over the members, once more from its first for a member that is trained again. Returns an Ensemble; a
    member that collapses or diverges ATTEMPTS times is left out. Seeds torch's global generator. Raises SettingError
    where the architectures are fewer than a batch or all ranks the same.
    """
    import gaussian_process  # only here: scoring need not wait for scipy's optimiser

    check_size(task, len(labels))
    if len(set(labels)) == 1:
        raise SettingError(f"all {len(labels)} architectures have the same rank: there is no order to learn")
    x = encodings.flatten(1)[:, USED].double()
    matrix = gaussian_process.fit(x, labels)
    fitted = list(process_scores([matrix], x))
    members, collapsed = [], 0
    for member in range(MEMBERS):
        for attempt in range(ATTEMPTS):
            seeded = replace(task, seed=task.seed + member + 1000 * attempt)
            state_dict, scores = _train_member(seeded, encodings, labels, device, on_epoch, member * task.num_epochs)
            if scores.std() > FLAT:
                members.append(state_dict)
                fitted.append(scores)
                break
            collapsed += 1
    fitted = torch.stack(fitted)
    return Ensemble(matrix, members, fitted.mean(1), fitted.std(1), collapsed)


@torch.inference_mode()
def _train_member(task, encodings, labels, device, on_epoch, before):
    """The state dict of a trained predictor, and its scores of what it was trained on: (n,) float64."""
    trainer = Trainer(task, encodings, labels, len(labels), device)
    for epoch in range(1, task.num_epochs + 1):
        trainer.epoch()
        loss = trainer.loss()
        if on_epoch:
            on_epoch(before + epoch, loss, trainer.training.ktau(), None)
        if not math.isfinite(loss):
            break
    scores = trainer.predictor.eval()(encodings.to(device)).cpu().double()
    return trainer.state_dict(trainer.step.parameters), scores


@one_thread()
@torch.inference_mode()
def opinions(ensembles, architectures, device="cpu"):
    """What the Gaussian process and each member think of n architecture strings.

    Returns for every ensemble (1 + members, n) float32, the process first: their scores in standard deviations from
    their mean on the training architectures. Raises DataError for a string outside the search space.
    """
    members = [member for ensemble in ensembles for member in ensemble.members]
    matrices = [ensemble.matrix.float().to(device) for ensemble in ensembles]
    scores_of = networks(members, device) if members else lambda x: x.new_empty(0, len(x))

    def both(x):
        return torch.cat([process_scores(matrices, x), scores_of(x)])

    scores = evaluate(both, len(matrices) + len(members), architectures, device)
    processes, *members = scores.split([len(matrices)] + [len(ensemble.members) for ensemble in ensembles])
    return [
        torch.cat([process[None], rows]).sub_(ensemble.means[:, None]).div_(ensemble.deviations[:, None])
        for ensemble, process, rows in zip(ensembles, processes, members, strict=True)
    ]


def combine(opinion):
    """(1 + members, n), one of `opinions` -> (n,) scores: half the Gaussian process, half the members' mean."""
    return (opinion[0] + opinion[1:].mean(0)) / 2 if len(opinion) > 1 else opinion[0]


def uncertainty(opinion):
    """(1 + members, n), one of `opinions` -> (n,) float64: the standard deviation of each architecture's rank."""
    return np.std([ranks(row) for row in opinion], axis=0)


def versions():
    """The versions that an ensemble's last bits depend on."""
    return checkpoint.versions() | {"scipy": scipy.__version__}


def save(path, task, ensemble, data_fingerprint):
    """Write the ensemble of `task`; raises OSError."""
    about = {"task": settings(task), "data": data_fingerprint, "versions": versions(), "stopped": None}
    checkpoint.write(path, about | ensemble._asdict())


def load(path, task):
    """The content of the ensemble's checkpoint of `task`, a dictionary. Raises CheckpointError, OSError."""
    content = checkpoint.read(path, task)
    lists = checkpoint.is_named(content) and isinstance(content.get("members"), list)
    if not (lists and isinstance(content.get("collapsed"), int)):
        raise checkpoint.CheckpointError(f"{path}: not an ensemble's checkpoint: main.py --recipe ensemble writes one")
    checkpoint.check_name(path, content, task)
    size = len(content["members"]) + 1
    for name, shape in (("matrix", (len(USED), len(USED))), ("means", (size,)), ("deviations", (size,))):
        value = content.get(name)
        if not (checkpoint.is_array(value, torch.float64) and value.shape == shape and value.isfinite().all()):
            raise checkpoint.CheckpointError(f"{path}: {name}: expected {' x '.join(map(str, shape))} finite numbers")
    if not (content["deviations"] > 0).all():
        raise checkpoint.CheckpointError(f"{path}: deviations: expected numbers above 0")
    for i, member in enumerate(content["members"]):
        if not checkpoint.is_state_dict(member):
            raise checkpoint.CheckpointError(f"{path}: member {i}: expected a state dict")
        checkpoint.check_weights(path, f"member {i}", member)
    return content


def pick(content):
    """The Ensemble in a checkpoint's content."""
    return Ensemble(*(content[name] for name in Ensemble._fields))


def write_uncertainty(path, content, tasks, opinions):
    """Write {key: {"arch": string, "<task>_rank_std": number, ...}}, each `uncertainty` in ranks; raises OSError.

    content: the test file's, as dataset.load_test returns it; opinions: one for each of `tasks`.
    """
    entries = {key: {"arch": entry["arch"]} for key, entry in content.items()}
    for task, opinion in zip(tasks, opinions, strict=True):
        for entry, deviation in zip(entries.values(), uncertainty(opinion).round(1).tolist(), strict=True):
            entry[f"{task.rank_key}_std"] = deviation
    checkpoint.write_whole(path, json.dumps(entries).encode())
