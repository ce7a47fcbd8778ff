"""Checks that the variance splits as it should, and that noise is neither dropped nor counted twice."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bayeswm.base.predictive import Predictive
from bayeswm.base.rollout import rollout
from bayeswm.base.worlds import Worlds
from bayeswm.testing.case import Case
from bayeswm.testing.comparisons import mean_p_value, normal_tail, variance_p_value
from bayeswm.testing.report import Breach, NotApplicable

MANY_WORLDS = 256

DROPPED = (
    "the variance between worlds is dropped: worlds are replaced by their mean, or only the law's variance is kept"
)
AVERAGED = (
    "standard deviations or log variances are averaged instead of variances when worlds are collapsed into one, or the "
    "noise is counted twice or dropped"
)


def total_is_sum_of_parts(case: Case) -> Iterator[Breach]:
    """Total variance = aleatoric + epistemic, at every step of a predictive and of a rollout."""
    for name, p in (("the predictive", case.predictive()), ("a rollout", case.rollout(particles=20))):
        both = p.aleatoric_variance + p.epistemic_variance
        cause = "a part is left out of the total, or counted in both"
        yield from case.compare(
            p.variance, both, f"total variance of {name} = aleatoric + epistemic", cause=cause, variance=True
        )
        if bool((p.aleatoric_variance < 0).any()):
            yield Breach(f"variances of {name}", "none below 0", "an aleatoric variance below 0", cause)


def variance_splits_by_world(case: Case) -> Iterator[Breach]:
    """Epistemic variance is that of the worlds' means, aleatoric the weighted mean of the worlds' variances."""
    case.need_nothing_hidden()
    worlds = case.model.draw(MANY_WORLDS, generator=case.generator(3))
    p = case.predictive(worlds=MANY_WORLDS)
    mean, aleatoric, between, errors = _from_worlds(case, worlds)
    if _same_worlds(case, p, worlds):
        promise = "the predictive's {} is the {}, as computed from the worlds"
        slack = 10.0
        yield from case.compare(
            p.mean[..., 0, :],
            mean,
            promise.format("mean", "weighted mean of the worlds' means"),
            cause=DROPPED,
            slack=slack,
        )
        yield from case.compare(
            p.epistemic_variance[..., 0, :],
            between,
            promise.format("epistemic variance", "variance of the worlds' means"),
            cause=DROPPED,
            variance=True,
            slack=slack,
        )
        yield from case.compare(
            p.aleatoric_variance[..., 0, :],
            aleatoric,
            promise.format("aleatoric variance", "weighted mean of the worlds' variances"),
            cause=AVERAGED,
            variance=True,
            slack=slack,
        )
        return
    # other worlds, or a closed form: they agree up to the Monte Carlo error of both
    parts = (
        ("mean", p.mean, mean, DROPPED),
        ("epistemic variance", p.epistemic_variance, between, DROPPED),
        ("aleatoric variance", p.aleatoric_variance, aleatoric, AVERAGED),
    )
    factor = 1.0 if p.exhaustive else 1.0 + MANY_WORLDS / max(p.worlds, 1)
    for (name, got, expected, cause), error in zip(parts, errors, strict=True):
        gap = got[..., 0, :] - expected
        allowed = case.rounding * torch.maximum(case.scale if name == "mean" else case.scale.square(), expected.abs())
        z = torch.where(gap.abs() <= allowed, 0.0, gap / (factor * error).sqrt().clamp(min=1e-300))
        if case.refuted(normal_tail(z)):
            yield Breach(
                f"the predictive's {name} agrees with {len(worlds)} worlds drawn from the model",
                f"{float(expected.flatten()[0]):.6g} (first of all)",
                f"{float(got.flatten()[0]):.6g}, {float(z.abs().max()):.1f} standard errors away at most",
                cause,
            )


def samples_match_moments(case: Case) -> Iterator[Breach]:
    """Samples of a one-step predictive have its mean and variance."""
    p = case.predictive()
    samples = p.sample(case.draws, generator=case.generator(6))[..., 0, :].detach()
    # samples come from the worlds at hand, which scatter less than the posterior that they were drawn from
    share = 1.0 if p.exhaustive else 1 - p.weight.square().sum()
    variance = p.aleatoric_variance + share * p.epistemic_variance
    cause = "noise or the spread between worlds is dropped, or counted twice, in one of the two"
    law = (p.mean[..., 0, :].detach(), variance[..., 0, :].detach())
    yield from _moments(case, samples, law, name="samples of the predictive", cause=cause)


def pushed_noise_matches_law(case: Case) -> Iterator[Breach]:
    """A law's push of standard normal noise has the law's mean and variance, in every world."""
    law = case.law()
    worlds = case.worlds
    if law.noise_size != worlds.noise_size:
        cause = "one of the two was not updated with the other"
        promise = "the law's noise_size is that of the worlds"
        yield Breach(promise, str(worlds.noise_size), str(law.noise_size), cause)
        return
    variance = law.variance.detach()
    if not law.noise_size:
        if bool((variance > 0).any()):
            cause = "the noise is dropped from push, or the variance is not the law's"
            yield Breach("a law without noise has variance 0", "variance 0", f"{float(variance.max()):.6g}", cause)
        return
    samples = worlds.state(law.push(case.step_noise(case.draws, stream=7))).detach().movedim(1, 0)
    cause = "push drops the noise, counts it twice, or scales it by something else than the law's standard deviation"
    yield from _moments(
        case, samples, (law.mean.detach()[:, 0], variance[:, 0]), name="pushed noise in each world", cause=cause
    )


def rollout_noise_matches_laws(case: Case) -> Iterator[Breach]:
    """At every step of a rollout, particles scatter around their laws as the laws say, independently of the past."""
    if not case.worlds.noise_size:
        raise NotApplicable("the system has no step noise")
    r = rollout(
        case.worlds,
        case.states,
        case.plan,
        particles=case.draws // 4,
        generator=case.generator(8),
        context=case.given_context(),
    )
    before: Tensor | None = None
    for h, law in enumerate(r.laws):
        mean, variance = law.mean.detach(), law.variance.detach()
        floor = (case.rounding * torch.maximum(mean.abs(), case.scale)).square()
        noisy = variance > 1e6 * floor
        white = torch.where(noisy, (r.particles[..., h, :] - mean) / variance.clamp(min=1e-300).sqrt(), 0.0).detach()
        noisy = noisy.all(1) & ~r.diverged[..., h].any(1)[..., None]
        white = white.movedim(1, 0)
        cause = "noise is dropped or counted twice on the way, or push and the law's moments disagree"
        one = torch.ones_like(white[0])
        for name, p_values in (
            ("mean 0", mean_p_value(white, torch.zeros_like(one), one)),
            ("variance 1", variance_p_value(white, torch.zeros_like(one), one)),
        ):
            if case.refuted(p_values[noisy]):
                promise = f"at step {h} of a rollout, standardised noise has {name}"
                heard = white.movedim(0, -1)[noisy]
                got = f"{float(heard.mean()):.4g} and {float(heard.var()):.4g}"
                yield Breach(promise, f"{name} (up to chance)", f"mean and variance {got}", cause)
        if before is not None:
            product = (white * before).movedim(0, -1)[noisy]
            z = product.mean(-1) * white.shape[0] ** 0.5
            if case.refuted(normal_tail(z)):
                cause = "the same noise is used at several steps"
                promise = f"noise of steps {h - 1} and {h} of a rollout is independent"
                yield Breach(promise, "correlation 0", f"{float(product.mean()):.3g}", cause)
        before = white


def function_has_no_process_noise(case: Case) -> Iterator[Breach]:
    """``predictive(of="function")`` has the mean of the state's, its epistemic variance, and no process noise."""
    function, state = case.predictive(of="function"), case.predictive()
    case.need_nothing_hidden()
    zero = torch.zeros_like(function.aleatoric_variance)
    cause = "process noise is left in predictive(of='function')"
    promise = "predictive(of='function') has aleatoric variance 0"
    yield from case.compare(function.aleatoric_variance, zero, promise, cause=cause, variance=True)
    promise = "predictive(of='function') has the mean of predictive(of='state')"
    yield from case.compare(function.mean, state.mean, promise, cause="noise with a mean, or another function")
    promise = "predictive(of='function') has the epistemic variance of predictive(of='state')"
    yield from case.compare(
        function.epistemic_variance, state.epistemic_variance, promise, cause=DROPPED, variance=True, slack=10
    )


def _from_worlds(case: Case, worlds: Worlds) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return mean, aleatoric and epistemic variance by the law of total variance, and their squared errors."""
    law = case.law(worlds)
    means, variances = law.mean.detach()[:, 0], law.variance.detach()[:, 0]
    w = worlds.weight.to(means).view(-1, 1, 1)
    mean, aleatoric = (w * means).sum(0), (w * variances).sum(0)
    squares = (means - mean).square()
    between = (w * squares).sum(0) / (1.0 if worlds.exhaustive else 1 - w.square().sum())
    share = w.square()
    errors = (
        (share * squares).sum(0),
        (share * (squares - between).square()).sum(0).clamp(min=2 * between.square() / len(worlds)),
        (share * (variances - aleatoric).square()).sum(0),
    )
    return mean, aleatoric, between, tuple(torch.zeros_like(e) for e in errors) if worlds.exhaustive else errors  # pyright: ignore[reportReturnType]


def _same_worlds(case: Case, p: Predictive, worlds: Worlds) -> bool:
    """Whether the predictive was made of these very worlds: always so for an exhaustive posterior."""
    if worlds.exhaustive:
        return True
    if p.worlds != len(worlds) or not p.laws:
        return False
    direct = case.law(worlds).mean
    gap = (p.laws[0].mean - direct).abs() if p.laws[0].mean.shape == direct.shape else None
    return gap is not None and bool((gap <= 10 * case.rounding * torch.maximum(case.scale, direct.abs())).all())


def _moments(case: Case, samples: Tensor, law: tuple[Tensor, Tensor], *, name: str, cause: str) -> Iterator[Breach]:
    mean, variance = law
    rounding = case.rounding * torch.maximum(mean.abs(), case.scale)
    silent = variance <= rounding.square()
    off = (samples - mean).abs().amax(0)
    if bool((silent & (off > 100 * rounding)).any()):
        largest = float(off[silent].max())
        yield Breach(f"{name} have variance 0 where that is what is said", "no scatter", f"{largest:.4g}", cause)
    heard = ~silent & variance.isfinite()
    columns = tuple(case.schema.state.columns)
    for what, p_values, got, expected in (
        ("mean", mean_p_value(samples, mean, variance), samples.mean(0), mean),
        ("variance", variance_p_value(samples, mean, variance), samples.var(0), variance),
    ):
        if case.refuted(p_values[heard]):
            worst = torch.where(heard, p_values, 1.0)
            index = torch.unravel_index(worst.argmin(), worst.shape)
            where = tuple(int(i) for i in index)
            yield Breach(
                f"{name} have the {what} that is said",
                f"{what} {float(expected.expand(worst.shape)[where]):.6g} of {columns[where[-1]]!r}",
                f"{float(got[where]):.6g} in {len(samples)} samples (p-value {float(worst.min()):.1g})",
                cause,
            )
