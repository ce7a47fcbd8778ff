import importlib
import warnings
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Noise, Schema, Variable
from bayeswm.structures import FromFunction, Pendulum
from tests.hidden_models import hidden_mode_worlds
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
PENDULUM = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise={"velocity": 0.05})
LINE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uncertain(noise: float = 0.1, **given: object) -> bwm.KnownDynamics:
    """x' = a x + u."""
    parameters = {"a": torch.distributions.Uniform(0.5, 1.0)}
    structure = FromFunction(lambda x, u, c, p: p["a"] * x + u, schema=LINE, parameters=parameters)
    return bwm.KnownDynamics(structure=structure, noise=noise, **given)


def exploding(*, dtype: torch.dtype = F64) -> bwm.KnownDynamics:
    """x' = x^2 + u: starts outside the unit interval run away."""
    return bwm.KnownDynamics(structure=FromFunction(lambda x, u: x.square() + u, schema=LINE), noise=0.01, dtype=dtype)


def test_same_generator_same_bits() -> None:
    for fresh in (False, True):
        one, two = (
            bwm.rollout(uncertain(), torch.ones(3, 1), torch.zeros(5, 1), fresh_worlds=fresh, generator=generator(4))
            for _ in range(2)
        )
        assert torch.equal(one.particles, two.particles)
        assert torch.equal(one.variance, two.variance)
        assert torch.equal(one.sample(7, generator=generator(1)), two.sample(7, generator=generator(1)))


def test_caller_state_is_left_alone() -> None:
    torch.manual_seed(3)
    before, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    r = bwm.rollout(uncertain(), torch.ones(1), torch.zeros(5, 1), generator=generator(), checkpoint=True)
    r.quantile(0.5)
    r.sample(3, generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == dtype
    assert torch.get_num_threads() == threads


def test_other_default_dtype_and_inference_mode() -> None:
    expected = bwm.rollout(uncertain(dtype=torch.float32), torch.ones(1), torch.zeros(5, 1), generator=generator())
    torch.set_default_dtype(F64)
    try:
        r = bwm.rollout(
            uncertain(dtype=torch.float32), torch.ones(1), torch.zeros(5, 1), generator=generator(), fresh_worlds=True
        )
        assert r.particles.dtype == torch.float32
        r.quantile(0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        again = bwm.rollout(uncertain(dtype=torch.float32), torch.ones(1), torch.zeros(5, 1), generator=generator())
        assert torch.equal(again.particles, expected.particles)
        assert torch.equal(again.quantile(0.3), expected.quantile(0.3))


@pytest.mark.filterwarnings("error")
def test_horizon_0_has_the_right_dimensions() -> None:
    r = bwm.rollout(uncertain(), torch.ones(4, 1), torch.zeros(0, 1), worlds=3, particles=2, generator=generator())
    assert r.horizon == 0
    assert r.particles.shape == (3, 2, 4, 0, 1)
    for values in (
        r.mean,
        r.variance,
        r.stddev,
        r.aleatoric_variance,
        r.epistemic_variance,
        r.cdf(torch.zeros(4, 0, 1)),
    ):
        assert values.shape == (4, 0, 1)
    assert r.quantile(0.5).shape == (4, 0, 1)
    assert r.quantile(torch.tensor([0.1, 0.9])).shape == (2, 4, 0, 1)
    assert r.covariance.shape == (4, 0, 1, 1)
    assert r.sample(5, generator=generator()).shape == (5, 4, 0, 1)
    assert r.log_prob(torch.zeros(4, 0, 1)).tolist() == [0.0] * 4
    assert r.log_prob(torch.zeros(4, 0, 1), marginal=True).shape == (4, 0, 1)
    assert r.initial is not None
    assert r.diverged.shape == (3, 2, 4, 0)
    policy = bwm.rollout(uncertain(), torch.ones(4, 1), lambda x, t: x, horizon=0, generator=generator())
    assert policy.mean.shape == (4, 0, 1)


def test_impossible_horizons() -> None:
    with pytest.raises(bwm.SpecError, match="horizon >= 0, got -1"):
        bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), horizon=-1, generator=generator())
    with pytest.raises(bwm.SpecError, match="actions for 9 steps, got 3"):
        bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), horizon=9, generator=generator())
    with pytest.raises(bwm.SpecError, match="horizon= with a policy"):
        bwm.rollout(PENDULUM, torch.zeros(2), lambda x, t: x[..., :1], generator=generator())
    with pytest.raises(bwm.SpecError, match=r"needs .* GB of .* GB"):
        bwm.rollout(PENDULUM, torch.zeros(2), lambda x, t: x[..., :1], horizon=10**10, generator=generator())
    with pytest.raises(bwm.SpecError, match="particles >= 1"):
        bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), particles=0, generator=generator())
    with pytest.raises(bwm.SpecError, match="generator"):
        bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1))


def test_a_shorter_horizon_uses_the_beginning_of_the_plan() -> None:
    plan = torch.linspace(-1, 1, 8)[:, None]
    short = bwm.rollout(PENDULUM, torch.zeros(2), plan, horizon=3, generator=generator())
    full = bwm.rollout(PENDULUM, torch.zeros(2), plan[:3], generator=generator())
    assert torch.equal(short.particles, full.particles)


def test_a_policy_sees_every_particle_and_the_step() -> None:
    seen: list[tuple[tuple[int, ...], int]] = []

    def policy(state: Tensor, step: int) -> Tensor:
        seen.append((tuple(state.shape), step))
        return -0.5 * state

    for fresh in (False, True):
        drawn = uncertain(0.0).draw(4, generator=generator())
        r = bwm.rollout(
            drawn, torch.ones(3, 1), policy, horizon=3, particles=2, generator=generator(), fresh_worlds=fresh
        )
        if not fresh:
            exact = (drawn.parameters["a"] - 0.5)[:, None] ** torch.arange(1, 4)
            torch.testing.assert_close(r.particles[:, 0, 0, :, 0], exact)
    assert seen[:3] == [((4, 2, 3, 1), 0), ((4, 2, 3, 1), 1), ((4, 2, 3, 1), 2)]


def test_a_policy_and_the_same_plan_agree() -> None:
    plan = torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    by_plan = bwm.rollout(uncertain(), torch.ones(2, 1), plan, generator=generator())
    by_policy = bwm.rollout(uncertain(), torch.ones(2, 1), lambda x, t: plan[t], horizon=5, generator=generator())
    assert torch.equal(by_plan.particles, by_policy.particles)
    x = torch.ones(2, 5, 1, dtype=F64)
    torch.testing.assert_close(by_plan.log_score(x).value, by_policy.log_score(x).value)


def test_the_joint_density_under_a_policy_asks_it_at_each_start() -> None:
    """With a belief about the start, the first action depends on the particle."""
    belief = bwm.Gaussian(torch.ones(1, 1, 1, dtype=F64), torch.full((1,), 0.5, dtype=F64))
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=0.3)
    r = bwm.rollout(model, belief, lambda x, t: -0.5 * x, horizon=2, particles=4000, generator=generator())
    x = torch.tensor([[0.4], [0.3]], dtype=F64)
    score = r.log_score(x)
    first = torch.distributions.Normal(0.5, (0.25 * 0.25 + 0.09) ** 0.5).log_prob(x[0, 0])
    second = torch.distributions.Normal(0.2, 0.3).log_prob(x[1, 0])
    assert abs(float(score.value - first - second)) < 5 * float(score.standard_error)


def test_what_a_policy_may_not_return() -> None:
    for wrong, got in ((torch.zeros(1, 20, 2), r"\(1, 20, 2\)"), (torch.zeros(5, 1), r"\(5, 1\)"), ("left", "'left'")):
        with pytest.raises(bwm.DataError, match=rf"expected .*got {got} at step 0"):
            bwm.rollout(PENDULUM, torch.zeros(3, 2), lambda x, t, a=wrong: a, horizon=3, generator=generator())
    with pytest.raises(bwm.DataError, match=r"finite actions.*step 2"):
        bwm.rollout(
            PENDULUM,
            torch.zeros(2),
            lambda x, t: x[..., :1] * (float("nan") if t == 2 else 1.0),
            horizon=3,
            generator=generator(),
        )


QUIET = bwm.KnownDynamics(structure=Pendulum.gymnasium())


def random_policy(seed: int) -> Callable[[Tensor, int], Tensor]:
    g = generator(seed)
    return lambda x, t: torch.randn(*x.shape[:-1], 1, generator=g, dtype=x.dtype)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_random_policy_s_spread_is_in_the_variance(fresh: bool) -> None:
    """Torque u ~ N(0, 1) moves the velocity by 3 dt u / (m l^2) a step, and gravity brings little in 2 steps."""
    r = bwm.rollout(
        QUIET,
        torch.zeros(3, 2),
        random_policy(0),
        horizon=2,
        particles=4000,
        fresh_worlds=fresh,
        generator=generator(),
    )
    torch.testing.assert_close(r.variance, r.particles[0].var(0))
    first = torch.tensor([(3 * 0.05 * 0.05) ** 2, (3 * 0.05) ** 2], dtype=F64).expand(3, 2)
    # 4000 squares of a normal: relative error 2.2 %
    torch.testing.assert_close(r.variance[:, 0], first, rtol=0.12, atol=0)
    if not fresh:
        torch.testing.assert_close(r.aleatoric_variance, r.variance)
        assert float(r.epistemic_variance.abs().max()) == 0


def test_a_policy_that_does_not_draw_adds_no_variance() -> None:
    for policy in (lambda x, t: -x[..., 1:], lambda x, t: torch.ones(1)):
        r = bwm.rollout(QUIET, torch.ones(3, 2), policy, horizon=4, particles=5)
        assert float(r.variance.abs().max()) == 0
        assert r.laws[0].mean.shape[1] == 1  # the first law is exact
        assert float(r.log_score(r.mean).kernels.min()) == float("inf")


def test_one_particle_cannot_tell_whether_a_policy_draws() -> None:
    r = bwm.rollout(QUIET, torch.ones(2), lambda x, t: -x[..., 1:], horizon=2, particles=1)
    with pytest.warns(bwm.UndefinedWarning, match="under a policy"):
        assert bool(r.aleatoric_variance.isnan().all())
    shared = bwm.rollout(QUIET, torch.ones(2), lambda x, t: torch.ones(1), horizon=2, particles=1)
    assert float(shared.variance.abs().max()) == 0


def test_particles_of_a_belief_without_noise_are_a_spread() -> None:
    belief = bwm.Gaussian(torch.tensor([[[1.0], [2.0], [6.0]]], dtype=F64))
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE))
    r = bwm.rollout(model, belief, torch.zeros(2, 1), particles=3)
    assert r.variance[:, 0].tolist() == [7.0, 7.0]


@pytest.mark.statistical
def test_the_joint_density_averages_over_a_random_policy_s_actions() -> None:
    """x' = x + u + e with u ~ N(0, 1) drawn anew: the increments are N(0, 1 + 0.3^2)."""
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=0.3)
    r = bwm.rollout(model, torch.zeros(1), random_policy(1), horizon=2, particles=20000, generator=generator())
    x = torch.tensor([[0.5], [0.1]], dtype=F64)
    score = r.log_score(x)
    steps = torch.tensor([0.5, -0.4], dtype=F64)
    expected = torch.distributions.Normal(0.0, torch.tensor(1.09, dtype=F64).sqrt()).log_prob(steps).sum()
    assert 0 < float(score.standard_error) < 0.05
    assert abs(float(score.value - expected)) < 5 * float(score.standard_error)


def test_a_part_keeps_the_joint_density() -> None:
    drawn = uncertain().draw(4, generator=generator())
    goal = torch.tensor([[0.0], [1.0], [2.0]], dtype=F64)  # one for each row of the batch
    plan = torch.randn(3, 2, 5, 1, generator=generator(), dtype=F64)
    actions = {
        "plan": (plan, None),
        "policy": (lambda x, t: goal[:, None] - x, 5),
        "shared": (lambda x, t: goal[:1], 5),
    }
    belief = bwm.Gaussian(torch.ones(1, 1, 3, 2, 1, dtype=F64), torch.full((1,), 0.1, dtype=F64))
    for start in (torch.ones(3, 2, 1), belief):
        for action, horizon in actions.values():
            r = bwm.rollout(drawn, start, action, horizon=horizon, particles=6, generator=generator())
            x = r.particles[0, 0] + 0.01
            whole = r.log_score(x)
            for index in (1, slice(1, 3), torch.tensor([2, 0, 2])):
                part = r[index].log_score(x[index])
                for a, b in zip(part, whole, strict=True):
                    torch.testing.assert_close(a, b[index])
            torch.testing.assert_close(r[1:][1][0].log_score(x[2, 0]).value, whole.value[2, 0])
            torch.testing.assert_close(
                r[1].log_score(torch.stack((x[1], x[1] + 0.1))).value[1], r.log_score(x + 0.1).value[1]
            )


def test_a_system_without_actions_needs_none() -> None:
    free = Schema(state=[Variable("x")], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: 0.5 * x, schema=free))
    r = bwm.rollout(model, torch.ones(2, 1), horizon=3)
    assert r.mean[..., 0].tolist() == [[0.5, 0.25, 0.125]] * 2
    with pytest.raises(bwm.SpecError, match="horizon= where there are no actions"):
        bwm.rollout(model, torch.ones(2, 1))
    with pytest.raises(bwm.DataError, match=r"torque.*or a policy, got none"):
        bwm.rollout(PENDULUM, torch.zeros(2), horizon=3, generator=generator())


def test_a_seed_is_no_generator() -> None:
    with pytest.raises(bwm.SpecError, match=r"expected generator=torch\.Generator, got 0; make one"):
        bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), generator=0)
    r = bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), generator=generator())
    for wrong in (0, None):
        with pytest.raises(bwm.SpecError, match=r"expected generator=torch\.Generator"):
            r.sample(3, generator=wrong)


def test_what_does_not_fit_into_what_is_left_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3 x 8 bytes for each of 6,000 rows, 20 particles, 3 steps, 2 variables: 17.28 MB
    starts = torch.zeros(6000, 2)
    for left, fits in ((22_000_000, True), (21_000_000, False), (None, True)):
        monkeypatch.setattr(importlib.import_module("bayeswm.base.rollout"), "available_memory", lambda _, n=left: n)
        with nullcontext() if fits else pytest.raises(bwm.SpecError, match=r"needs 0\.0 GB of 0\.0 GB left"):
            bwm.rollout(PENDULUM, starts, torch.zeros(3, 1), generator=generator())
    refuse = importlib.import_module("bayeswm.base.rollout")
    monkeypatch.setattr(refuse, "available_memory", lambda _: pytest.fail("asked"))
    # what is small is not asked about: that takes as long as a small rollout
    bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), generator=generator())


def test_warnings_of_a_rollout_point_to_the_caller() -> None:
    with pytest.warns(bwm.DivergenceWarning) as caught:
        r = bwm.rollout(exploding(), torch.tensor([3.0]), torch.zeros(12, 1), particles=5, generator=generator())
    assert caught[0].filename == __file__
    asks = (lambda: r.mean, lambda: r.stddev, lambda: r.circular_mean(), lambda: r.interval(0.9))
    for ask in (*asks, lambda: r.cdf(torch.zeros(12, 1)), lambda: r.sample(3, generator=generator())):
        with pytest.warns(bwm.UndefinedWarning) as caught:
            ask()
        assert {w.filename for w in caught} == {__file__}


def test_context_static_or_by_step() -> None:
    schema = Schema(state=[Variable("x")], context=[Variable("wind")], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u, c: x + c, schema=schema))
    still = torch.zeros(4, 3, 0)
    one = bwm.rollout(model, torch.zeros(4, 1), still, context=torch.arange(4.0)[:, None])
    assert one.mean[:, -1, 0].tolist() == [0.0, 3.0, 6.0, 9.0]
    shared = bwm.rollout(model, torch.zeros(4, 1), still, context=torch.tensor([2.0]))
    assert shared.mean[:, -1, 0].tolist() == [6.0] * 4
    by_step = bwm.rollout(model, torch.zeros(4, 1), still, context=torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1))
    assert by_step.mean[0, :, 0].tolist() == [1.0, 11.0, 111.0]
    with pytest.raises(bwm.DataError, match="context= of 1 value"):
        bwm.rollout(model, torch.zeros(4, 1), still)
    with pytest.raises(bwm.DataError, match="context for 3 steps, got 2"):
        bwm.rollout(model, torch.zeros(4, 1), still, context=torch.zeros(4, 2, 1))
    with pytest.raises(bwm.DataError, match=r"context of shape \(4, 1\)"):
        bwm.rollout(model, torch.zeros(4, 1), still, context=torch.zeros(5, 1))
    with pytest.raises(bwm.DataError, match="finite context"):
        bwm.rollout(model, torch.zeros(4, 1), still, context=torch.full((1,), float("nan")))


def test_noise_replayed_gives_the_trajectory_back() -> None:
    drawn = uncertain().draw(3, generator=generator())
    step = torch.randn(3, 4, 2, 5, 1, generator=generator(1), dtype=F64)
    r = bwm.rollout(drawn, torch.ones(2, 1), torch.zeros(5, 1), particles=4, noise=Noise(step=step))
    x, a = torch.ones(3, 4, 2, dtype=F64), drawn.parameters["a"].view(3, 1, 1)
    for t in range(5):
        x = a * x + 0.1 * step[..., t, 0]
        torch.testing.assert_close(r.particles[..., t, 0], x)
    # what smooth finds is what was put in
    data = bwm.Trajectories(
        LINE,
        state=torch.cat((torch.ones(2, 1, 1, dtype=F64), r.particles[1, 0]), 1),
        action=torch.zeros(2, 5, 1, dtype=F64),
    )
    found, _ = drawn.smooth(data)
    assert found.step is not None
    torch.testing.assert_close(found.step[1, 0], step[1, 0])


def test_noise_of_the_wrong_shape_is_refused() -> None:
    for shape in ((1, 20, 4, 3, 1), (1, 3, 4, 5, 1), (1, 20, 4, 5, 2), (20, 4, 5, 1)):
        with pytest.raises(bwm.SpecError, match="expected step noise"):
            bwm.rollout(PENDULUM, torch.zeros(4, 2), torch.zeros(5, 1), noise=Noise(step=torch.zeros(shape)))
    with pytest.raises(bwm.SpecError, match="noise_batch"):
        bwm.rollout(PENDULUM, torch.zeros(4, 2), torch.zeros(5, 1), noise_batch=(3,), generator=generator())


def test_common_random_numbers() -> None:
    r = bwm.rollout(PENDULUM, torch.zeros(6, 2), torch.zeros(5, 1), noise_batch=(1,), generator=generator())
    assert bool((r.particles == r.particles[:, :, :1]).all())
    assert float(r.particles.std(1).min(0).values[0, -1, -1]) > 0
    independent = bwm.rollout(PENDULUM, torch.zeros(6, 2), torch.zeros(5, 1), generator=generator())
    assert bool((independent.particles[:, :, 0] != independent.particles[:, :, 1]).any())


@pytest.mark.parametrize("weights", [None, (0.7, 0.2, 0.1)])
def test_a_particle_keeps_its_identity_among_fresh_worlds(weights: tuple[float, ...] | None) -> None:
    """Whatever world it meets, a particle goes on from where it was."""
    drawn = uncertain(0.0).draw(3, generator=generator()).replace(a=torch.tensor([0.9, 1.0, 1.1]))
    if weights is not None:
        drawn = drawn.reweight(torch.tensor(weights).log())
    belief = bwm.Gaussian(torch.full((1, 1, 1), 100.0, dtype=F64), torch.full((1,), 30.0, dtype=F64))
    r = bwm.rollout(drawn, belief, torch.zeros(4, 1), particles=50, fresh_worlds=True, generator=generator())
    assert r.initial is not None
    path = torch.cat((r.initial.expand(3, 50, 1)[..., None, :], r.particles), -2)[..., 0]
    factor = path[..., 1:] / path[..., :-1]
    nearest = (factor[..., None] - drawn.parameters["a"]).abs().amin(-1)
    assert float(nearest.max()) < 1e-9
    changed = (factor[..., 1:] - factor[..., :-1]).abs() > 1e-6
    assert float(changed.double().mean()) > 0.3


@pytest.mark.parametrize("fresh", [False, True])
def test_gradients_equal_finite_differences_and_survive_checkpointing(fresh: bool) -> None:
    drawn = uncertain().draw(3, generator=generator())
    if fresh:
        drawn = drawn.reweight(torch.tensor([0.6, 0.3, 0.1]).log())

    def objective(plan: Tensor, start: Tensor, *, checkpoint: bool = False) -> Tensor:
        r = bwm.rollout(
            drawn, start, plan, particles=4, generator=generator(2), fresh_worlds=fresh, checkpoint=checkpoint
        )
        return (r.particles**2).mean() + r.variance.sum()

    plan = torch.linspace(-1, 1, 4, dtype=F64)[:, None].requires_grad_()
    start = torch.ones(2, 1, dtype=F64, requires_grad=True)
    grads = torch.autograd.grad(objective(plan, start), (plan, start))
    again = torch.autograd.grad(objective(plan, start, checkpoint=True), (plan, start))
    for a, b in zip(grads, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-14, rtol=1e-12)
    with torch.no_grad():
        for which, grad in zip((0, 1), grads, strict=True):
            for i in range(grad.numel()):
                step = torch.zeros(grad.numel(), dtype=F64)
                step[i] = 1e-5
                moved = [
                    objective(
                        plan + s * step.view(plan.shape) if which == 0 else plan,
                        start + s * step.view(start.shape) if which == 1 else start,
                    )
                    for s in (-1, 1)
                ]
                assert float(grad.flatten()[i]) == pytest.approx(float(moved[1] - moved[0]) / 2e-5, rel=1e-6, abs=1e-8)


def test_gradients_that_begin_late_lose_no_step() -> None:
    gain = torch.tensor(0.3, dtype=F64, requires_grad=True)

    def policy(state: Tensor, step: int) -> Tensor:
        return gain * state if step >= 2 else 0.0 * state

    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE))
    r = bwm.rollout(model, torch.ones(1, dtype=F64), policy, horizon=4, particles=1)
    torch.testing.assert_close(r.particles[0, 0, :, 0], torch.tensor([1.0, 1.0, 1.3, 1.69], dtype=F64))
    r.particles[..., -1, :].sum().backward()
    assert float(gain.grad) == pytest.approx(2 * 1.3)


def test_one_batch_equals_many() -> None:
    drawn = uncertain().draw(3, generator=generator())
    start = torch.randn(4, 1, generator=generator(), dtype=F64)
    plan = torch.randn(4, 5, 1, generator=generator(1), dtype=F64)
    step = torch.randn(3, 6, 4, 5, 1, generator=generator(2), dtype=F64)
    whole = bwm.rollout(drawn, start, plan, particles=6, noise=Noise(step=step))
    for i in range(4):
        one = bwm.rollout(drawn, start[i], plan[i], particles=6, noise=Noise(step=step[:, :, i]))
        torch.testing.assert_close(one.particles, whole.particles[:, :, i], atol=0, rtol=0)
        torch.testing.assert_close(one.variance, whole.variance[i])
        torch.testing.assert_close(whole[i].quantile(0.2), one.quantile(0.2))


def test_wrong_values_and_shapes() -> None:
    zero, plan = torch.zeros(2), torch.zeros(3, 1)
    for bad in (torch.tensor([float("nan"), 0.0]), torch.tensor([float("inf"), 0.0])):
        with pytest.raises(bwm.DataError, match="finite states"):
            bwm.rollout(PENDULUM, bad, plan, generator=generator())
    with pytest.raises(bwm.DataError, match="finite actions"):
        bwm.rollout(PENDULUM, zero, plan * float("nan"), generator=generator())
    with pytest.raises(bwm.DataError, match=r"angle.*velocity"):
        bwm.rollout(PENDULUM, torch.zeros(3), plan, generator=generator())
    with pytest.raises(bwm.DataError, match="torque"):
        bwm.rollout(PENDULUM, zero, torch.zeros(3, 2), generator=generator())
    with pytest.raises(bwm.DataError, match=r"\(4,\) and \(5,\)"):
        bwm.rollout(PENDULUM, torch.zeros(4, 2), torch.zeros(5, 3, 1), generator=generator())


def test_angles_stay_on_their_lift() -> None:
    """A pendulum that turns over and over is not folded back."""
    r = bwm.rollout(PENDULUM, torch.tensor([20.0, 8.0]), 2 * torch.ones(40, 1), generator=generator())
    assert r.initial is not None
    assert float(r.initial.max()) == 20.0
    assert float(r.mean[-1, 0]) > 20 + 2 * torch.pi
    wrapped = r.circular_mean()[:, 0]
    assert float(wrapped.abs().max()) <= torch.pi + 1e-9
    kernel = r.laws[0]
    assert float(torch.cos(wrapped[0] - kernel.mean[0, 0, 0])) == pytest.approx(1.0)


def test_diverged_particles_are_flagged_and_left_out() -> None:
    start = torch.tensor([[0.5], [1.0]], dtype=F64)  # the second one is on the edge: its noise decides
    with pytest.warns(bwm.DivergenceWarning, match="diverged"):
        r = bwm.rollout(exploding(), start, torch.zeros(40, 1), particles=60, generator=generator())
    gone = r.diverged[0, :, :, -1]
    assert not bool(gone[:, 0].any())
    assert 0 < int(gone[:, 1].sum()) < 60
    assert bool((r.diverged[..., 1:] >= r.diverged[..., :-1]).all())
    alive = r.particles[0, ~gone[:, 1], 1]
    torch.testing.assert_close(r.mean[1, -1, 0], (alive[:, -2, 0] ** 2).mean())
    assert bool(r.mean.isfinite().all())
    assert bool(r.variance.isfinite().all())
    assert bool(r.quantile(torch.tensor([0.05, 0.95])).isfinite().all())
    assert bool(r.cdf(r.mean).isfinite().all())
    samples = r.sample(200, generator=generator())
    assert bool(samples.isfinite().all())
    assert float(samples[:, 1, -1].max()) <= float(alive[:, -1].max())
    with pytest.raises(bwm.DataError, match="diverged"):
        r.expectation(lambda x: x[..., -1, 0])


def test_rows_in_which_everything_diverged_are_nan_with_a_warning() -> None:
    start = torch.tensor([[0.5], [3.0]], dtype=torch.float32)
    with pytest.warns(bwm.DivergenceWarning, match=r"50\.0%"):
        r = bwm.rollout(exploding(dtype=torch.float32), start, torch.zeros(12, 1), particles=5, generator=generator())
    answers = {
        "mean": lambda: r.mean,
        "variance": lambda: r.variance,
        "epistemic": lambda: r.epistemic_variance,
        "cdf": lambda: r.cdf(torch.zeros(2, 12, 1)),
        "quantile": lambda: r.quantile(0.5),
        "sample": lambda: r.sample(3, generator=generator())[0],
    }
    for name, ask in answers.items():
        with pytest.warns(bwm.UndefinedWarning):
            values = ask()
        assert bool(values[1, -1].isnan().all()), name
        assert bool(values[0].isfinite().all()), name


def test_memory_beyond_the_result_does_not_grow_with_the_horizon() -> None:
    """Noise is drawn step by step: the caller's generator moves on by one step's noise each time."""
    g, h = generator(7), generator(7)
    r = bwm.rollout(PENDULUM, torch.zeros(2), torch.zeros(3, 1), particles=4, generator=g)
    first = torch.randn(1, 4, 1, generator=h, dtype=F64)
    torch.testing.assert_close(r.particles[0, :, 0, 1], (r.laws[0].mean[..., 1:] + 0.05 * first)[0, :, 0])


def test_batch_of_size_zero() -> None:
    r = bwm.rollout(PENDULUM, torch.zeros(0, 2), torch.zeros(3, 1), generator=generator())
    assert r.mean.shape == (0, 3, 2)


@pytest.mark.statistical
def test_probability_of_an_event_with_its_error() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=1.0)
    values, errors = [], []
    for seed in range(200):
        r = bwm.rollout(model, torch.zeros(1), torch.zeros(4, 1), particles=100, generator=generator(seed))
        estimate = r.probability(lambda x: x[..., -1, 0] > 0)
        values.append(estimate.value)
        errors.append(estimate.standard_error)
    assert mean_p(torch.stack(values)[:, None], 0.5) > BUDGET
    # 200 values: the sd is known to 5 %
    assert float(torch.stack(values).std() / torch.stack(errors).mean()) == pytest.approx(1.0, abs=0.25)


def test_hidden_modes_meet_fresh_worlds_with_their_modes() -> None:
    worlds = hidden_mode_worlds()
    r = bwm.rollout(
        worlds, torch.zeros(3, 1, dtype=F64), torch.zeros(4, 1), fresh_worlds=True, particles=10, generator=generator()
    )
    assert r.particles.shape == (2, 10, 3, 4, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(r.variance.isfinite().all())


def test_a_rollout_of_measurements() -> None:
    """Same states, with what the sensors add; exact where nothing but the sensors is random."""
    worlds = bwm.KnownDynamics(
        structure=bwm.structures.Pendulum(),
        noise=0.1,
        sensor_noise={"angle": 0.5},
        belief={"velocity": torch.distributions.Normal(0.0, 1.0)},
    ).draw(1)
    start, plan = torch.zeros(3, 2), torch.ones(3, 4, 1)
    states = bwm.rollout(worlds, start, plan, particles=6, generator=torch.Generator().manual_seed(0))
    seen = bwm.rollout(worlds, start, plan, particles=6, generator=torch.Generator().manual_seed(0), of="measurement")
    assert seen.variables.names == ("angle",)
    assert seen.particles.shape == (1, 6, 3, 4, 1)
    assert seen.initial is not None
    assert seen.initial.shape[-1] == 1
    kernels = torch.stack([law.mean for law in seen.laws], -2)
    assert torch.equal(kernels[..., 0], states.particles[..., 0])
    assert seen.sample(5, generator=torch.Generator()).shape == (5, 3, 4, 1)
    with pytest.raises(bwm.SpecError, match="log_likelihood"):
        seen.log_prob(torch.zeros(3, 4, 1, dtype=torch.float64))
    law = bwm.rollout(
        bwm.KnownDynamics(structure=bwm.structures.Pendulum(), sensor_noise=0.5),
        start,
        plan,
        particles=2,
        generator=torch.Generator(),
        of="measurement",
    )
    torch.testing.assert_close(law.variance, torch.full((3, 4, 2), 0.25, dtype=torch.float64))
    empty = bwm.rollout(worlds, start, plan[:, :0], particles=2, of="measurement")
    assert empty.particles.shape == (1, 2, 3, 0, 1)
    with pytest.raises(bwm.SpecError, match="of='state' or 'measurement'"):
        bwm.rollout(worlds, start, plan, of="function")
    with pytest.raises(bwm.SpecError, match="sensor noise is drawn"):
        bwm.rollout(worlds, start, plan, particles=1, of="measurement", noise=Noise(step=torch.zeros(1, 1, 3, 4, 2)))


def test_measurements_of_a_measured_state_are_the_state() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    first, second = (
        bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator().manual_seed(0), of=of)
        for of in ("state", "measurement")
    )
    assert torch.equal(first.particles, second.particles)
    assert second.log_prob(second.mean).isfinite()


def test_worlds_may_map_the_finished_answer():
    class Shifted(bwm.StructureWorlds):
        def finish(self, predictive):
            laws = [bwm.Gaussian(law.mean + 1, law.spread) for law in predictive.laws]
            return predictive.mapped(laws, particles=predictive.particles + 1)

    plain = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1).draw(1)
    shifted = Shifted(plain.structure, plain.schema, plain.parameters, exhaustive=True)
    one, other = (
        bwm.rollout(w, torch.zeros(2), torch.zeros(3, 1), generator=torch.Generator().manual_seed(0))
        for w in (plain, shifted)
    )
    # only the answer is shifted, not what later steps start from
    assert torch.equal(other.particles, one.particles + 1)
    assert torch.allclose(other.mean, one.mean + 1)


def test_one_law_of_the_start_under_many_plans() -> None:
    factor = torch.tensor([[0.1, 0.0], [0.05, 0.2]], dtype=F64)
    belief = bwm.MultivariateGaussian(torch.zeros(1, 1, 2, dtype=F64), factor)
    plans = torch.zeros(2, 3, 4, 1)
    r = bwm.rollout(PENDULUM, belief, plans, particles=5, generator=generator())
    wide = bwm.MultivariateGaussian(torch.zeros(1, 1, 2, 3, 2, dtype=F64), factor)
    same = bwm.rollout(PENDULUM, wide, plans, particles=5, generator=generator())
    assert r.particles.shape == (1, 5, 2, 3, 4, 2)
    assert torch.equal(r.particles, same.particles)
