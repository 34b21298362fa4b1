"""The predictor, an MLP on the encoded architecture, and the pairwise ranking loss that trains it."""

import numpy as np
import torch
from torch import nn


class PositionalEncoding(nn.Module):
    """Add a sinusoidal positional encoding (Vaswani et al., arXiv:1706.03762, section 3.5) to each row."""

    def __init__(self, rows, columns):
        super().__init__()
        column = np.arange(columns)
        position = np.arange(max(40, rows))  # 40 rows: the reference's
        angle = position[:, None] / np.power(10000, 2 * (column // 2) / columns)
        table = np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
        self.register_buffer("pos_table", torch.from_numpy(table)[None])  # (1, 40, 10) of the competition's space

    def forward(self, encodings):
        """(n, rows, columns) -> the same shape."""
        return encodings + self.pos_table[:, : encodings.shape[1]]


class Predictor(nn.Module):
    """MLP that scores encodings of (rows, columns); a lower score predicts a better architecture.

    On the competition's space, 37 x 10, it has 26,929 parameters.

    Module names and creation order are those of the published checkpoints; the order also fixes which random
    numbers initialise which layer.
    """

    def __init__(self, rows, columns, dropout_ratio=0.5):
        super().__init__()
        self.pos = PositionalEncoding(rows, columns)
        self.fc1 = nn.Linear(rows * columns, 64)  # no activation follows: the reference has none
        self.net = nn.Sequential(
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Dropout(dropout_ratio),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Dropout(dropout_ratio),
            nn.Linear(16, 32),
            nn.ReLU(),
            nn.Dropout(dropout_ratio),
        )
        self.fc2 = nn.Linear(32, 1)

    def linears(self):
        """The five linear layers, first to last."""
        return [self.fc1, self.net[0], self.net[3], self.net[6], self.fc2]

    def forward(self, encodings):
        """(n, rows, columns) float encodings -> (n,) scores."""
        return self.fc2(self.net(self.fc1(self.pos(encodings).flatten(1)))).squeeze(1)


# exp() overflows float32 at 88.7. Up to here log(1 + exp(x)) is computed as written, rounding included; above it, it
# equals x in float32 and its derivative equals 1.
LINEAR_ABOVE = 80.0


def pairwise_ranking_loss(scores, labels):
    """ReNAS ranking loss (arXiv:1910.01523): mean over i != j of log(1 + exp(-(o_i - o_j) sign(y_i - y_j))).

    scores, labels: (..., n), n >= 2. Returns (...): a loss >= 0 for each batch, log 2 where all scores are equal.
    """
    n = scores.shape[-1]
    signs = torch.sign(labels.unsqueeze(-1) - labels.unsqueeze(-2))  # (..., n, n)
    z = -(scores.unsqueeze(-1) - scores.unsqueeze(-2)) * signs
    losses = torch.log(1 + torch.exp(z.clamp(max=LINEAR_ABOVE))) + (z - LINEAR_ABOVE).clamp(min=0)
    same = torch.eye(n, dtype=torch.bool, device=scores.device)
    return losses.masked_fill(same, 0).sum((-2, -1)) / (n * (n - 1))


def merge_networks(state_dicts, space, device="cpu", dtype=torch.float32):
    """Stack k state dicts of Predictor in eval mode as four layers on the features of a space.Space.

    The first two linear layers have no nonlinearity between them: they are merged, in float64, into one map, which
    takes in the positional encoding and the bias as well. Returns (weights, biases): weights (k, in, out) of four
    layers, biases (k, 1, out) of the last three.
    """
    predictors = []
    for state_dict in state_dicts:
        predictors.append(Predictor(*space.shape))
        predictors[-1].load_state_dict(state_dict)
    weights, biases = [], []
    for layer in zip(*(predictor.double().linears() for predictor in predictors), strict=True):
        weights.append(torch.stack([linear.weight.t() for linear in layer]))  # (k, in, out)
        biases.append(torch.stack([linear.bias[None] for linear in layer]))  # (k, 1, out)
    nothing = torch.zeros(1, *space.shape)
    position = torch.stack([predictor.pos(nothing).flatten(1) for predictor in predictors]).double()
    bias = (position @ weights[0] + biases[0]) @ weights[1] + biases[1]
    merged = (weights[0] @ weights[1])[:, space.features]
    merged[:, : space.counts[0]] += bias  # one choice of the first decision is made: adding to all of them is a bias
    return [w.to(device, dtype) for w in (merged, *weights[2:])], [b.to(device, dtype) for b in biases[2:]]


def network_scores(x, weights, biases):
    """Scores of n architectures with features x (n, features) by the k networks of merge_networks: (k, n)."""
    hidden = torch.bmm(x.expand(len(weights[0]), -1, -1), weights[0]).relu_()
    for weight, bias in zip(weights[1:-1], biases[:-1], strict=True):
        hidden = torch.baddbmm(bias, hidden, weight).relu_()
    # Transposed: a product with one row is faster than one with one column.
    return torch.baddbmm(biases[-1], weights[-1].transpose(1, 2), hidden.transpose(1, 2)).squeeze(1)
