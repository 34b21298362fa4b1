"""Train one predictor: the optimiser step with its gradient written out, and the loop around it."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from metrics import kendall_tau, nan_below
from network import LINEAR_ABOVE, Predictor, one_thread, pairwise_ranking_loss
from tasks import SettingError, Task

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's, arXiv:1412.6980


class TrainingStep:
    """Adam step on a batch of fixed size: forward, loss gradient, backward and update, written out.

    Each line runs the kernel that autograd or torch.optim.Adam would run, in the same order, so the weights are equal
    to the last bit; without their bookkeeping a step takes a sixth of the time. The parameters, their gradients and
    Adam's moments lie in one flat buffer each; the predictor's parameters become views of the first.

    With W, b the parameters of the five linear layers, D a layer's scaled dropout mask, o = h4 the n scores:

        forward    h0 = W0 x + b0;   hi = relu(Wi h(i-1) + bi) * Di, i = 1, 2, 3;   h4 = W4 h3 + b4
        loss       L = 1/(n(n-1)) sum_ij log(1 + exp(z_ij)),   z_ij = -(o_i - o_j) sign(y_i - y_j)
        scores     dL/do_i = -2/(n(n-1)) sum_j e_ij / (1 + e_ij) sign(y_i - y_j),   e = exp(z)    (z is symmetric)
        backward   dL/dWi = gi' h(i-1),  dL/dbi = sum gi,  g(i-1) = (gi Wi) * D(i-1) * [h(i-1) > 0];   g4 = dL/do
    """

    def __init__(self, predictor, batch_size, weight_decay):
        parameters = list(predictor.parameters())
        self.weight_decay, self.steps = weight_decay, 0
        like, n = parameters[0].detach(), batch_size
        self.parameters = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient, self.moment1, self.moment2, self.scratch = (torch.zeros_like(self.parameters) for _ in range(4))
        views = split(self.parameters, parameters)
        for parameter, view in zip(parameters, views, strict=True):
            parameter.data = view
        parts = split(self.gradient, parameters)
        self.weights, self.biases = views[0::2], views[1::2]
        self.transposed = [weight.t() for weight in self.weights]
        self.weight_gradients, self.bias_gradients = parts[0::2], parts[1::2]
        widths = [len(bias) for bias in self.biases]
        self.hidden = [like.new_empty(n, width) for width in widths[:-1]]
        self.gradients = [like.new_empty(n, width) for width in widths]  # the g of the docstring
        self.transposed_gradients = [g.t() for g in self.gradients]
        self.exponential, self.fraction = like.new_empty(n, n), like.new_empty(n, n)
        self.unit = like.new_ones(()) / (n * (n - 1)) * -2

    def forward(self, x, scores, masks=None):
        """x: (n, 370), with positions added; writes the (n, 1) scores. masks: the D above, None for no dropout."""
        hidden = torch.addmm(self.biases[0], x, self.transposed[0], out=self.hidden[0])
        for i in (1, 2, 3):
            hidden = torch.addmm(self.biases[i], hidden, self.transposed[i], out=self.hidden[i]).relu_()
            if masks is not None:
                hidden.mul_(masks[i - 1])
        torch.addmm(self.biases[4], hidden, self.transposed[4], out=scores)

    def __call__(self, x, signs, scores, masks, lr):
        """Take one step. signs: (n, n), sign(y_i - y_j); the other arguments as in forward, which writes `scores`."""
        self.forward(x, scores, masks)
        gradients, hidden = self.gradients, self.hidden
        e = torch.sub(scores.t(), scores, out=self.exponential).mul_(signs).clamp_(max=LINEAR_ABOVE).exp_()
        fraction = torch.div(self.unit, torch.add(e, 1, out=self.fraction), out=self.fraction).mul_(e).mul_(signs)
        torch.sum(fraction, 1, keepdim=True, out=gradients[4])
        for i in (4, 3, 2, 1, 0):
            below = hidden[i - 1] if i else x
            torch.mm(self.transposed_gradients[i], below, out=self.weight_gradients[i])
            torch.sum(gradients[i], 0, out=self.bias_gradients[i])
            if i:
                torch.mm(gradients[i], self.weights[i], out=gradients[i - 1])
            if i > 1:
                masked = gradients[i - 1].mul_(masks[i - 2])
                torch.ops.aten.threshold_backward.grad_input(masked, below, 0, grad_input=masked)
        self._adam(lr)

    def _adam(self, lr):
        self.steps += 1
        gradient = self.gradient.add_(self.parameters, alpha=self.weight_decay)
        self.moment1.lerp_(gradient, 1 - BETA1)
        self.moment2.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = torch.sqrt(self.moment2, out=self.scratch).div_((1 - BETA2**self.steps) ** 0.5).add_(EPSILON)
        self.parameters.addcdiv_(self.moment1, root, value=-lr / (1 - BETA1**self.steps))


def split(flat, tensors):
    """Split the vector `flat` into consecutive views with the shapes of `tensors`."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def bernoulli_is_uniform(device):
    """True where bernoulli_(p) draws the same random numbers as uniform_() < p: not on a GPU, and not with MKL.

    Where it is true, Trainer draws the dropout masks of a whole epoch by one uniform_(), in half the time.
    """
    generator = torch.Generator(device)
    drawn = torch.empty(1000, device=device).bernoulli_(0.5, generator=generator.manual_seed(0))
    uniform = torch.empty(1000, dtype=torch.float64, device=device).uniform_(generator=generator.manual_seed(0))
    return torch.equal(drawn, (uniform < 0.5).float())


class Batches:
    """Shuffled batches of one split, in memory allocated once; an incomplete last batch is dropped."""

    def __init__(self, inputs, labels, batch_size):
        self.inputs, self.labels = inputs, labels
        self.count = len(inputs) // batch_size
        self.batches = inputs.new_empty(self.count, batch_size, inputs.shape[1])
        self.pair_signs = inputs.new_empty(self.count, batch_size, batch_size)  # [.., i, j] = sign(label_i - label_j)
        self.scores = inputs.new_empty(self.count, batch_size, 1)

    def shuffle(self, sampler_generator):
        """Shuffle for the next pass as a data loader does: draw a base seed from the global generator, then permute."""
        torch.empty((), dtype=torch.int64).random_()
        permutation = torch.randperm(len(self.inputs), generator=sampler_generator)
        permutation = permutation[: self.count * self.batches.shape[1]].to(self.inputs.device)
        torch.index_select(self.inputs, 0, permutation, out=self.batches.view(len(permutation), -1))
        self.shuffled_labels = self.labels[permutation].view(self.count, -1)
        torch.sub(self.shuffled_labels[:, :, None], self.shuffled_labels[:, None, :], out=self.pair_signs).sign_()

    def ktau(self):
        """Mean over the batches of Kendall's tau of the last scores."""
        return kendall_tau(self.scores.squeeze(2), self.shuffled_labels, self.pair_signs).mean().item()


class Snapshot(NamedTuple):
    """Weights of a predictor after `epoch`, with its tau on the validation split."""

    epoch: int
    ktau: float
    state_dict: dict


@dataclass
class Run:
    """Result of training one predictor: curves, and snapshots in ascending order of validation tau, NaN first."""

    task: Task
    train_loss: list = field(default_factory=list)  # one an epoch
    train_ktau: list = field(default_factory=list)  # one an epoch
    validate_ktau: list = field(default_factory=list)  # (epoch, tau) pairs
    snapshots: list = field(default_factory=list)
    stopped: str | None = None  # why training ended early

    @property
    def index(self):
        """Index of the snapshot that scores: the task's, or the nearest one that was kept."""
        return max(self.task.snapshot, -len(self.snapshots))


def train_size(task, n):
    """Size of the training split of n architectures; raises SettingError where a split is smaller than a batch."""
    n_train = int(task.train_ratio * n)
    for split_name, size in (("training", n_train), ("validation", n - n_train)):
        if size < task.batch_size:
            raise SettingError(
                f"{task.name}: the {split_name} split has {size} of the {n} architectures, fewer than a batch of "
                f"{task.batch_size}: change --train_ratio or --batch_size"
            )
    return n_train


class Trainer:
    """Train one predictor from its seed, an epoch at a time.

    encodings: (n, 37, 10) float32; ranks: n integers; n_train: size of the training split, which comes first.
    Seeds torch's global generator. Use it inside `one_thread()` and `torch.inference_mode()`.
    """

    def __init__(self, task, encodings, ranks, n_train, device="cpu"):
        # A run is comparable number by number only while the generators are used in this order: seeds, twice six
        # normals (the reference prints them), the weights; then for each pass its base seed and permutation, and in
        # training the dropout.
        torch.manual_seed(task.seed)
        self.sampler_generator = torch.Generator().manual_seed(task.seed)
        torch.randn(2, 3), torch.randn(2, 3)
        self.task, self.epochs, self.lr = task, 0, task.lr
        self.predictor = Predictor(task.dropout_ratio).to(device)
        self.step = TrainingStep(self.predictor, task.batch_size, task.weight_decay)
        inputs = self.predictor.pos(encodings.to(device)).flatten(1)
        labels = torch.as_tensor(ranks, dtype=inputs.dtype, device=device)
        self.training = Batches(inputs[:n_train], labels[:n_train], task.batch_size)
        self.validation = Batches(inputs[n_train:], labels[n_train:], task.batch_size)
        # Dropout masks of an epoch, drawn batch by batch and layer by layer.
        layers = [torch.empty_like(hidden) for _ in range(self.training.count) for hidden in self.step.hidden[1:]]
        self.dropout = torch.cat([layer.flatten() for layer in layers])
        self.masks = split(self.dropout.fill_(1), layers)
        self.uniform = torch.empty_like(self.dropout, dtype=torch.float64) if bernoulli_is_uniform(device) else None

    def epoch(self):
        """Train for an epoch."""
        task, training, layers = self.task, self.training, len(self.step.hidden) - 1
        training.shuffle(self.sampler_generator)
        if task.dropout_ratio:
            if self.uniform is None:
                for mask in self.masks:
                    mask.bernoulli_(1 - task.dropout_ratio)
            else:
                torch.lt(self.uniform.uniform_(), 1 - task.dropout_ratio, out=self.dropout)
            self.dropout.div_(1 - task.dropout_ratio)
        masks = (self.masks[i : i + layers] for i in range(0, len(self.masks), layers))
        for batch, *rest in zip(training.batches, training.pair_signs, training.scores, masks, strict=True):
            self.step(batch, *rest, self.lr)
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
        return self.validation.ktau()

    def state_dict(self, flat):
        """State dict of the predictor with the parameters `flat`, laid out as step.parameters."""
        names, parameters = zip(*self.predictor.named_parameters(), strict=True)
        tensors = dict(zip(names, split(flat.cpu(), parameters), strict=True))
        return {"pos.pos_table": self.predictor.pos.pos_table.cpu(), **tensors}


@one_thread()
@torch.inference_mode()
def train(task, encodings, ranks, device="cpu", report=None):
    """Train one predictor.

    encodings: (n, 37, 10) float32 tensor; ranks: n integers; report: called as report(epoch, loss, train tau,
    validation tau or None). Returns a Run with the task.keep snapshots that are best on validation; a loss that is not
    finite ends it early. Seeds torch's global generator. Raises SettingError where a split is smaller than a batch.
    """
    trainer = Trainer(task, encodings, ranks, train_size(task, len(ranks)), device)
    run, kept = Run(task), {}
    for epoch in range(1, task.num_epochs + 1):
        trainer.epoch()
        run.train_loss.append(trainer.loss())
        run.train_ktau.append(trainer.training.ktau())
        finite, ktau = math.isfinite(run.train_loss[-1]), None
        if finite and (epoch == 1 or epoch % task.val_interval == 0):
            ktau = trainer.validate()
            run.validate_ktau.append((epoch, ktau))
            _keep(kept, ktau, epoch, trainer.step.parameters, task.keep)
        if report:
            report(epoch, run.train_loss[-1], run.train_ktau[-1], ktau)
        if not finite:
            run.stopped = f"the loss is {run.train_loss[-1]} in epoch {epoch}: lower --lr"
            break
    for key in sorted(kept):
        epoch, ktau, flat = kept[key]
        run.snapshots.append(Snapshot(epoch, ktau, trainer.state_dict(flat)))
    return run


def _keep(kept, ktau, epoch, parameters, count):
    """Keep a copy of the `count` parameter vectors with the best taus: the later of equal taus; NaN is the lowest."""
    key = nan_below(ktau)
    if key in kept or len(kept) < count or key > min(kept):
        kept[key] = (epoch, ktau, parameters.clone())
        if len(kept) > count:
            del kept[min(kept)]
