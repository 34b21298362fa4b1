"""The authors' method (default): one MLP per task, scored with the snapshot that the authors selected.

Fitted part of a checkpoint:

    index           the snapshot that scores
    train_loss, train_ktau   one number an epoch; Kendall's tau with dropout on
    validate_ktau   [(epoch, tau)], means over shuffled batches
    whole_ktau      tau of the scoring snapshot on the whole validation split
    snapshots       {index: {"epoch", "ktau", "state_dict"}}, ascending by validation tau: -1 is the best
    validated       number of architectures that validate, if fewer than FEW; absent otherwise
    by_autograd     True where the step of recipes/step.py differs from network.py; absent otherwise
"""

import contextlib
import dataclasses
import itertools
import math

import torch

import network
from common.files import InputError
from common.metrics import kendall_tau
from dataset import encode
from network import Predictor, merge_networks, network_scores, pairwise_ranking_loss
from recipes import step
from recipes.base import Model, TooFewError
from recipes.base import Recipe as Base
from recipes.step import AutogradStep, TrainingStep, is_written_out, split
from tasks import Task, find_task

FEW = 25  # architectures that validate, below which their taus say little


class Batches:
    """Shuffled batches of one split, in memory allocated once; an incomplete last batch is dropped."""

    def __init__(self, inputs, labels, batch_size):
        self.inputs, self.labels = inputs, labels
        self.count = len(inputs) // batch_size
        self.batches = inputs.new_empty(self.count, batch_size, *inputs.shape[1:])
        self.pair_signs = inputs.new_empty(self.count, batch_size, batch_size)  # [.., i, j] = sign(label_i - label_j)
        self.scores = inputs.new_empty(self.count, batch_size, 1)

    def shuffle(self, sampler_generator):
        """Shuffle for the next pass as a data loader does: draw a base seed from the global generator, then permute."""
        torch.empty((), dtype=torch.int64).random_()
        permutation = torch.randperm(len(self.inputs), generator=sampler_generator)
        permutation = permutation[: self.count * self.batches.shape[1]].to(self.inputs.device)
        torch.index_select(self.inputs, 0, permutation, out=self.batches.flatten(0, 1))
        self.shuffled_labels = self.labels[permutation].view(self.count, -1)
        torch.sub(self.shuffled_labels[:, :, None], self.shuffled_labels[:, None, :], out=self.pair_signs).sign_()

    def tau(self):
        """Mean over the batches of Kendall's tau of the last scores."""
        return kendall_tau(self.scores.squeeze(2), self.shuffled_labels, self.pair_signs).mean().item()


class Trainer:
    """Train one predictor from its seed, an epoch at a time.

    encodings: (n, rows, columns) float32; ranks: n integers; n_train: size of the training split, which comes first.
    Seeds torch's global generator. Use it inside `torch.inference_mode()`.
    """

    def __init__(self, task, encodings, ranks, n_train, device="cpu"):
        # Do not reorder: after both seeds, the authors' code draws two 2 x 3 normals that it prints, the initial
        # weights, then for every pass a base seed, a permutation and (training) dropout masks.
        torch.manual_seed(task.seed)
        self.sampler_generator = torch.Generator().manual_seed(task.seed)
        torch.randn(2, 3), torch.randn(2, 3)
        self.task, self.epochs, self.lr = task, 0, task.lr
        self.predictor = Predictor(*encodings.shape[1:], task.dropout_ratio).to(device)
        self.buffers = {name: buffer.cpu() for name, buffer in self.predictor.named_buffers()}
        labels, encodings = torch.as_tensor(ranks, dtype=torch.float32, device=device), encodings.to(device)
        first = encodings[: task.batch_size], labels[: task.batch_size]
        self.by_autograd = not is_written_out(self.predictor, *first, task.dropout_ratio)
        if self.by_autograd:
            self.step = AutogradStep(self.predictor, task.weight_decay)
        else:
            self.step = TrainingStep(self.predictor, task.batch_size, task.weight_decay)
        inputs = self.step.inputs(encodings)
        self.training = Batches(inputs[:n_train], labels[:n_train], task.batch_size)
        self.validation = Batches(inputs[n_train:], labels[n_train:], task.batch_size)
        # Dropout masks of an epoch, drawn batch by batch and layer by layer.
        masks = [torch.empty_like(hidden) for _ in range(self.training.count) for hidden in self.step.hidden[1:]]
        self.dropout = torch.cat([inputs.new_empty(0), *(mask.flatten() for mask in masks)])
        self.masks = split(self.dropout.fill_(1), masks)

    def epoch(self):
        """Train for an epoch."""
        task, training, layers = self.task, self.training, len(self.step.hidden[1:])
        training.shuffle(self.sampler_generator)
        if task.dropout_ratio:
            for mask in self.masks:
                mask.bernoulli_(1 - task.dropout_ratio)
            self.dropout.div_(1 - task.dropout_ratio)
        rows = zip(training.batches, training.shuffled_labels, training.pair_signs, training.scores, strict=True)
        for i, batch in enumerate(rows):
            self.step(*batch, self.masks[i * layers : (i + 1) * layers], self.lr)
        self.epochs += 1
        if task.cos:  # as CosineAnnealingLR, which goes from each rate to the next
            before, now = (math.pi * epochs / task.num_epochs for epochs in (self.epochs - 1, self.epochs))
            self.lr *= (1 + math.cos(now)) / (1 + math.cos(before))

    def loss(self):
        """Mean loss over the batches of the last epoch."""
        losses = pairwise_ranking_loss(self.training.scores.squeeze(2), self.training.shuffled_labels)
        return losses.mean(dtype=torch.float64).item()

    def validate(self):
        """Score the validation split; returns the mean of its batches' Kendall's tau."""
        self.validation.shuffle(self.sampler_generator)
        for batch, scores in zip(self.validation.batches, self.validation.scores, strict=True):
            self.step.forward(batch, scores)
        return self.validation.tau()

    def state_dict(self, flat):
        """State dict of the predictor with the parameters `flat`, laid out as step.parameters."""
        names, parameters = zip(*self.predictor.named_parameters(), strict=True)
        return self.buffers | dict(zip(names, split(flat.cpu(), parameters), strict=True))


def tau_sort_key(tau):
    """Sort key of a tau: NaN, the tau of a constant predictor, is below every number."""
    return -math.inf if math.isnan(tau) else tau


def best_validation(validate_ktau):
    """(tau, epoch) of the best validation, the latest of equal ones. validate_ktau: (epoch, tau) pairs."""
    return max(((tau, epoch) for epoch, tau in validate_ktau), key=lambda pair: (tau_sort_key(pair[0]), pair[1]))


def check_size(task, n):
    """Raise TooFewError where a split of n architectures is smaller than a batch."""
    n_train, n_validation = task.split_sizes(n)
    if min(n_train, n_validation) < task.batch_size:
        fewest = int((task.batch_size - 1) / min(task.train_ratio, 1 - task.train_ratio)) - 2
        needed = next(m for m in itertools.count(max(n, fewest)) if min(task.split_sizes(m)) >= task.batch_size)
        raise TooFewError(
            f"{task.name}: {n} architectures are too few for batches of {task.batch_size}: {n_train} train and "
            f"{n_validation} validate; the recipe needs {needed}",
            needed,
            min(n_train, n_validation),
        )


@torch.inference_mode()
def train(task, encodings, ranks, device="cpu", report=None):
    """Train one predictor: the fitted part of a checkpoint, with the task.keep snapshots that are best on validation.

    encodings: (n, rows, columns) float32 tensor; ranks: n integers; report: called as report(epoch, loss, train tau,
    validation tau or None). A loss that is not finite ends it early. Seeds torch's global generator. Raises TooFewError
    where a split is smaller than a batch, InputError where it ends before the first validation.
    """
    check_size(task, len(ranks))
    n, (n_train, _) = len(ranks), task.split_sizes(len(ranks))
    trainer = Trainer(task, encodings, ranks, n_train, device)
    losses, train_taus, validation_taus, kept, stopped = [], [], [], {}, None
    for epoch in range(1, task.num_epochs + 1):
        trainer.epoch()
        losses.append(trainer.loss())
        train_taus.append(trainer.training.tau())
        finite, tau = math.isfinite(losses[-1]), None
        if finite and (epoch == 1 or epoch % task.val_interval == 0):
            tau = trainer.validate()
            validation_taus.append((epoch, tau))
            _keep(kept, tau, epoch, trainer.step.parameters, task.keep)
        if report:
            report(epoch, losses[-1], train_taus[-1], tau if n - n_train >= FEW else None)
        if not finite:
            stopped = f"stopped: the loss is {losses[-1]} in epoch {epoch}: lower lr"
            break
    if not kept:
        raise InputError(f"{stopped}; nothing was saved")
    best = [kept[key] for key in sorted(kept)]
    snapshots = [{"epoch": epoch, "ktau": tau, "state_dict": trainer.state_dict(flat)} for epoch, tau, flat in best]
    index = _place(task, len(validation_taus), len(snapshots))
    return {
        "index": index,
        "train_loss": losses,
        "train_ktau": train_taus,
        "validate_ktau": validation_taus,
        "stopped": stopped and f"{stopped}; the snapshots before it were saved",
        "snapshots": dict(enumerate(snapshots, -len(snapshots))),
        "whole_ktau": _whole_tau(snapshots[index]["state_dict"], encodings[n_train:], ranks[n_train:]),
        **({"by_autograd": True} if trainer.by_autograd else {}),
        **({"validated": n - n_train} if n - n_train < FEW else {}),
    }


def _place(task, validations, kept):
    """Place of the snapshot that ranks: the task's, where it was chosen for as many validations; else the best."""
    authors = find_task(task.name)
    chosen = task.snapshot != authors.snapshot or validations == authors.validations()
    return max(task.snapshot, -kept) if chosen else -1


def _keep(kept, tau, epoch, parameters, count):
    """Keep a copy of the `count` parameter vectors with the best taus: the later of equal taus; NaN is the lowest."""
    key = tau_sort_key(tau)
    if key in kept or len(kept) < count or key > min(kept):
        kept[key] = (epoch, tau, parameters.clone())
        if len(kept) > count:
            del kept[min(kept)]


def _whole_tau(state_dict, encodings, ranks):
    """Kendall's tau on the whole validation split."""
    predictor = Predictor(*encodings.shape[1:]).eval()
    predictor.load_state_dict(state_dict)
    return kendall_tau(predictor(encodings)[None], torch.as_tensor(ranks)[None]).item()


class Recipe(Base):
    """Adam on the pairwise ranking loss; snapshots are kept by validation tau."""

    modules = (network, step)
    settings = tuple(field.name for field in dataclasses.fields(Task) if field.name != "name")

    def train_steps(self, task, n):
        check_size(task, n)
        return task.num_epochs, task.split_sizes(n)[0] // task.batch_size

    def fit(self, task, encodings, ranks, device="cpu", report=None):
        return train(task, encodings, ranks, device, report)

    def model(self, checkpoint, index=None):
        """The network, merged (network.merge_networks) where that gives its scores, else as a function."""
        state_dict = checkpoint["snapshots"][checkpoint["index"] if index is None else index]["state_dict"]
        network = Predictor(*self.space.shape).eval()
        network.load_state_dict(state_dict)
        network.requires_grad_(False)
        encodings = encode(self.space, self.space.some(32))
        expected, merged = network(encodings), None
        with contextlib.suppress(RuntimeError, IndexError, ValueError):  # another number of layers
            x = encodings.flatten(1)[:, self.space.features]
            merged = network_scores(x, *merge_networks([state_dict], self.space))[0]
        if merged is None or not torch.allclose(merged, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()):
            return network
        return Model(self.space, None, (state_dict,), (1.0,))

    def snapshot_index(self, checkpoint, index=None):
        """A negative index counts from the best on validation (-1), others from the worst in the file (0)."""
        held = list(checkpoint["snapshots"])
        index = checkpoint["index"] if index is None else index
        if 0 <= index < len(held):
            index = held[index]
        if index not in held:
            why = f"it holds {len(held)}, {held[0]} to {held[-1]}"
            if len(held) == 1:
                why = f"it holds only {held[0]}, which ranks: train to keep more"
            raise InputError(f"no snapshot {index}: {why}")
        return index

    def convert(self, checkpoint, task):
        """The reference's own files, {validation tau: state dict}, get the task's name and index."""
        if not (isinstance(checkpoint, dict) and checkpoint and all(isinstance(tau, float) for tau in checkpoint)):
            return checkpoint
        held = [{"ktau": float(tau), "state_dict": checkpoint[tau]} for tau in sorted(checkpoint, key=tau_sort_key)]
        return {"task": {"name": task.name}, "index": task.snapshot, "snapshots": dict(enumerate(held, -len(held)))}

    def summary(self, checkpoint):
        if "validated" in checkpoint:
            return {}
        best, epoch = best_validation(checkpoint["validate_ktau"])
        tau = checkpoint["snapshots"][checkpoint["index"]]["ktau"]
        figures = {"best tau": best, "epoch": epoch, "snapshot": checkpoint["index"], "tau": tau}
        return figures | {"whole split": checkpoint["whole_ktau"]}

    def describe(self, checkpoint, index=None):
        index = checkpoint["index"] if index is None else index
        tau = "" if "validated" in checkpoint else f"  validation tau {checkpoint['snapshots'][index]['ktau']:.4f}"
        return f"snapshot {index:>3}{tau}"

    def remark(self, checkpoint):
        validations, remarks, kept = checkpoint["validate_ktau"], [], checkpoint["snapshots"][checkpoint["index"]]
        collapsed, (best, _) = [epoch for epoch, tau in validations if math.isnan(tau)], best_validation(validations)
        if "validated" in checkpoint:
            few = f"only {checkpoint['validated']} architectures validate, too few for a tau"
            return f"{few}: the recipes gp and ridge need none"
        if checkpoint["index"] == -1 != checkpoint["task"].get("snapshot", -1):
            place = f"the authors' snapshot {checkpoint['task']['snapshot']} is of another number of validations"
            remarks.append(f"{place}: the best on validation ranks")
        if best - kept["ktau"] > 0.05:
            remarks.append(f"the snapshot that ranks has a tau of {kept['ktau']:.4f}, the best one {best:.4f}")
        if collapsed:
            remarks.append(
                f"at {len(collapsed)} of {len(validations)} validations, first after epoch {collapsed[0]}, the network "
                "gave all architectures of a batch one score, so tau is undefined (nan); that happens with these "
                f"settings; the snapshot of epoch {kept['epoch']} ranks, tau {kept['ktau']:.4f}"
            )
        if checkpoint.get("by_autograd"):
            remarks.append("trained by autograd: network.py has another network or loss than recipes/step.py")
        return "; ".join(remarks) or None
