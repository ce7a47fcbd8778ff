"""Filtering along windows against dense algebra, its gradient, and windows of different length."""

import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.inference.filtering import Filter, first_belief, window_log_likelihood
from bayeswm.inference.gaussian_belief import Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from tests.inference.dense import solve

WORLDS, ROWS, STEPS, SIZE = 3, 4, 7, 3
COLUMNS = (2, 0)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


A = 0.5 * normal(WORLDS, SIZE, SIZE, seed=1) + 0.5 * torch.eye(SIZE, dtype=torch.float64)
B = normal(WORLDS, SIZE, 1, seed=2)
ACTIONS = normal(ROWS, STEPS, 1, seed=3)
MEASURED = normal(ROWS, STEPS + 1, 2, seed=4)
MISSING = torch.rand(MEASURED.shape, generator=torch.Generator().manual_seed(5)) < 0.4
MEAN, SCALE = normal(SIZE, seed=6), 0.2 + normal(SIZE, seed=7).abs()
NOISE, SENSOR = 0.1 + normal(WORLDS, SIZE, seed=8).abs(), 0.1 + normal(WORLDS, 2, seed=9).abs()


def linear(a: Tensor, b: Tensor):
    def transition(states: Tensor, action: Tensor, _context: Tensor, _step: int) -> tuple[Tensor, None]:
        lead = (len(a), *(1,) * (states.ndim - 2))
        moved = (a.view(*lead, SIZE, SIZE) @ states[..., None])[..., 0]
        return moved + (b.view(*lead, SIZE, 1) @ action[..., None])[..., 0], None

    return transition


def likelihood(method: Filter, measured: Tensor, **changes: Tensor | None) -> Tensor:
    given = {"a": A, "b": B, "mean": MEAN, "scale": SCALE, "noise": NOISE, "sensor": SENSOR, "actions": ACTIONS}
    given |= changes
    return window_log_likelihood(
        method,
        linear(given["a"], given["b"]),
        initial_mean=given["mean"],
        initial_scale=given["scale"],
        measurements=measured,
        actions=given["actions"],
        context=torch.zeros(len(measured), STEPS, 0, dtype=torch.float64),
        process_noise=given["noise"],
        sensors=Sensors(COLUMNS, given["sensor"]),
    )


def exact(measured: Tensor, w: int, i: int, *, noise: Tensor = NOISE, scale: Tensor = SCALE) -> Tensor:
    return solve(
        A[w],
        (B[w] @ ACTIONS[i].mT).mT,
        start=(MEAN, scale.square().diag()),
        noise=noise[w],
        columns=COLUMNS,
        sensor=SENSOR[w],
        measured=measured,
    ).log_density


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("method", [LinearGaussian(), Unscented()])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_likelihood_equals_dense_algebra(missing: bool, method: Filter, noise: float) -> None:
    """Also without process noise, where only the start is uncertain."""
    measured = torch.where(MISSING, float("nan"), MEASURED) if missing else MEASURED
    found = likelihood(method, measured, noise=noise * NOISE)
    assert found.shape == (WORLDS, ROWS)
    for w in range(WORLDS):
        for i in range(ROWS):
            expected = exact(measured[i], w, i, noise=noise * NOISE)
            # dense algebra without process noise inverts matrices of condition 1e4 or so
            torch.testing.assert_close(found[w, i], expected, atol=1e-8, rtol=1e-10)


def test_windows_of_different_length_equal_each_alone() -> None:
    """NaN actions after the end of a window reach nothing."""
    measured, actions = MEASURED.clone(), ACTIONS.clone()
    measured[1, 4:], actions[1, 3:] = float("nan"), float("nan")
    found = likelihood(Unscented(), measured, actions=actions)
    for w in range(WORLDS):
        short = solve(
            A[w],
            (B[w] @ ACTIONS[1, :3].mT).mT,
            start=(MEAN, SCALE.square().diag()),
            noise=NOISE[w],
            columns=COLUMNS,
            sensor=SENSOR[w],
            measured=MEASURED[1, :4],
        )
        torch.testing.assert_close(found[w, 1], short.log_density, atol=1e-8, rtol=0)
        torch.testing.assert_close(found[w, 0], exact(MEASURED[0], w, 0), atol=1e-8, rtol=0)


@pytest.mark.parametrize("method", [LinearGaussian(), Unscented()])
@pytest.mark.parametrize("noise", [1.0, 0.0])
def test_gradient_agrees_with_finite_differences(method: Filter, noise: float) -> None:
    measured = torch.where(MISSING, float("nan"), MEASURED)
    measured[2, 5:] = float("nan")
    inputs = [v.clone().requires_grad_() for v in (A, SENSOR, MEAN, SCALE, noise * NOISE)]

    def of(a: Tensor, sensor: Tensor, mean: Tensor, scale: Tensor, q: Tensor) -> Tensor:
        return likelihood(method, measured, a=a, sensor=sensor, mean=mean, scale=scale, noise=q)

    if noise == 0:  # at 0 the derivative by a standard deviation is 0, and its sides do not differ
        inputs[-1] = inputs[-1].detach()
    assert torch.autograd.gradcheck(of, inputs, atol=1e-6, rtol=1e-5)


def test_gradient_of_a_pendulum_agrees_with_finite_differences() -> None:
    structure = bwm.structures.Pendulum(time_step=0.1)
    values = {k: torch.as_tensor(p.value).double() for k, p in structure.parameters().items()}
    torque, angle = normal(2, 6, 1, seed=1), 0.5 * normal(2, 7, 1, seed=2)

    def of(mass: Tensor, damping: Tensor, process: Tensor, sensor: Tensor) -> Tensor:
        parameters = {k: v.expand(2) for k, v in values.items()} | {"mass": mass, "damping": damping}
        return window_log_likelihood(
            Unscented(),
            lambda x, a, c, t: structure.batched(parameters, x, a, c, t),
            initial_mean=torch.zeros(2, dtype=torch.float64),
            initial_scale=torch.tensor([math.inf, 2.0], dtype=torch.float64),
            measurements=angle,
            actions=torque,
            context=torch.zeros(2, 6, 0, dtype=torch.float64),
            process_noise=process,
            sensors=Sensors((0,), sensor),
        )

    given = ([1.0, 1.3], [0.1, 0.4], [[0.01, 0.1], [0.02, 0.3]], [[0.05], [0.1]])
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in given]
    assert torch.autograd.gradcheck(of, inputs, atol=1e-6, rtol=1e-5)


def test_no_process_noise_and_a_dying_mode_stay_finite() -> None:
    """Output-error models: one direction is forgotten (0.01^30) while the other stays as it was."""
    decay = torch.tensor([0.01, 1.0], dtype=torch.float64, requires_grad=True)
    sensor = torch.full((1, 2), 0.1, dtype=torch.float64, requires_grad=True)
    for method in (LinearGaussian(), Unscented()):
        found = window_log_likelihood(
            method,
            lambda x, *_: (x * decay, None),
            initial_mean=torch.zeros(2, dtype=torch.float64),
            initial_scale=torch.ones(2, dtype=torch.float64),
            measurements=normal(5, 31, 2, seed=0),
            actions=torch.zeros(5, 30, 0, dtype=torch.float64),
            context=torch.zeros(5, 30, 0, dtype=torch.float64),
            process_noise=None,
            sensors=Sensors((0, 1), sensor),
        )
        gradients = torch.autograd.grad(found.sum(), (decay, sensor))
        assert bool(found.isfinite().all())
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_a_flat_prior_is_the_limit_of_a_wide_one() -> None:
    """The density of the first measurement, N(y; m, wide^2), is left out; the rest differs by about (1 / wide)^2."""
    wide = torch.tensor([1e6, SCALE[1], 1e6], dtype=torch.float64)
    flat = torch.where(wide == 1e6, math.inf, wide)
    first = -0.5 * math.log(2 * math.pi) - math.log(1e6)
    torch.testing.assert_close(
        likelihood(LinearGaussian(), MEASURED, scale=flat),
        likelihood(LinearGaussian(), MEASURED, scale=wide) - 2 * first,
        atol=1e-6,
        rtol=0,
    )


def test_a_flat_prior_needs_a_first_measurement() -> None:
    measured = MEASURED.clone()
    measured[1, 0, 0] = float("nan")  # of column 2
    with pytest.raises(bwm.DataError, match="first measurement of state column 2"):
        likelihood(LinearGaussian(), measured, scale=torch.tensor([1.0, 1.0, math.inf]).double())
    with pytest.raises(bwm.DataError, match="state column 1"):
        first_belief(MEAN, torch.full((3,), math.inf), measured=MEASURED[:, 0], sensors=Sensors(COLUMNS, SENSOR))


@pytest.mark.parametrize("given", [None, 0.0 * NOISE])
def test_a_transitions_own_noise_is_used_where_none_is_given(given: Tensor | None) -> None:
    """That there is none is something given, too."""

    def own(states: Tensor, action: Tensor, context: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return linear(A, B)(states, action, context, step)[0], NOISE[:, None, None, None]

    found = window_log_likelihood(
        Unscented(),
        own,
        initial_mean=MEAN,
        initial_scale=SCALE,
        measurements=MEASURED,
        actions=ACTIONS,
        context=torch.zeros(ROWS, STEPS, 0, dtype=torch.float64),
        process_noise=given,
        sensors=Sensors(COLUMNS, SENSOR),
    )
    torch.testing.assert_close(
        found, likelihood(Unscented(), MEASURED, noise=NOISE if given is None else given), atol=1e-9, rtol=0
    )
