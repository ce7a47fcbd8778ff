"""Many multilayer perceptrons at once: one flat parameter row a member, evaluation and gradients by hand.

Autograd over (members, rows, features) spends a third of its time on dispatch, fresh buffers and intermediate results.
Here all parameters of a member are one row of ``flat`` (members, P), so that the optimiser updates a single tensor, the
layers are views of it, and forward and backward run on reused buffers. There the features come first, with a last row
of ones: one product adds the bias going forward and gives its gradient going back.
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


def layers(flat: Tensor, sizes: Sizes) -> list[Tensor]:
    """Return views of flat (members, P), one a layer, each (members, in + 1, out); the last row is the bias."""
    views, at = [], 0
    for i, o in itertools.pairwise(sizes):
        views.append(flat[:, at : at + (i + 1) * o].unflatten(1, (i + 1, o)))
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
    if torch._C._are_functorch_transforms_active():  # vmap, jacrev and the like know ordinary operations only
        return plain(flat, x, sizes)
    if torch.is_grad_enabled() and (flat.requires_grad or x.requires_grad):
        return _Network.apply(flat, x, sizes)
    if x.device.type != "cpu":  # the loops below are for a processor's caches
        return plain(flat, x, sizes)
    by_onednn = x.dtype == torch.float32 and _prefers_onednn()
    if not by_onednn and x.shape[0] * x.shape[1] * max(sizes) <= _SMALL:
        return together(flat, x, sizes)
    out = x.new_empty(*x.shape[:2], sizes[-1])
    *hidden, last = layers(flat, sizes)
    rows = min(_ROWS, max(x.shape[1], 1))
    buffers = [x.new_ones(n + 1, rows) for n in sizes[:-1]]
    for member in range(len(flat)):
        # one member and a few rows at a time: activations stay in the cache from layer to layer, and memory is bounded
        for part, result in zip(x[member].split(rows), out[member].split(rows), strict=True):
            if by_onednn:  # rows first: where a slice of columns is the second factor it is a thousand times slower
                for weights in hidden:
                    part = torch.ops.aten.silu_(_affine(part, weights[member]))
                result.copy_(_affine(part, last[member]))
                continue
            values = [b[:, : len(part)] for b in buffers]
            values[0][:-1] = part.T
            for weights, value, following in zip(hidden, values, values[1:], strict=False):
                torch.ops.aten.silu_(torch.mm(weights[member].T, value, out=following[:-1]))
            torch.mm(values[-1].T, last[member], out=result)
    return out


def together(flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:
    """Return :func:`evaluate` by a few calls for all members, features first: the fastest while activations are small.

    The result is a transposed view of (members, out, rows), whose columns are contiguous.
    """
    *hidden, last = layers(flat, sizes)
    values = x.mT
    for weights in hidden:
        values = torch.ops.aten.silu_(torch.baddbmm(weights[:, -1:].mT, weights[:, :-1].mT, values))
    return torch.baddbmm(last[:, -1:].mT, last[:, :-1].mT, values).mT


def plain(flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:
    """Return :func:`evaluate` in ordinary operations: the reference, and the way to second derivatives."""
    *hidden, last = layers(flat, sizes)
    for weights in hidden:
        x = torch.nn.functional.silu(x @ weights[:, :-1] + weights[:, -1:])
    return x @ last[:, :-1] + last[:, -1:]


_ROWS = 1024
# activations of a layer, in numbers, that stay in a processor's second cache
_SMALL = 2**20


@functools.cache
def _prefers_onednn() -> bool:
    """Whether MKL, torch's default, is the slower library here: on AMD processors it has half of oneDNN's rate.

    A rule by maker instead of a measurement, so that results do not differ in the last bits from run to run.
    """
    return _by_amd() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def slow_tanh() -> bool:
    """Whether tanh takes much longer than a sigmoid: on AMD processors MKL's has no fast path."""
    return _by_amd()


def _by_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _affine(x: Tensor, weights: Tensor) -> Tensor:
    """Return x (m, k) @ weights[:-1] + weights[-1] by oneDNN, in full precision."""
    return torch.ops.mkldnn._linear_pointwise(x, weights[:-1].T, weights[-1], "none", [], "")


def _multiply_all(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Put a (members, m, k) @ b (members, k, n) into ``out``; both factors are dense."""
    if (
        a.dtype == torch.float32
        and a.device.type == "cpu"
        and min(*a.shape[1:], b.shape[2]) >= 64
        and _prefers_onednn()
    ):
        for one, other, result in zip(a, b, out, strict=True):
            result.copy_(torch.ops.mkldnn._linear_pointwise(one, other.T, None, "none", [], ""))
    else:
        torch.bmm(a, b, out=out)


class Workspace:
    """Buffers for one (members, rows), reused from step to step: fresh ones cost a fifth of a training step."""

    def __init__(self, flat: Tensor, sizes: Sizes, rows: int) -> None:
        members = len(flat)
        self.sizes = sizes
        self.used = False  # whether run_back has overwritten what run left
        self.gradient = torch.zeros_like(flat)
        self.inputs = [flat.new_ones(members, n + 1, rows) for n in sizes[:-1]]
        self.sums = [flat.new_empty(members, n, rows) for n in sizes[1:-1]]
        self.back = {n: flat.new_empty(members, n, rows) for n in set(sizes[1:-1])}
        self.out = flat.new_empty(members, rows, sizes[-1])


def run(flat: Tensor, x: Tensor, work: Workspace) -> Tensor:
    """Return outputs (members, rows, out), the buffer ``work.out``; ``work`` keeps what the gradient needs."""
    *hidden, last = layers(flat, work.sizes)
    work.inputs[0][:, :-1] = x.mT
    for n, weights in enumerate(hidden):
        _multiply_all(weights.mT, work.inputs[n], work.sums[n])
        torch.ops.aten.silu.out(work.sums[n], out=work.inputs[n + 1][:, :-1])
    _multiply_all(work.inputs[-1].mT, last, work.out)
    return work.out


def run_back(flat: Tensor, work: Workspace, x_gradient: Tensor | None = None) -> None:
    """Turn the gradient by the outputs, in ``work.out``, into that by flat, in ``work.gradient``.

    Overwrites ``work.sums``; ``x_gradient``, if given, receives the gradient by the inputs.
    """
    gradients, delta = layers(work.gradient, work.sizes), work.out.mT
    for n, weights in reversed(list(enumerate(layers(flat, work.sizes)))):
        _multiply_all(work.inputs[n], delta.mT, gradients[n])
        if n:
            back, sums = work.back[work.sizes[n]], work.sums[n - 1]
            _multiply_all(weights[:, :-1], delta, back)
            delta = torch.ops.aten.silu_backward.grad_input(back, sums, grad_input=sums)
        elif x_gradient is not None:
            _multiply_all(delta.mT, weights[:, :-1].mT, x_gradient)


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, x: Tensor, sizes: Sizes) -> Tensor:  # noqa: PLR0917 (autograd's own call)
        ctx.save_for_backward(flat, x)
        ctx.work = Workspace(flat, sizes, x.shape[1])
        return run(flat, x, ctx.work).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
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
        work.out.copy_(gradient)
        by_x = torch.empty_like(x, memory_format=torch.contiguous_format) if wanted[1] else None
        run_back(flat, work, by_x)
        return (work.gradient.clone() if wanted[0] else None, by_x, None)
