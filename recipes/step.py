"""The reference's optimiser step on one batch: with its gradient written out, or by autograd."""

import copy

import torch

from network import LINEAR_ABOVE, pairwise_ranking_loss

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
        self.pos = predictor.pos
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

    def inputs(self, encodings):
        """What the steps take as x: (n, rows, columns) encodings -> (n, inputs), with positions added."""
        return self.pos(encodings).flatten(1)

    def forward(self, x, scores, masks=None):
        """x: (n, inputs); writes the (n, 1) scores. masks: the D above, None for no dropout."""
        hidden = torch.addmm(self.biases[0], x, self.transposed[0], out=self.hidden[0])
        for i in (1, 2, 3):
            hidden = torch.addmm(self.biases[i], hidden, self.transposed[i], out=self.hidden[i]).relu_()
            if masks is not None:
                hidden.mul_(masks[i - 1])
        torch.addmm(self.biases[4], hidden, self.transposed[4], out=scores)

    def __call__(self, x, labels, signs, scores, masks, lr):
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


class AutogradStep:
    """The same step by autograd and torch.optim.Adam: several times as slow, for any network and loss in network.py."""

    hidden = ()  # no masks are drawn for it: the network has its own dropout

    def __init__(self, predictor, weight_decay):
        with torch.inference_mode(False):
            self.predictor = copy.deepcopy(predictor)
            self.optimizer = torch.optim.Adam(self.predictor.parameters(), weight_decay=weight_decay)

    @property
    def parameters(self):
        """All parameters, flat."""
        return torch.cat([parameter.detach().flatten() for parameter in self.predictor.parameters()])

    def inputs(self, encodings):
        """What the steps take as x."""
        return encodings

    def forward(self, x, scores, masks=None):
        """As TrainingStep.forward, without dropout."""
        scores[:, 0] = self.predictor.eval()(x)

    def __call__(self, x, labels, signs, scores, masks, lr):
        """As TrainingStep."""
        with torch.inference_mode(False), torch.enable_grad():
            found = self.predictor.train()(x.clone())
            self.optimizer.param_groups[0]["lr"] = lr
            self.optimizer.zero_grad()
            pairwise_ranking_loss(found, labels.clone()).backward()
            self.optimizer.step()
        scores[:, 0] = found.detach()


def is_written_out(predictor, encodings, labels, dropout_ratio):
    """Whether TrainingStep has the scores and the gradient of the network and the loss in network.py, on this batch.

    encodings: (n, rows, columns); labels: (n,). The generators draw nothing.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        network, x, labels = copy.deepcopy(predictor).cpu().train(), encodings.cpu().clone(), labels.cpu().clone()
        before = torch.get_rng_state()
        expected = network(x)
        pairwise_ranking_loss(expected, labels).backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    if len(list(network.parameters())) != 10:  # another number of layers
        return False
    try:
        step, scores = TrainingStep(copy.deepcopy(network), len(x), weight_decay=0), torch.empty(len(x), 1)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(before)
            keep = 1 - dropout_ratio
            masks = [torch.empty_like(hidden).bernoulli_(keep).div_(keep) for hidden in step.hidden[1:]]
        step(step.inputs(x), labels, torch.sign(labels[:, None] - labels), scores, masks, lr=0.0)
    except RuntimeError:  # layers that do not follow each other
        return False
    pairs = (scores[:, 0], expected.detach()), (step.gradient, gradient)
    return all(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item()) for ours, theirs in pairs)
