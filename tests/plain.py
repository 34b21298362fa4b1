"""The method in plain PyTorch, as a tutorial would write it: data loaders, autograd, scipy.

The yardstick: tests compare the fast code with it number by number.
"""

import numpy as np
import torch
from scipy.stats import kendalltau
from torch.utils.data import DataLoader, SubsetRandomSampler

from network import Predictor


def pair_loss(scores, labels):
    """The ReNAS ranking loss with whole matrices, its diagonal taken off at the end; may overflow."""
    n = len(scores)
    scores, labels = scores[:, None].repeat(1, n), labels[:, None].repeat(1, n)
    losses = torch.log(1 + torch.exp(-(scores - scores.t()) * torch.sign(labels - labels.t())))
    return torch.sum(losses - losses * torch.eye(n)) / (n * (n - 1))


def train(task, dataset, num_epochs, workers=0):
    """Train on a dataset.ArchPerfDataset for the first `num_epochs` epochs of `task`.

    Returns (predictor, losses, train taus, [(epoch, validation tau)]).
    """
    torch.manual_seed(task.seed)
    orders = torch.Generator().manual_seed(task.seed)
    torch.randn(2, 3), torch.randn(2, 3)
    predictor = Predictor(*dataset.encodings.shape[1:], task.dropout_ratio)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=task.lr, weight_decay=task.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=task.num_epochs)
    trained = int(task.train_ratio * len(dataset))
    training, validation = (
        DataLoader(
            dataset, task.batch_size, sampler=SubsetRandomSampler(part, orders), num_workers=workers, drop_last=True
        )
        for part in (range(trained), range(trained, len(dataset)))
    )
    losses, train_taus, validation_taus = [], [], []
    for epoch in range(1, num_epochs + 1):
        predictor.train()
        batch_losses, taus = [], []
        for encodings, labels in training:
            scores = predictor(encodings)
            loss = pair_loss(scores, labels.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            batch_losses.append(loss.item())
            taus.append(kendalltau(scores.detach().numpy(), labels.numpy()).statistic)
        if task.cos:
            scheduler.step()
        losses.append(np.mean(batch_losses))
        train_taus.append(np.mean(taus))
        if epoch == 1 or epoch % task.val_interval == 0:
            predictor.eval()
            with torch.no_grad():
                taus = [kendalltau(predictor(x).numpy(), labels.numpy()).statistic for x, labels in validation]
            validation_taus.append((epoch, np.mean(taus)))
    return predictor, losses, train_taus, validation_taus
