"""Checks of the conditional law: shapes, inversion of the noise, density and cdf."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible
from bayeswm.base.kinds import Categorical
from bayeswm.base.laws import Law
from bayeswm.testing.case import ROWS, Case
from bayeswm.testing.comparisons import distribution_p_value
from bayeswm.testing.report import Breach, NotApplicable

FEW = 16


def law_shapes(case: Case) -> Iterator[Breach]:
    """A law's mean, variance, density and cdf have axes (worlds, particles, *batch, variable)."""
    law, size, worlds = case.law(), case.schema.state.size, len(case.worlds)
    wide = (worlds, 1, ROWS, size)
    answers: dict[str, tuple[Callable[[], Tensor], tuple[int, ...]]] = {
        "mean": (lambda: law.mean, wide),
        "variance": (lambda: law.variance, wide),
        "covariance": (lambda: law.covariance, (*wide, size)),
        "cdf": (lambda: law.cdf(law.mean), wide),
        "log_prob": (lambda: law.log_prob(law.mean), wide[:-1]),
        "marginal log_prob": (lambda: law.log_prob(law.mean, marginal=True), wide),
        "map(identity).mean": (lambda: law.map(lambda v: v).mean, wide),
        "map(first world).mean": (lambda: law.map(lambda v: v[:1]).mean, (1, *wide[1:])),
    }
    for name, (ask, shape) in answers.items():
        values = ask()
        if tuple(values.shape) != shape:
            cause = "axes are in another order than (worlds, particles, *batch, variable)"
            got = f"shape {tuple(values.shape)}"
            yield Breach(f"the law's {name} has its documented axes", f"shape {shape}", got, cause)
            return  # the others follow from it
    diagonal = law.covariance.diagonal(dim1=-2, dim2=-1)
    if diagonal.shape == law.variance.shape:
        promise = "the diagonal of the law's covariance is its variance"
        yield from case.compare(diagonal, law.variance, promise, cause="one of the two is not the law's", variance=True)
    if bool((law.variance < 0).any()):
        cause = "a log variance or a difference of squares taken for a variance"
        yield Breach("variances", "none below 0", f"{float(law.variance.min()):.4g}", cause)


def abduct_inverts_push(case: Case) -> Iterator[Breach]:
    """``abduct`` gives back the noise that ``push`` took, and refuses what a silent column cannot do."""
    law = case.law()
    noise = case.step_noise(FEW, stream=9)
    state = case.worlds.state(law.push(noise)).detach()
    cause = "abduct is not the exact inverse of push: another scale, order or sign"
    try:
        found = law.abduct(state)
    except NotInvertible as error:
        raise NotApplicable(f"the law says that it is no bijection in its noise: {error}") from None
    if found.shape != noise.shape:
        yield Breach("abduct returns noise of the law's size", f"{tuple(noise.shape)}", f"{tuple(found.shape)}", cause)
        return
    replayed = case.worlds.state(law.push(found))
    yield from case.compare(replayed, state, "push after abduct gives the state back", cause=cause, slack=10)
    # a coordinate that moves nothing (scale 0) cannot be found again
    for j in range(law.noise_size):
        moved = noise.clone()
        moved[..., j] += 1
        shift = (case.worlds.state(law.push(moved)).detach() - state).abs()
        floor = case.rounding * torch.maximum(state.abs(), case.scale)
        effect = (shift / floor).amax(-1)  # how many times rounding one unit of noise is
        limit = 10 * (1 / effect.clamp(min=1e-300) + case.rounding)
        wrong = (effect > 1e3) & ~((found[..., j] - noise[..., j]).abs() <= limit * (1 + noise[..., j].abs()))
        if bool(wrong.any()):
            where = tuple(wrong.nonzero()[0].tolist())
            got, expected = float(found[..., j][where]), float(noise[..., j][where])
            promise = f"abduct after push gives the noise back, coordinate {j}"
            yield Breach(promise, f"{expected:.6g}", f"{got:.6g}", cause)
    silent = (law.variance == 0).all(0).all(0).all(0)
    for column in silent.nonzero().flatten().tolist():
        off = state.clone()
        off[..., column] += 10 * torch.maximum(case.scale[column], state[..., column].abs().max())
        name = case.schema.state.columns[column]
        if not bool(law.log_prob(off).eq(-math.inf).all()):
            promise = f"a state that contradicts the noise-free {name!r} has density 0"
            yield Breach(
                promise, "log_prob -inf", f"{float(law.log_prob(off).max()):.4g}", "variance 0 taken for a small one"
            )
        try:
            law.abduct(off)
        except NotInvertible:
            continue
        promise = f"abduct refuses a state that contradicts the noise-free {name!r}"
        yield Breach(promise, "NotInvertible", "noise", "a contradiction is passed over in silence")


def cdf_matches_samples(case: Case) -> Iterator[Breach]:
    """The law's cdf rises from 0 to 1, and pushed noise is distributed as it says."""
    law = case.law()
    noisy = _noisy(case, law)
    if not bool(noisy.any()):
        raise NotApplicable("no variable has noise")
    mean, sd = law.mean.detach(), law.variance.detach().sqrt()
    steps = torch.linspace(-4, 4, 33, dtype=mean.dtype, device=mean.device).view(-1, 1, 1, 1, 1)
    points = mean + torch.where(noisy, sd, 1.0) * steps
    cdf = torch.stack([law.cdf(x).detach() for x in points])
    cause = "cdf is of another law than push and log_prob: another scale, a sign, or 1 - cdf"
    if bool(((cdf < 0) | (cdf > 1) | cdf.isnan()).any()):
        got = f"{float(cdf.min()):.4g} to {float(cdf.max()):.4g}"
        yield Breach("the law's cdf is a probability", "values in [0, 1]", got, cause)
    slip = float((cdf.diff(dim=0) * noisy).min())
    if slip < -1e-6:
        yield Breach("the law's cdf never falls", "a rising function", f"a fall of {-slip:.4g}", cause)
    far = 1e6 * (torch.where(noisy, sd, 1.0) + mean.abs() + 1)
    for end, x in ((0.0, mean - far), (1.0, mean + far)):
        gap = float(((law.cdf(x) - end).abs() * noisy).max())
        if not gap < 1e-3:
            yield Breach(f"the law's cdf ends at {end:g}", f"{end:g} far out", f"{gap:.4g} away from it", cause)
    samples = case.worlds.state(law.push(case.step_noise(case.draws, stream=9))).detach().movedim(1, 0)
    p_values = distribution_p_value(samples, points[:, :, 0], cdf[:, :, 0])[noisy[:, 0]]
    if case.refuted(p_values):
        share = (samples <= mean[:, 0]).double().mean(0)[noisy[:, 0]].mean()
        said = law.cdf(mean)[noisy].double().mean()
        chance = f"p-value {float(p_values.min()):.1g}"
        got = f"{float(share):.3f} below the mean where the cdf says {float(said):.3f} ({chance})"
        yield Breach("pushed noise is distributed as the law's cdf says", "agreement up to chance", got, cause)


def density_matches_cdf(case: Case) -> Iterator[Breach]:
    """The marginal density integrates to the cdf, and so to 1."""
    law = case.law()
    if not law.exact:
        raise NotApplicable("the law says that its log_prob is not exact")
    noisy = _noisy(case, law) & ~_discrete(case, law)
    if not bool(noisy.any()):
        raise NotApplicable("no variable has noise with a density")
    mean, sd = law.mean.detach(), torch.where(noisy, law.variance.detach().sqrt(), 1.0)
    count = 2001
    grid = torch.linspace(-8, 8, count, dtype=mean.dtype, device=mean.device).view(-1, 1, 1, 1, 1)
    density = torch.stack([law.log_prob(mean + sd * t, marginal=True).detach().exp() * sd for t in grid]).double()
    cdf = torch.stack([law.cdf(mean + sd * t).detach() for t in grid[::2]]).double()
    width = 16 / (count - 1)
    area = (density[:-2:2] + 4 * density[1:-1:2] + density[2::2]) * width / 3  # Simpson's rule, two widths at a time
    gap = ((area.cumsum(0) - (cdf[1:] - cdf[:1])).abs() * noisy).amax(0)
    limit = 1e-5 if mean.dtype == torch.float64 else 5e-3
    if not bool((gap <= limit).all()):
        total = float((area.sum(0)[noisy]).mean())
        promise = "the marginal density integrates to the law's cdf, and to 1"
        cause = "log_prob lacks its normalisation (the logarithm of the scale), or is of another law than cdf"
        yield Breach(promise, f"a gap below {limit:g}", f"a gap of {float(gap.max()):.4g}, total {total:.4g}", cause)


def density_matches_push(case: Case) -> Iterator[Breach]:
    """For an invertible law, log_prob is the density of pushed noise, by the change of variables."""
    law = case.law()
    if not law.exact:
        raise NotApplicable("the law says that its log_prob is not exact")
    noisy = law.variance.amax((0, 1, 2)) > 0
    if not law.noise_size or int(noisy.sum()) != law.noise_size or not bool((law.variance > 0)[..., noisy].all()):
        raise NotApplicable("the law has no noise, or more or fewer noise coordinates than noisy variables")
    noise = case.step_noise(FEW, stream=9)
    try:
        law.abduct(case.worlds.state(law.push(noise)).detach())
    except NotInvertible as error:
        raise NotApplicable(f"the law says that it is no bijection in its noise: {error}") from None
    with torch.enable_grad():
        noise = noise.detach().requires_grad_()
        state = case.worlds.state(law.push(noise))
        if not state.requires_grad:
            raise NotApplicable("push has no derivative in its noise")
        rows = [
            torch.autograd.grad(state[..., i].sum(), noise, retain_graph=True)[0]
            for i in noisy.nonzero().flatten().tolist()
        ]
    jacobian = torch.stack(rows, -2).double()
    white = noise.detach().double()
    log_normal = -0.5 * white.square().sum(-1) - 0.5 * law.noise_size * math.log(2 * math.pi)
    expected = log_normal - torch.linalg.slogdet(jacobian).logabsdet
    got = law.log_prob(state.detach()).detach().double()
    # rounding of a state of this size, in standard deviations, moves the exponent by about noise x that
    resolution = (
        10
        * torch.finfo(state.dtype).eps
        * state.detach().abs().clamp(min=1.0)
        / law.variance.detach().clamp(min=1e-300).sqrt()
    )
    slack = (resolution[..., noisy].double() * (white.abs().amax(-1, keepdim=True) + 1)).sum(-1)
    limit = slack + 100 * torch.finfo(state.dtype).eps * (1 + expected.abs())
    wrong = ~((got - expected).abs() <= limit)
    if bool(wrong.any()):
        where = tuple(wrong.nonzero()[0].tolist())
        cause = "log_prob lacks the log determinant of push, or has it with the wrong sign, or is of another law"
        promise = "log_prob is the density of pushed noise (change of variables)"
        yield Breach(promise, f"{float(expected[where]):.6g}", f"{float(got[where]):.6g}", cause)


def _noisy(case: Case, law: Law) -> Tensor:
    """Where a variable's noise is well above rounding, shape as the law's mean."""
    floor = 1e3 * torch.finfo(law.mean.dtype).eps * torch.maximum(law.mean.abs(), case.scale)
    return (law.variance > floor.square()) & law.variance.isfinite()


def _discrete(case: Case, law: Law) -> Tensor:
    out = torch.zeros(law.mean.shape[-1], dtype=torch.bool, device=law.mean.device)
    for v in case.schema.state:
        if isinstance(v.kind, Categorical):
            out[case.schema.state.slices[v.name]] = True
    return out
