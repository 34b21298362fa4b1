"""The predictor, an MLP on the encoded architecture, and the pairwise ranking loss that trains it."""

import numpy as np
import torch
from torch import nn

from space import LENGTH, WIDTH


class PositionalEncoding(nn.Module):
    """Add a sinusoidal positional encoding (Vaswani et al., arXiv:1706.03762, section 3.5) to each row."""

    def __init__(self):
        super().__init__()
        column = np.arange(WIDTH)
        angle = np.arange(40)[:, None] / np.power(10000, 2 * (column // 2) / WIDTH)  # 40 rows: the reference's
        table = np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
        self.register_buffer("pos_table", torch.from_numpy(table)[None])  # (1, 40, 10)

    def forward(self, encodings):
        """(n, rows, width) -> the same shape."""
        return encodings + self.pos_table[:, : encodings.shape[1]]


class Predictor(nn.Module):
    """MLP with 26,929 parameters that scores architectures; a lower score predicts a better architecture.

    Module names and creation order are those of the published checkpoints; the order also fixes which random
    numbers initialise which layer.
    """

    def __init__(self, dropout_ratio=0.5):
        super().__init__()
        self.pos = PositionalEncoding()
        self.fc1 = nn.Linear(LENGTH * WIDTH, 64)  # no activation follows: the reference has none
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
        """(n, 37, 10) float encodings -> (n,) scores."""
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
