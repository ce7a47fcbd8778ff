import warnings

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import (
    Gaussian,
    MultivariateGaussian,
    Predictive,
    Schema,
    SpecError,
    UndefinedWarning,
    Variable,
    Variables,
)
from bayeswm.structures import FromFunction, Pendulum
from tests.statistical.checks import BUDGET, gaussian_p, mean_p

F64 = torch.float64
XY = Variables([Variable("x"), Variable("y")])
LINE = Schema(state=[Variable("x")], time_step=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_step(law: bwm.Law, weights: tuple[float, ...], **given: object) -> Predictive:
    return Predictive(
        XY,
        [law],
        torch.tensor(weights, dtype=F64).log(),
        exhaustive=True,
        time_step=0.1,
        **{"resolved": [True], **given},
    )


def line(noise: float = 0.3) -> bwm.KnownDynamics:
    a = torch.distributions.Uniform(0.5, 0.9)
    structure = FromFunction(lambda x, u, c, p: p["a"] * x, schema=LINE, parameters={"a": a})
    return bwm.KnownDynamics(structure=structure, noise=noise)


def test_shapes_of_one_step_and_of_a_horizon() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    p = model.predictive(torch.zeros(5, 4, 2), torch.zeros(1))
    r = bwm.rollout(model, torch.zeros(5, 4, 2), torch.zeros(3, 1), particles=6, generator=generator())
    for q, h in ((p, 1), (r, 3)):
        assert q.batch_shape == (5, 4)
        assert (q.horizon, q.worlds) == (h, 1)
        for v in (q.mean, q.variance, q.stddev, q.aleatoric_variance, q.epistemic_variance, *q.interval(0.9)):
            assert v.shape == (5, 4, h, 2)
        assert q.quantile(torch.tensor([0.1, 0.5, 0.9])).shape == (3, 5, 4, h, 2)
        assert q.covariance.shape == (5, 4, h, 2, 2)
        assert q.log_prob(q.mean).shape == (5, 4)
        assert q.sample(7, generator=generator()).shape == (7, 5, 4, h, 2)
        assert q.diverged.shape[-1] == h
    assert p.log_prob(p.mean, marginal=True).shape == (5, 4, 1, 2)
    assert r.particles.shape == (1, 6, 5, 4, 3, 2)
    with pytest.raises(bwm.SpecError, match="rollout"):
        _ = p.particles
    assert repr(r) == "Predictive(1 worlds, batch (5, 4), 3 steps, (angle, velocity))"


@pytest.mark.statistical
def test_one_step_samples_have_the_exact_law() -> None:
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.5]], dtype=F64)
    p = one_step(MultivariateGaussian(torch.tensor([[[1.0, -1.0]]], dtype=F64), factor), (1.0,))
    samples = p.sample(20000, generator=generator())[:, 0]
    assert min(gaussian_p(samples, torch.tensor([1.0, -1.0]).double(), factor @ factor.mT)) > BUDGET


@pytest.mark.statistical
def test_one_step_samples_of_a_weighted_mixture_have_its_moments() -> None:
    law = Gaussian(torch.tensor([[0.0, 1.0], [3.0, 5.0]], dtype=F64).view(2, 1, 2), torch.tensor([0.5, 1.0], dtype=F64))
    p = one_step(law, (0.8, 0.2))
    repeats = torch.stack([p.sample(200, generator=generator(s))[:, 0] for s in range(200)])
    assert mean_p(repeats.mean(1), p.mean[0]) > BUDGET
    # systematic draws stratify the worlds: the spread about the true mean is what is unbiased
    assert mean_p((repeats - p.mean[0]).square().mean(1), p.variance[0]) > BUDGET


def test_one_step_samples_come_from_every_particle() -> None:
    """A one-step law that was conditioned on particles (a noisy start) is sampled from all of them."""
    law = Gaussian(torch.linspace(-1, 1, 50, dtype=F64).view(1, 50, 1).expand(1, 50, 2))
    p = one_step(law, (1.0,), resolved=[False])
    samples = p.sample(50, generator=generator())
    assert samples[:, 0, 0].sort().values.tolist() == pytest.approx(law.mean[0, :, 0].tolist())


def test_samples_of_a_rollout_are_whole_trajectories_by_weight() -> None:
    drawn = line().draw(3, generator=generator()).reweight(torch.tensor([0.5, 0.5, 0.0]).log())
    r = bwm.rollout(drawn, torch.ones(1), torch.zeros(4, 0), particles=5, generator=generator())
    samples = r.sample(10, generator=generator())
    paths = r.particles[:2].flatten(0, 1)
    assert sorted(samples[:, -1, 0].tolist()) == sorted(paths[:, -1, 0].tolist())


def test_rsample_carries_gradients() -> None:
    start = torch.ones(1, dtype=F64, requires_grad=True)
    model = line()
    p = model.predictive(start, torch.zeros(0), worlds=8, generator=generator())
    p.rsample(16, generator=generator()).mean().backward()
    assert float(start.grad) == pytest.approx(
        float(model.draw(8, generator=generator()).parameters["a"].mean()), abs=1e-12
    )
    assert not p.sample(2, generator=generator()).requires_grad


def test_few_kernels_warn_and_many_do_not() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x, schema=LINE), noise=0.3)
    r = bwm.rollout(model, torch.zeros(1), torch.zeros(3, 0), particles=2000, generator=generator())
    near, far = torch.zeros(3, 1, dtype=F64), torch.full((3, 1), 3.0, dtype=F64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r.log_prob(near, marginal=True)
        r.log_prob(far)  # joint: exact in a known world
    with pytest.warns(bwm.EstimateWarning, match="fewer than 20 effective kernels"):
        r.log_prob(far, marginal=True)
    assert float(r.log_score(near).kernels) == float("inf")


def test_narrow_kernels_state_a_large_error() -> None:
    """One-step sd 1 % of the total: a density of the particles' kernels is an estimate to be warned of."""
    belief = Gaussian(torch.zeros(1, 1, 1, dtype=F64), torch.ones(1, dtype=F64))
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x, schema=LINE), noise=0.01)
    r = bwm.rollout(model, belief, torch.zeros(2, 0), particles=100, generator=generator())
    with pytest.warns(bwm.EstimateWarning):
        r.log_prob(torch.zeros(2, 1, dtype=F64), marginal=True)


def test_what_has_no_density_says_so() -> None:
    p = line().predictive(torch.ones(1), torch.zeros(0), of="function", generator=generator())
    for ask in (p.log_prob, p.log_score):
        with pytest.raises(bwm.SpecError, match="density"):
            ask(torch.zeros(1, 1))
    assert float(p.aleatoric_variance) == 0
    assert float(p.epistemic_variance) > 0
    assert p.quantile(0.5).shape == (1, 1)


def test_values_of_the_wrong_shape() -> None:
    p = line().predictive(torch.ones(1), torch.zeros(0), generator=generator())
    for ask in (p.log_prob, p.cdf):
        with pytest.raises(
            bwm.DataError, match=r"\(\*batch, 1, 1\) with batch \(\).*got \(3, 1\); the axis of the horizon"
        ):
            ask(torch.zeros(3, 1))
        with pytest.raises(bwm.DataError, match=r"\(\*batch, 1, 1\), got str; pass a tensor"):
            ask("much")
    r = bwm.rollout(line().draw(3, generator=generator()), torch.ones(4, 1), horizon=2, generator=generator())
    for shape in ((3, 2, 1), (4, 7, 2, 1), (4, 1, 1), (4, 2, 2), (1,), ()):
        for ask in (r.log_prob, r.cdf, lambda x: r.log_score(x, marginal=True)):
            with pytest.raises(bwm.DataError, match=r"with batch \(4,\), or with further axes"):
                ask(torch.zeros(shape))
    for level in (0.0, 1.0, float("nan")):
        with pytest.raises(bwm.SpecError, match="ends excluded"):
            p.quantile(level)
    with pytest.raises(bwm.SpecError, match="90 % interval"):
        p.interval(90)


def test_levels_of_an_interval_are_not_rounded() -> None:
    p = one_step(Gaussian(torch.zeros(1, 1, 2, dtype=F64), torch.ones(2, dtype=F64)), (1.0,))
    low, high = p.interval(0.9)
    assert float(p.cdf(low)[0, 0]) == pytest.approx(0.05, abs=1e-11)
    assert float(p.cdf(high)[0, 0]) == pytest.approx(0.95, abs=1e-11)


def test_part_of_a_batch() -> None:
    drawn = line().draw(4, generator=generator())
    r = bwm.rollout(
        drawn, torch.randn(5, 1, generator=generator()), torch.zeros(3, 0), particles=3, generator=generator()
    )
    for index in (2, slice(1, 3), torch.tensor([4, 0])):
        part = r[index]
        torch.testing.assert_close(part.mean, r.mean[index])
        torch.testing.assert_close(part.particles, r.particles[:, :, index])
        torch.testing.assert_close(part.variance, r.variance[index])
        torch.testing.assert_close(
            part.log_score(r.mean[index], marginal=True).value, r.log_score(r.mean, marginal=True).value[index]
        )
    with pytest.raises(bwm.SpecError, match="batch to index"):
        r[0][0]


def test_ragged_trajectories_are_scored_up_to_their_end() -> None:
    drawn = line().draw(4, generator=generator())
    r = bwm.rollout(drawn, torch.ones(2, 1), torch.zeros(2, 3, 0), particles=3, generator=generator())
    x = torch.full((2, 3, 1), 0.5, dtype=F64)
    x[1, 2] = float("nan")
    short = bwm.rollout(drawn, torch.ones(1, 1), torch.zeros(1, 2, 0), particles=3, generator=generator())
    torch.testing.assert_close(r.log_score(x).value[1], short.log_score(x[1:, :2]).value[0])
    assert bool(r.log_score(x, marginal=True).value[1, 2].isnan())


def test_circular_mean_counts_every_living_particle_once() -> None:
    """The worlds' angles are averaged on the circle; a world that lost half of its particles keeps its weight."""
    angle = Variables([Variable("angle", kind="angle", unit="rad")])
    mean = torch.tensor([[0.1, 0.1], [1.1, 1.1]], dtype=F64).view(2, 2, 1)
    laws = [Gaussian(mean[:, :1]), Gaussian(mean)]
    gone = torch.zeros(2, 2, 2, dtype=torch.bool)
    gone[:, 0, 1] = True
    p = Predictive(
        angle,
        laws,
        torch.full((2,), 0.5, dtype=F64).log(),
        exhaustive=True,
        time_step=0.1,
        particles=torch.zeros(2, 2, 2, 1, dtype=F64),
        diverged=gone,
    )
    assert p.circular_mean()[:, 0].tolist() == pytest.approx([0.6, 0.6])


def test_angles_across_the_cut_average_on_the_circle() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(gravity=0.0), noise=0.0)
    belief = Gaussian(torch.tensor([[[3.0, 0.0], [3.2, 0.0]]], dtype=F64))
    r = bwm.rollout(model, belief, torch.zeros(1, 1), particles=2)
    assert float(r.mean[0, 0]) == pytest.approx(3.1)
    assert float(r.circular_mean()[0, 0]) == pytest.approx(3.1)


def test_one_step_may_leave_out_the_axis_of_the_horizon():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    p = model.predictive(torch.zeros(3, 2), torch.zeros(1))
    x = torch.full((3, 2), 0.05, dtype=torch.float64)
    assert torch.equal(p.log_prob(x), p.log_prob(x[:, None]))
    assert torch.equal(p.cdf(x), p.cdf(x[:, None]))


def many_outcomes() -> list[Predictive]:
    """One step and horizons, whose particles are as many as the outcomes scored."""
    model, start, g = line(), torch.linspace(0.5, 1.5, 4)[:, None], generator
    drawn = model.draw(3, generator=g())
    gone = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x.square(), schema=LINE), noise=0.01)
    with pytest.warns(bwm.DivergenceWarning):
        diverged = bwm.rollout(gone, torch.ones(4, 1), horizon=40, particles=5, generator=g())
    return [
        model.predictive(start, torch.zeros(0), worlds=5, generator=g()),
        bwm.rollout(drawn, start, horizon=3, particles=5, generator=g()),
        bwm.rollout(drawn, start, horizon=3, particles=5, generator=g(), fresh_worlds=True),
        bwm.rollout(drawn, start, lambda x, t: x[..., :0], horizon=3, particles=5, generator=g()),
        bwm.rollout(drawn, start, horizon=0, particles=5, generator=g()),
        diverged,
    ]


@pytest.mark.parametrize("work", [1, 2**21])
@pytest.mark.filterwarnings("ignore::bayeswm.UndefinedWarning")
def test_each_of_many_outcomes_is_scored_on_its_own(work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeswm.base.predictive._WORK", work)
    for p in many_outcomes():
        x = 0.3 * torch.rand(2, 5, 4, p.horizon, 1, generator=generator(), dtype=F64)
        for marginal in (False, True):
            score = p.log_score(x, marginal=marginal)
            assert score.value.shape == ((2, 5, 4, p.horizon, 1) if marginal else (2, 5, 4))
            each = [[p.log_score(part, marginal=marginal) for part in row] for row in x]
            for i, found in enumerate(score):
                expected = torch.stack([torch.stack([s[i] for s in row]) for row in each])
                torch.testing.assert_close(found, expected, equal_nan=True)
        expected = torch.stack([torch.stack([p.cdf(part) for part in row]) for row in x])
        torch.testing.assert_close(p.cdf(x), expected, equal_nan=True)


def test_the_density_of_samples_of_a_single_predictive() -> None:
    """5 outcomes of one step are not 5 particles."""
    p = bwm.KnownDynamics(structure=Pendulum(), noise=0.1).predictive(torch.zeros(2), torch.zeros(1))
    x = 0.1 * torch.arange(10.0, dtype=F64).view(5, 1, 2)
    exact = torch.distributions.Normal(p.mean, 0.1).log_prob(x).sum((-1, -2))
    torch.testing.assert_close(p.log_prob(x), exact)
    assert p.log_prob(x[:0]).shape == (0,)
    torch.testing.assert_close(p.log_prob(x.numpy()), exact)
    torch.testing.assert_close(p.log_prob(x[1].tolist()), exact[1])


def test_fewer_axes_are_broadcast_to_the_batch() -> None:
    r = bwm.rollout(line().draw(3, generator=generator()), torch.ones(2, 4, 1), horizon=2, generator=generator())
    x = torch.rand(4, 2, 1, generator=generator(), dtype=F64)
    full = r.log_score(x.expand(2, 4, 2, 1)).value
    torch.testing.assert_close(r.log_score(x).value, full)
    torch.testing.assert_close(r.log_score(x[None]).value, full)
    torch.testing.assert_close(r.log_score(x[0]).value, full[:, :1].expand(2, 4))
    torch.testing.assert_close(r.cdf(x), r.cdf(x.expand(2, 4, 2, 1)))


def test_moments_first_seen_without_gradients_have_them_later() -> None:
    start = torch.ones(2, 1, dtype=F64, requires_grad=True)
    drawn = line().draw(3, generator=generator())
    for mode in (torch.no_grad, torch.inference_mode):
        r = bwm.rollout(drawn, start, horizon=2, particles=4, generator=generator())
        with mode():
            seen = r.mean
            assert not seen.requires_grad
        r.mean.sum().backward()
        gain = drawn.parameters["a"]
        torch.testing.assert_close(start.grad, (gain + gain.square()).mean().expand(2, 1))
        with torch.no_grad():
            assert not r.mean.requires_grad
            assert torch.equal(r.mean, seen)
        start.grad = None


def test_an_expectation_keeps_worlds_and_particles() -> None:
    r = bwm.rollout(line().draw(3, generator=generator()), torch.ones(1), horizon=2, generator=generator())
    for fn in (lambda p: p.mean(), lambda p: p.mean(1), lambda p: 1.0):
        with pytest.raises(bwm.SpecError, match=r"values of shape \(3, 20, \.\.\.\).*reduce the axes behind them only"):
            r.expectation(fn)
    with pytest.raises(bwm.SpecError, match="reduce the axes"):
        r.probability(lambda p: True)


def test_warnings_point_to_the_caller():
    prior = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.Uniform(0.5, 5.0)), noise=0.1)
    g = torch.Generator().manual_seed(0)
    p = prior.predictive(torch.zeros(2), torch.zeros(1), worlds=1, generator=g)
    for name in ("epistemic_variance", "unclamped_epistemic_variance"):
        with pytest.warns(bwm.UndefinedWarning) as caught:
            getattr(p, name)
        assert caught[0].filename == __file__


def test_mapped_outcomes_have_no_density_and_may_have_no_split():
    law = Gaussian(torch.tensor([0.0, 2.0]).view(2, 1, 1), torch.ones(2, 1, 1))
    p = Predictive(Variables([Variable("x")]), [law], torch.full((2,), 0.5).log(), exhaustive=True, time_step=1.0)
    wide = Gaussian(2 * law.mean, 2 * law.spread)
    kept, lost = (p.mapped([wide], particles=None, has_split=split) for split in (True, False))
    assert float(kept.epistemic_variance) == 4
    assert float(kept.variance) == float(lost.variance) == 8
    for name in ("aleatoric_variance", "epistemic_variance"):
        with pytest.warns(bwm.UndefinedWarning, match="mapped by their ranks"):
            assert getattr(lost, name).isnan().all()
    with pytest.raises(bwm.SpecError, match="density"):
        kept.log_prob(torch.zeros(1, 1))
    # what is lost once stays lost
    assert not lost.mapped([wide], particles=None).has_split


def test_a_law_for_all_worlds_together_carries_its_own_split() -> None:
    law = Gaussian(torch.zeros(1, 1, 3, 2, dtype=F64), torch.tensor([2.0, 1.0], dtype=F64))
    part = torch.tensor([3.0, 0.5], dtype=F64) * torch.ones(3, 2, 2, dtype=F64)
    variables = Variables([Variable("x"), Variable("y")])
    given = {"exhaustive": True, "time_step": 1.0, "resolved": [True, True], "aleatoric": part}
    p = Predictive(variables, [law, law], torch.zeros(1, dtype=F64), **given)
    assert p.variance[0, 0].tolist() == [4.0, 1.0]
    assert p.aleatoric_variance[0, 0].tolist() == [3.0, 0.5]
    assert p.epistemic_variance[0, 0].tolist() == [1.0, 0.5]
    assert p[1:].aleatoric_variance.shape == p[1:].mean.shape == (2, 2, 2)
    assert p[0].flatten().epistemic_variance.tolist() == [[[1.0, 0.5]] * 2]
    # a part that came out above the whole is cut to it, and says so where it is not clamped
    p = Predictive(variables, [law, law], torch.zeros(1, dtype=F64), **{**given, "aleatoric": 2 * part})
    assert p.aleatoric_variance[0, 0].tolist() == [4.0, 1.0]
    assert p.epistemic_variance[0, 0].tolist() == [0.0, 0.0]
    assert p.unclamped_epistemic_variance[0, 0].tolist() == [-2.0, 0.0]
    with pytest.warns(UndefinedWarning):
        assert bool(p.mapped(p.laws, particles=None).epistemic_variance.isnan().all())


def test_moments_of_several_steps_have_no_trajectories() -> None:
    law = Gaussian(torch.zeros(1, 1, 2, dtype=F64), torch.ones(2, dtype=F64))
    variables = Variables([Variable("x"), Variable("y")])
    p = Predictive(variables, [law, law], torch.zeros(1, dtype=F64), exhaustive=True, time_step=1.0)
    for ask in (lambda: p.particles, lambda: p.sample(3, generator=torch.Generator())):
        with pytest.raises(SpecError, match="FixedWorlds"):
            ask()
