"""Many multilayer perceptrons at once: one flat parameter row a member, evaluation and gradients by hand.

Autograd over (members, rows, features) spends a third of its time on dispatch, fresh buffers and intermediate results.
Here all parameters of a member are one row of ``flat`` (members, P), so that the optimiser updates a single tensor, the
layers are views of it, and forward and backward run on reused buffers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[int, ...]


def parameter_count(sizes: Sizes) -> int:
    """Return the number of weights and biases of one member with these layer sizes."""
    return sum((i + 1) * o for i, o in itertools.pairwise(sizes))


def layers(flat: Tensor, sizes: Sizes) -> list[tuple[Tensor, Tensor]]:
    """Return views [(weights (members, in, out), biases (members, 1, out)), ...] of flat (members, P)."""
    views, at = [], 0
    for i, o in itertools.pairwise(sizes):
        views.append((flat[:, at : at + i * o].unflatten(1, (i, o)), flat[:, None, at + i * o : at + (i + 1) * o]))
        at += (i + 1) * o
    return views


def evaluate(flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:
    """Return the networks' outputs, differentiable in both arguments.

    Parameters
    ----------
    flat : Tensor, shape (members, P)
        Parameters.
    x : Tensor, shape (members, rows, in)
        Inputs of each member.
    sizes : tuple of int
        Units of each layer, inputs and outputs included; SiLU in between.

    Returns
    -------
    Tensor, shape (members, rows, out)

    Examples
    --------
    >>> evaluate(torch.zeros(3, parameter_count((2, 8, 1))), torch.ones(3, 5, 2), (2, 8, 1)).shape
    torch.Size([3, 5, 1])
    """
    if torch.is_grad_enabled() and (flat.requires_grad or x.requires_grad):
        return _Network.apply(flat, x, sizes)  # pyright: ignore[reportReturnType]
    out = x.new_empty(*x.shape[:2], sizes[-1])
    views, width = layers(flat, sizes), max(sizes)
    rows = min(_ROWS, max(x.shape[1], 1))
    buffers = (x.new_empty(rows * width), x.new_empty(rows * width))
    for member in range(len(flat)):
        # one member and a few rows at a time: activations stay in the cache from layer to layer, and memory is bounded
        for part, result in zip(x[member].split(rows), out[member].split(rows), strict=True):
            value = part
            for n, (weights, bias) in enumerate(views):
                last = n + 1 == len(views)
                place = result if last else buffers[n % 2][: len(part) * weights.shape[2]].view(len(part), -1)
                value = _multiply(value, weights[member], place).add_(bias[member])
                if not last:
                    torch.ops.aten.silu_(value)
    return out


def plain(flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:
    """Return :func:`evaluate` in ordinary operations: the reference, and the way to second derivatives."""
    *hidden, (last, last_bias) = layers(flat, sizes)
    for weights, bias in hidden:
        x = torch.nn.functional.silu(x @ weights + bias)
    return x @ last + last_bias


_ROWS = 2048


@functools.cache
def _prefers_onednn() -> bool:
    """Whether MKL, torch's default, is the slower library here: on AMD processors it runs at about half of oneDNN's rate.

    A rule by maker instead of a measurement, so that results do not differ in the last bits from run to run.
    """
    try:
        maker = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in maker and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Return a (m, k) @ b (k, n) in ``out``, in full precision."""
    if a.dtype == torch.float32 and a.device.type == "cpu" and min(*a.shape, b.shape[1]) >= 16 and _prefers_onednn():
        return out.copy_(torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], ""))
    return torch.mm(a, b, out=out)


def _multiply_all(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Put a (members, m, k) @ b (members, k, n) into ``out``."""
    if a.device.type == "cpu" and min(*a.shape[1:], b.shape[2]) >= 64 and _prefers_onednn():
        for parts in zip(a, b, out, strict=True):
            _multiply(*parts)
    else:
        torch.bmm(a, b, out=out)


class Workspace:
    """Buffers for one (members, rows), reused from step to step: fresh ones cost a fifth of a training step."""

    def __init__(self, flat: Tensor, sizes: Sizes, rows: int) -> None:
        members = len(flat)
        self.sizes = sizes
        self.used = False  # whether run_back has overwritten the sums
        self.gradient = torch.zeros_like(flat)
        self.inputs = [flat.new_empty(members, rows, n) for n in sizes[:-1]]
        self.sums = [flat.new_empty(members, rows, n) for n in sizes[1:]]
        self.back = {n: flat.new_empty(members, rows, n) for n in set(sizes[1:-1])}


def run(flat: Tensor, x: Tensor, work: Workspace) -> Tensor:
    """Return outputs (members, rows, out), a buffer of ``work``, which keeps what the gradient needs."""
    work.inputs[0].copy_(x)
    for n, (weights, bias) in enumerate(layers(flat, work.sizes)):
        _multiply_all(work.inputs[n], weights, work.sums[n])
        work.sums[n].add_(bias)
        if n + 1 < len(work.inputs):
            torch.ops.aten.silu.out(work.sums[n], out=work.inputs[n + 1])
    return work.sums[-1]


def run_back(flat: Tensor, work: Workspace, x_gradient: Tensor | None = None) -> None:
    """Turn the gradient by the outputs, in ``work.sums[-1]``, into that by flat, in ``work.gradient``.

    Overwrites all of ``work.sums``; ``x_gradient``, if given, receives the gradient by the inputs.
    """
    gradients = layers(work.gradient, work.sizes)
    for n, (weights, _) in reversed(list(enumerate(layers(flat, work.sizes)))):
        delta, (by_weights, by_bias) = work.sums[n], gradients[n]
        _multiply_all(work.inputs[n].mT, delta, by_weights)
        torch.sum(delta, 1, keepdim=True, out=by_bias)
        if n:
            back = work.back[work.sizes[n]]
            _multiply_all(delta, weights.mT, back)
            torch.ops.aten.silu_backward.grad_input(back, work.sums[n - 1], grad_input=work.sums[n - 1])
        elif x_gradient is not None:
            _multiply_all(delta, weights.mT, x_gradient)


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(flat, x)
        ctx.work = Workspace(flat, sizes, x.shape[1])
        return run(flat, x, ctx.work).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        flat, x = ctx.saved_tensors
        wanted: Sequence[bool] = ctx.needs_input_grad[:2]
        sizes = ctx.work.sizes
        if torch.is_grad_enabled():  # a second derivative is wanted
            which = [t for t, w in zip((flat, x), wanted, strict=True) if w]
            found = iter(torch.autograd.grad(plain(flat, x, sizes), which, gradient, create_graph=True))
            return (*(next(found) if w else None for w in wanted), None)
        work = ctx.work
        if work.used:
            run(flat, x, work)
        work.used = True
        work.sums[-1].copy_(gradient)
        by_x = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[1] else None
        run_back(flat, work, by_x)
        return (work.gradient.clone() if wanted[0] else None, by_x, None)
