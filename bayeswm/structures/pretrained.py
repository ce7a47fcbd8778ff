"""A network that was trained elsewhere as a fast plain function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.structures.networks import slow_tanh

Activation = Callable[[Tensor], Tensor]

# the function, the same in place, and where it is 1
_ACTIVATIONS: dict[type[torch.nn.Module], tuple[Activation, Activation, float]] = {
    torch.nn.Tanh: (torch.tanh, torch.tanh_, 20.0),
    torch.nn.Sigmoid: (torch.sigmoid, torch.sigmoid_, 40.0),
    torch.nn.ReLU: (torch.relu, torch.relu_, 1.0),
    torch.nn.SiLU: (torch.nn.functional.silu, torch.ops.aten.silu_, 1.278464542761074),
}


def frozen_network(network: torch.nn.Sequential) -> Callable[[Tensor], Tensor]:
    """Return a function that computes what the network does now, for dynamics that were trained elsewhere.

    It takes about two thirds of the network's own time for the many rows and few units of a planner. Training the
    network later does not change it.

    Parameters
    ----------
    network : torch.nn.Sequential
        Linear layers with Tanh, SiLU, ReLU or Sigmoid in between, always the same.

    Returns
    -------
    callable
        Maps inputs (..., in) to outputs (..., out), differentiable in its input. The columns of the output, not its
        rows, are contiguous.

    Raises
    ------
    SpecError
        For other layers.

    Examples
    --------
    >>> from torch.nn import Linear, Sequential, Tanh
    >>> network = Sequential(Linear(3, 64), Tanh(), Linear(64, 64), Tanh(), Linear(64, 2))
    >>> f, x = frozen_network(network), torch.zeros(5, 3)
    >>> f(x).shape, bool((f(x) - network(x)).abs().max() < 1e-6)
    (torch.Size([5, 2]), True)
    """
    layers = list(network)
    linear = [v for v in layers[::2] if isinstance(v, torch.nn.Linear)]
    kinds = {type(v) for v in layers[1::2]}
    if 2 * len(linear) != len(layers) + 1 or len(kinds) > 1:
        raise SpecError(f"expected Linear layers with one kind of activation in between, got {network}")
    kind = kinds.pop() if kinds else torch.nn.Tanh
    if kind not in _ACTIVATIONS:
        names = ", ".join(v.__name__ for v in _ACTIVATIONS)
        raise SpecError(f"expected an activation among {names}, got {kind.__name__}")
    weights = [v.weight.detach().clone() for v in linear]
    biases = [
        w.new_zeros(len(w)) if v.bias is None else v.bias.detach().clone() for v, w in zip(linear, weights, strict=True)
    ]
    if kind is torch.nn.Tanh and slow_tanh():
        # tanh(x) = 2 sigmoid(2 x) - 1, the factors and the shift moved into the layers before and after
        kind = torch.nn.Sigmoid
        for i in range(len(weights) - 1):
            weights[i], biases[i] = 2 * weights[i], 2 * biases[i]
            biases[i + 1] = biases[i + 1] - weights[i + 1].sum(1)
            weights[i + 1] = 2 * weights[i + 1]
    pure, in_place, one = _ACTIVATIONS[kind]
    # a unit that is always 1 carries the biases from layer to layer: adding them takes as long as half an activation
    bias = torch.cat((biases[0], biases[0].new_tensor([one])))[:, None]
    matrices = [torch.cat((weights[0], torch.zeros_like(weights[0][:1])))]
    for w, b in zip(weights[1:], biases[1:], strict=True):
        unit = torch.zeros_like(w[:1])
        matrices.append(torch.cat((torch.cat((w, b[:, None]), 1), torch.cat((unit, unit.new_tensor([[one]])), 1))))
    matrices[-1] = matrices[-1][:-1]
    if len(matrices) == 1:
        bias = bias[:-1]
    first, *others = matrices

    def evaluate(x: Tensor) -> Tensor:
        activate = pure if torch.is_grad_enabled() and x.requires_grad else in_place
        # features first: with few outputs, rows first take several times as long
        values = torch.mm(first, x.reshape(-1, first.shape[1]).T).add_(bias)
        for matrix in others:
            values = torch.mm(matrix, activate(values))
        return values.T.reshape(*x.shape[:-1], len(values))

    return evaluate
