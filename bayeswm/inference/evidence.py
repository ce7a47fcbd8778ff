"""Scales of priors and of noise that make the data most probable, by Laplace's approximation."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.curvature import Curvature, Fisher, fixed_log_prior, layer_positions, network_law
from bayeswm.inference.derivatives import prior_precision, slopes
from bayeswm.inference.joint import Joint
from bayeswm.inference.maximum import Maximum, maximise

# rounds of choosing scales and finding weights anew, and the change of a log scale at which they end
_ROUNDS, _SETTLED = 100, 1e-6
# furthest that a prior's log scale goes
_FURTHEST = math.log(1e3)


class Chosen(NamedTuple):
    """A joint density with the chosen scales, its maximum given them (D,), and the evidence."""

    joint: Joint
    x: Tensor
    log_evidence: float
    prior_scale: dict[str, float]
    evaluations: int


def choose_scales(joint: Joint, x: Tensor, curvature: Curvature, *, scale: Tensor) -> Chosen:
    """Maximise the evidence over a factor on the prior scale of each network and over the noise of each column.

    MacKay (1992), with Gauss-Newton curvature: rounds of choosing scales at fixed weights and curvature, and of finding
    weights and curvature anew (Immer et al. 2021). The evidence integrates over what the curvature calls uncertain,
    the noise excepted, whose law counts in the choice but not in the evidence.

    Parameters
    ----------
    joint : Joint
        With a Gaussian likelihood; where noise is to be chosen, it is the same for all rows.
    x : Tensor, shape (D,)
        Where to begin.
    curvature : Curvature
        Its Gauss-Newton form is used.
    scale : Tensor, shape (D,)
        Rough size of each coordinate.

    Raises
    ------
    SpecError
        If there is nothing to choose, or noise that is to be chosen changes from row to row.
    FitError
        If the evidence is not finite.

    Warns
    -----
    FitWarning
        If 100 rounds do not settle the scales.
    """
    problem = _Problem(joint, curvature)
    scales, evaluations, change = problem.start(x), 0, math.inf
    for _ in range(_ROUNDS):
        new = _ascend(problem, x, scales)
        change, scales = float((new - scales).abs().max()), new
        found = problem.find(problem.place(x, scales), scales, scale=scale)
        x, evaluations = found.x, evaluations + found.evaluations
        if change < _SETTLED:
            found.warn()
            break
    else:
        warnings.warn(
            f"scales of prior and noise still change by {change:.1g} of themselves after {_ROUNDS} rounds",
            FitWarning,
            stacklevel=3,
        )
    value, _ = problem.evidence(x, problem.gather(x), scales)
    factors = dict(zip(joint.layers, scales.exp().tolist(), strict=False))
    return Chosen(problem.scaled(scales), x, float(value), factors, evaluations)


class _Data(NamedTuple):
    """What scales are weighed against, at fixed weights.

    Attributes
    ----------
    log_likelihood : Tensor
        Of all rows.
    square : Tensor, shape (S,)
        Squared residuals of each column.
    noise : Tensor, shape (S,)
        Standard deviations, as they are before any is chosen.
    fisher : Fisher
        Curvature of the log likelihood: by column where noise is chosen.
    prior : Tensor, shape (u,) or (u, u)
        Curvature of the log prior.
    log_prior : Tensor
        Log density of the uncertain weights before their scale is chosen.
    """

    log_likelihood: Tensor
    square: Tensor
    noise: Tensor
    fisher: Fisher
    prior: Tensor
    log_prior: Tensor


class _Problem:
    """Scales are a vector: the log factor of each network's prior, then the coordinate of each column's noise."""

    def __init__(self, joint: Joint, curvature: Curvature) -> None:
        if joint.predict is None or joint.target is None:
            raise SpecError("expected a Gaussian likelihood, whose scales can be chosen by the evidence, got another")
        self.joint, self.curvature, self.predict, self.target = joint, curvature, joint.predict, joint.target
        slices = joint.flat.slices
        self.columns = {name: column for name, (column, _) in joint.noise.items() if name in joint.laws}
        if not self.columns and not joint.layers:
            raise SpecError("expected a network's prior or a law of noise to choose a scale of, got neither")
        self.sites = Unconstrained({k: joint.laws[k] for k in self.columns}) if self.columns else None
        # places in the flat vector: of noise, of all else, and of what else is uncertain
        self.noise = torch.tensor([slices[k].start for k in self.columns], dtype=torch.long)
        other = torch.ones(joint.flat.size, dtype=torch.bool).index_fill(0, self.noise, False)
        self.weights = other.nonzero()[:, 0]
        uncertain = curvature.uncertain(joint)
        self.index = uncertain[other[uncertain]]
        # of each network, places of its uncertain weights in ``index``
        self.networks: list[Tensor] = []
        for layers in layer_positions(joint).values():
            own = torch.cat([p for p, _ in layers])
            self.networks.append(torch.isin(self.index, own).nonzero()[:, 0])

    def start(self, x: Tensor) -> Tensor:
        return torch.cat((x.new_zeros(len(self.networks)), x[self.noise]))

    def place(self, x: Tensor, scales: Tensor) -> Tensor:
        """Return x with the noise of these scales."""
        return x.index_copy(0, self.noise, scales[len(self.networks) :])

    def factor(self, scales: Tensor) -> Tensor:
        """Return what the prior scale of each uncertain coordinate is multiplied by, shape (u,)."""
        factor = torch.ones(len(self.index), dtype=torch.float64)
        for where, log_factor in zip(self.networks, scales, strict=False):
            factor = factor.index_copy(0, where, log_factor.exp().expand(len(where)))
        return factor

    def scaled(self, scales: Tensor) -> Joint:
        """Return the joint density with these prior scales."""
        factor = torch.ones(self.joint.flat.size, dtype=torch.float64).index_copy(0, self.index, self.factor(scales))
        laws = dict(self.joint.laws)
        for name in self.joint.layers:
            law, shape = network_law(self.joint, name), laws[name].batch_shape + laws[name].event_shape
            wide = law.scale * factor[self.joint.flat.slices[name]]
            laws[name] = Normal(law.loc.view(shape), wide.view(shape))
        made = copy.copy(self.joint)
        made.flat = Unconstrained(laws)
        return made

    def find(self, x: Tensor, scales: Tensor, *, scale: Tensor) -> Maximum:
        """Return x with the best weights at these scales."""
        joint = self.scaled(scales)

        def log_density(w: Tensor) -> Tensor:
            return joint.log_density(x.expand(len(w), -1).index_copy(1, self.weights, w))

        found = maximise(log_density, x[self.weights][None], scale=scale[self.weights])
        return found._replace(x=x.index_copy(0, self.weights, found.x))

    def gather(self, x: Tensor) -> _Data:
        joint, index = self.joint, self.index
        values, log_det = joint.flat.constrain(x[None])
        mean, noise = (v[0] for v in self.predict(values, None))
        if self.columns:
            if bool((noise - noise[0]).abs().max() > 1e-12 * noise.abs().max()):
                raise SpecError("expected noise that is the same in all rows: leave out empirical_bayes, or use HMC")
            fisher = self.curvature.fisher(joint, index, mean.shape[1])
            for s in slopes(joint, x, index):
                fisher.add(s.mean[:, :, None])
        else:
            fisher = self.curvature.information(joint, x, index)
        everything = torch.cat((index, self.noise))
        log_prior = (joint.flat.log_prior(values) + log_det)[0]
        log_prior = log_prior - fixed_log_prior(joint, x, everything) - self.noise_law(x[self.noise])[1]
        square = (self.target - mean).square().sum(0)
        prior = prior_precision(joint, x, index)
        return _Data(joint.log_likelihood(values, None).sum(), square, noise[0], fisher, prior, log_prior)

    def noise_law(self, raw: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the noise at its coordinates, and its log density there."""
        if self.sites is None:
            return {}, raw.new_zeros(())
        values, log_det = self.sites.constrain(raw)
        return values, self.sites.log_prior(values) + log_det

    def evidence(self, x: Tensor, data: _Data, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log evidence, and the log density of the noise before data."""
        values, law = self.noise_law(scales[len(self.networks) :])
        factor, likelihood, weight = self.factor(scales), data.log_likelihood, torch.ones(1, dtype=torch.float64)
        if self.columns:
            columns = list(data.noise)
            for name, column in self.columns.items():
                columns[column] = values[name].reshape(()) + self.joint.noise[name][1]
            noise = torch.stack(columns)
            weight = noise**-2
            # how the sum of normal log densities differs from that with the noise as it was
            change = self.joint.terms * (noise / data.noise).log() + 0.5 * data.square * (weight - data.noise**-2)
            likelihood = likelihood - change.sum()
        log_prior = data.log_prior
        for name, where in zip(self.joint.layers, self.networks, strict=True):
            at, known = self.index[where] - self.joint.flat.slices[name].start, network_law(self.joint, name)
            square = ((x[self.index[where]] - known.loc[at]) / known.scale[at]).square()
            log_prior = log_prior - 0.5 * (square * (factor[where] ** -2 - 1)).sum() - factor[where].log().sum()
        prior = data.prior * factor**-2 if data.prior.ndim == 1 else data.prior / (factor[:, None] * factor)
        log_det = data.fisher.precision(weight, prior).log_det
        integral = 0.5 * (len(self.index) * math.log(2 * math.pi) - log_det)
        return likelihood + log_prior + integral, law


def _ascend(problem: _Problem, x: Tensor, scales: Tensor) -> Tensor:
    from scipy.optimize import minimize

    data = problem.gather(x)

    def negative(at: Any) -> tuple[float, Any]:
        with torch.enable_grad():
            here = torch.tensor(at, dtype=torch.float64).requires_grad_()
            value = torch.stack(problem.evidence(x, data, here)).sum()
            (gradient,) = torch.autograd.grad(value, here)
        if not (value.isfinite() and bool(gradient.isfinite().all())):
            raise FitError("expected a finite evidence, got NaN or infinity; look at the laws and the data")
        return -float(value.detach()), -gradient.numpy()

    bounds = [(-_FURTHEST, _FURTHEST)] * len(problem.networks) + [(None, None)] * len(problem.columns)
    options = {"ftol": 1e-15, "gtol": 1e-9}
    done = minimize(negative, scales.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return torch.as_tensor(done.x, dtype=torch.float64)
