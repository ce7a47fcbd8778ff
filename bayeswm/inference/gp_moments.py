"""Moments of an RBF Gaussian process whose input is uncertain, in closed form (Deisenroth & Rasmussen 2011)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.inference.gp_exact import ExactPosterior
from bayeswm.inference.gp_moment_pairs import Matched, Pairs, backward, forward
from bayeswm.inference.gp_rbf import as_rbf
from bayeswm.inference.gp_sparse import SparsePosterior


class InputMoments(NamedTuple):
    """Moments of the function at a Gaussian input, over the input and over functions.

    Attributes
    ----------
    mean : Tensor, shape (*batch, S)
        Of the values.
    gain : Tensor, shape (*batch, D, S)
        The input's covariance times this is the covariance of input and values; defined for a known input too.
    covariance : Tensor, shape (*batch, S, S)
        Of the posterior mean's values: what comes from not knowing the input.
    variance : Tensor, shape (*batch, S)
        Posterior variance, averaged over the input: what comes from not knowing the function.
    """

    mean: Tensor
    gain: Tensor
    covariance: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class RBFMoments:
    r"""Moments of independent Gaussian processes with RBF kernels at Gaussian inputs.

    With :math:`q_i = E\,k(x, x_i)` and :math:`Q_{ij} = E\,k_a(x, x_i)\,k_b(x, x_j)`, means are
    :math:`\alpha' q`, covariances :math:`\alpha_a'(Q - q_a q_b')\alpha_b`, and the mean posterior variance is
    :math:`k(0) - \mathrm{tr}(C Q)`, C being the inverse of the data's covariance, or what stands for it in a sparse
    process (Deisenroth, Fox & Rasmussen 2015, section 4.2). :math:`Q_{ij}` is computed as :math:`q_i q_j e^{\delta}`,
    where :math:`\delta` vanishes with the input's covariance, which may be singular or zero. The gradient is written
    by hand: it needs sums over pairs of points that cost little beside the exponentials. It cannot be differentiated
    again.

    All that depends on the data alone is computed once, when the object is built.

    Attributes
    ----------
    centers : Tensor, shape (S, n, D)
        Where the kernels of the mean sit.
    precision : Tensor, shape (S, D)
        Inverse squares of the length scales; 0 where an input does not matter.
    log_signal : Tensor, shape (S,)
        Logarithms of the prior variances.
    alpha : Tensor, shape (S, n)
        Weights of the kernels in the mean.
    reduction : Tensor, shape (S, n, n)
        C.
    pairs : Pairs
        Pairs of outputs.
    posterior : ExactPosterior or SparsePosterior
        Whose moments they are.
    scale : Tensor, shape (S,)
        By what its values are multiplied.

    Examples
    --------
    Where the input is known, the posterior itself:

    >>> from bayeswm.inference import RBF, Hyper
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> known = ExactPosterior(RBF(), one.view(1, 1), one.view(1, 1), Hyper(one.view(1, 1), 0.1 * one))
    >>> moments = RBFMoments.of(known)
    >>> at = moments(2 * one, 0 * one.view(1, 1))
    >>> mean, variance = known.function(2 * one.view(1, 1))
    >>> bool((at.mean - mean[:, 0]).abs() < 1e-12), bool((at.variance - variance[:, 0]).abs() < 1e-12)
    (True, True)
    """

    centers: Tensor
    precision: Tensor
    log_signal: Tensor
    alpha: Tensor
    reduction: Tensor
    pairs: Pairs = field(repr=False)
    posterior: ExactPosterior | SparsePosterior = field(repr=False)
    scale: Tensor = field(repr=False)

    @classmethod
    def of(cls, posterior: ExactPosterior | SparsePosterior) -> Self | None:
        """Return the moments of a posterior, or None where its kernel is not an RBF, scaled or not."""
        found = [as_rbf(posterior.kernel, v, posterior.centers.shape[-1]) for v in posterior.hyper.values]
        kernels = [f for f in found if f is not None]
        if len(kernels) < len(found):
            return None
        precision = torch.stack([k.precision for k in kernels])
        log_signal = torch.stack([k.variance for k in kernels]).log()
        with torch.no_grad():
            parts = (posterior.centers, precision, log_signal, posterior.alpha, posterior.reduction)
            return cls(*parts, Pairs.of(precision), posterior, torch.ones_like(log_signal))

    def in_units(self, *, mean: Tensor, scale: Tensor, output_scale: Tensor) -> RBFMoments:
        """Return the same for inputs and values before they were standardised.

        Parameters
        ----------
        mean, scale : Tensor, shape (D,)
            What was taken off the inputs, and by what they were divided.
        output_scale : Tensor, shape (S,)
            By what the values were divided.
        """
        precision = self.precision / scale.square()
        # C is of the covariance in units of the outputs, and both sides of it have the scale
        return RBFMoments(
            self.centers * scale + mean,
            precision,
            self.log_signal + 2 * output_scale.log(),
            self.alpha / output_scale[:, None],
            self.reduction / output_scale.square()[:, None, None],
            Pairs.of(precision),
            self.posterior,
            self.scale * output_scale,
        )

    def explained(self, q: Tensor) -> Tensor:
        """Return q' C q, shape (B, S), for q of shape (B, S, n), to more digits than C has."""
        cross = (q / self.scale.square()[:, None]).permute(1, 2, 0).contiguous()
        found = [self.posterior.explained_(k, output=s) for s, k in enumerate(cross)]
        return torch.stack(found, -1) * self.scale.square()

    def __call__(self, mean: Tensor, covariance: Tensor) -> InputMoments:
        """Return the moments at inputs N(mean, covariance).

        Parameters
        ----------
        mean : Tensor, shape (*batch, D)
            In float64.
        covariance : Tensor, shape (*batch, D, D)
            Symmetric, of any rank.

        Returns
        -------
        InputMoments
        """
        batch, inputs = mean.shape[:-1], mean.shape[-1]
        flat = mean.reshape(-1, inputs), covariance.reshape(-1, inputs, inputs)
        if torch.is_grad_enabled() and (mean.requires_grad or covariance.requires_grad):
            found = Matched(*_Match.apply(self, *flat))
        else:
            found = forward(self, *flat, keep=False)[0]
        return InputMoments(*(v.view(*batch, *v.shape[1:]) for v in found))


class _Match(torch.autograd.Function):
    """The closed form with its gradient."""

    @staticmethod
    def forward(ctx, moments: RBFMoments, mean: Tensor, covariance: Tensor):  # noqa: PLR0917
        found, ctx.kept = forward(moments, mean, covariance, keep=True)
        ctx.moments = moments
        return tuple(found)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        if torch.is_grad_enabled():
            raise SpecError(
                "expected a first derivative of moments in closed form, got create_graph=True for a second one; "
                "take differences of the first"
            )
        return None, *backward(ctx.moments, ctx.kept, Matched(*gradients))
