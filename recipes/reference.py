"""The reference's method, the default: an MLP per task, and the snapshot at the index that the authors chose.

Fitted part of a checkpoint:

    index           the snapshot that scores
    train_loss, train_ktau   one number an epoch; the tau with dropout on
    validate_ktau   [(epoch, tau)], means over shuffled batches
    whole_ktau      tau of the scoring snapshot on the whole validation split
    snapshots       {index: {"epoch", "ktau", "state_dict"}}, ascending by validation tau: -1 is the best
"""

import dataclasses
import math

import torch

import checkpoint
import scoring
from dataset import FEATURES
from files import InputError
from metrics import best_validation, kendall_tau, nan_below
from network import Predictor
from recipes.base import Recipe as Base
from tasks import Task
from training import train, train_size


class Recipe(Base):
    """Adam on the pairwise ranking loss; snapshots are kept by validation tau."""

    settings = tuple(field.name for field in dataclasses.fields(Task) if field.name != "name")

    def train_steps(self, task, n):
        return task.num_epochs, train_size(task, n) // task.batch_size

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        run = train(task, encodings, ranks, device, report)
        if not run.snapshots:
            raise InputError(f"stopped: {run.stopped}; nothing was saved")
        return fitted(run) | {"whole_ktau": _whole_ktau(run, encodings, ranks)}

    def model(self, content, index=None):
        state_dict = content["snapshots"][content["index"] if index is None else index]["state_dict"]
        return scoring.Model(torch.zeros(len(FEATURES), len(FEATURES), dtype=torch.float64), (state_dict,), (1.0,))

    def snapshot_index(self, path, content, index=None):
        """A negative index counts from the best on validation (-1), others from the worst in the file (0)."""
        held = list(content["snapshots"])
        index = content["index"] if index is None else index
        if 0 <= index < len(held):
            index = held[index]
        if index not in held:
            why = f"it holds {len(held)}, {held[0]} to {held[-1]}"
            if len(held) == 1:
                why = f"it holds only {held[0]}, the one that scores: train to keep more"
            raise checkpoint.CheckpointError(f"{path}: no snapshot {index}: {why}")
        checkpoint.check_weights(path, f"snapshot {index}", content["snapshots"][index]["state_dict"])
        return index

    def convert(self, content, task):
        """The reference's own files, {validation tau: state dict}, get the task's name and index."""
        if not (isinstance(content, dict) and content and all(isinstance(ktau, float) for ktau in content)):
            return content
        held = [{"ktau": float(ktau), "state_dict": content[ktau]} for ktau in sorted(content, key=nan_below)]
        return {"task": {"name": task.name}, "index": task.snapshot, "snapshots": dict(enumerate(held, -len(held)))}

    def check(self, path, content):
        curve, snapshots = content.get("validate_ktau"), content.get("snapshots")
        valid = (
            type(content.get("index")) is int
            and isinstance(snapshots, dict)
            and bool(snapshots)
            and all(
                type(index) is int
                and isinstance(snapshot, dict)
                and isinstance(snapshot.get("ktau"), float)
                and isinstance(snapshot.get("state_dict"), dict)
                and all(map(checkpoint.is_plain, snapshot["state_dict"].values()))
                for index, snapshot in snapshots.items()
            )
            and ("data" not in content or _is_curve(curve))
        )
        if not valid:
            raise checkpoint.CheckpointError(
                f"{path}: not a checkpoint: expected main.py's, or validation taus with state dicts"
            )

    def summary(self, content):
        best, epoch = best_validation(content["validate_ktau"])
        scoring_snapshot = content["snapshots"][content["index"]]
        figures = {"best tau": best, "epoch": epoch, "snapshot": content["index"], "tau": scoring_snapshot["ktau"]}
        return figures | {"whole split": content.get("whole_ktau", math.nan)}

    def describe(self, content, index=None):
        index = content["index"] if index is None else index
        return f"snapshot {index:>3}  validation tau {content['snapshots'][index]['ktau']:.4f}"

    def remark(self, content):
        collapsed = [epoch for epoch, ktau in content["validate_ktau"] if math.isnan(ktau)]
        if not collapsed:
            return None
        kept = content["snapshots"][content["index"]]
        return (
            f"tau is undefined (nan) at {len(collapsed)} of {len(content['validate_ktau'])} validations, first after "
            f"epoch {collapsed[0]}: one score for all architectures of a batch, which happens with the "
            f"reference's settings; scoring uses epoch {kept['epoch']}, tau {kept['ktau']:.4f}"
        )


def fitted(run):
    """Fitted part of a checkpoint from a training.Run, without whole_ktau."""
    return {
        "index": run.index,
        "train_loss": run.train_loss,
        "train_ktau": run.train_ktau,
        "validate_ktau": run.validate_ktau,
        "stopped": run.stopped and f"stopped: {run.stopped}; the snapshots before it were saved",
        "snapshots": dict(enumerate((snapshot._asdict() for snapshot in run.snapshots), -len(run.snapshots))),
    }


def _is_curve(curve):
    return (
        isinstance(curve, list)
        and bool(curve)
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and type(pair[0]) is int and isinstance(pair[1], float)
            for pair in curve
        )
    )


def _whole_ktau(run, encodings, ranks):
    """Kendall's tau of the scoring snapshot on the whole validation split."""
    predictor = Predictor().eval()
    predictor.load_state_dict(run.snapshots[run.index].state_dict)
    n_train = train_size(run.task, len(ranks))
    with torch.inference_mode():
        return kendall_tau(predictor(encodings[n_train:])[None], torch.as_tensor(ranks[n_train:])[None]).item()
