"""Leave-one-out and leave-future-out against the exact answers for a random walk with a normal drift."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import DataError, EstimateWarning, SpecError, UndefinedWarning
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import leave_future_out, loo
from bayeswm.diagnostics.cross_validation import stepwise_log_likelihood
from bayeswm.inference import Conjugate
from bayeswm.structures import Linear

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=1.0)
NOISE = torch.tensor([0.5, 2.0], dtype=F64)
# A density averaged over n draws, whose coefficient of variation is below 1 here: 4 standard errors of its logarithm.
DRAWS = 4000
ERROR = 4 / math.sqrt(DRAWS)


def walk(*, episodes: int = 5, steps: int = 12) -> bwm.Trajectories:
    change = torch.tensor([0.4, -1.0]) + NOISE * torch.randn(episodes, steps, 2, generator=make_generator(4), dtype=F64)
    state = torch.cat((torch.zeros(episodes, 1, 2, dtype=F64), change.cumsum(1)), 1)
    return bwm.Trajectories(SCHEMA, state=state, lengths=[*[steps] * (episodes - 1), steps - 4])


def model(draws: int = DRAWS) -> bwm.BayesianDynamics:
    """x' = x + c + noise with c ~ N(0, 1): given changes with sum s and number n, c ~ N(s / v, 1 / v) of v = n + 1."""
    drift = Linear(SCHEMA, A=torch.eye(2, dtype=F64), c=Normal(torch.zeros(2, dtype=F64), 1.0))
    return bwm.BayesianDynamics(
        structure=drift, noise=dict(zip("xy", NOISE.tolist(), strict=True)), inference=Conjugate(draws=draws)
    )


def changes(data: bwm.Trajectories) -> Tensor:
    return data.states()[:, 1:] - data.states()[:, :-1]


def predicted(given: Tensor, new: Tensor) -> Tensor:
    """Log density of changes (2,) given others (n, 2), by column."""
    variance = 1 / (1 + len(given) / NOISE**2)
    mean = variance * given.sum(0) / NOISE**2
    return Normal(mean, (variance + NOISE**2).sqrt(), validate_args=False).log_prob(new)  # NaN stays NaN


@pytest.mark.statistical
def test_leaving_out_transitions_has_its_exact_answer() -> None:
    data = walk()
    found = loo(model().fit(data, seed=0, progress=False))
    every = changes(data)[data.step_mask]
    rest = torch.arange(len(every))
    exact = torch.stack([predicted(every[rest != i], new) for i, new in enumerate(every)])
    for name, each in (("x", exact[:, 0]), ("y", exact[:, 1]), ("joint", exact.sum(1))):
        one = found.sel(variable=name)
        np.testing.assert_allclose(one["elpd_i"], each, atol=ERROR)
        assert float(one["elpd"]) == pytest.approx(float(each.sum()), abs=ERROR * math.sqrt(len(each)))
        assert float(one["se_parts"]) == pytest.approx(float(each.std(correction=0)) * math.sqrt(len(each)), rel=0.02)
    assert found["step"].values.tolist()[:3] == [0, 1, 2]
    assert found.attrs["above_good_k"] == 0


@pytest.mark.statistical
def test_leaving_out_recordings_asks_another_question() -> None:
    data = walk(episodes=8, steps=6)
    found = loo(model().fit(data, seed=0, progress=False), whole_recordings=True)
    assert found["elpd_i"].sel(variable="x").dims == ("episode",)
    every, exact = changes(data), list[Tensor]()
    for i in range(8):
        given = torch.cat([every[j][data.step_mask[j]] for j in range(8) if j != i])
        total = torch.zeros(2, dtype=F64)
        for new in every[i][data.step_mask[i]]:
            total, given = total + predicted(given, new), torch.cat((given, new[None]))
        exact.append(total)
    # whole episodes weigh more than single changes: the weights are worth a quarter of the draws at least
    np.testing.assert_allclose(found["elpd_i"].sel(variable="joint"), torch.stack(exact).sum(1), atol=2 * ERROR)


def test_few_draws_that_decide_are_said() -> None:
    # the sixth change is 12 standard deviations away
    state = torch.tensor([0.0, 0, 0, 0, 0, 0, 6, 6, 6], dtype=F64).view(1, -1, 1).repeat(5, 1, 2)
    state[1:] = 0
    fitted = model(draws=400).fit(bwm.Trajectories(SCHEMA, state=state), seed=0, progress=False)
    with pytest.warns(EstimateWarning, match="Pareto k are above"):
        assert loo(fitted).attrs["above_good_k"] > 0


# few draws of few data: the formula of the error holds all the same
@pytest.mark.filterwarnings("ignore:.*Pareto k are above:bayeswm.base.errors.EstimateWarning")
@pytest.mark.parametrize("whole", [False, True])
def test_the_error_of_the_sum_is_that_of_recordings(whole: bool) -> None:
    """Recordings of different lengths: sums of the deviations from the mean of all parts, by hand."""
    data = walk(episodes=6)
    found = loo(model(draws=400).fit(data, seed=0, progress=False), whole_recordings=whole).sel(variable="joint")
    each, episode = found["elpd_i"].values, found["episode"].values
    left = np.array([(each[episode == n] - each.mean()).sum() for n in range(6)])
    assert float(found["se"]) == pytest.approx(math.sqrt(6 / 5 * (left**2).sum()), rel=1e-9)
    if whole:
        assert float(found["se"]) == pytest.approx(float(found["se_parts"]), rel=1e-9)


def test_the_error_of_the_future_is_that_of_recordings() -> None:
    found = leave_future_out(model(draws=400), walk(episodes=6), first=9, draws=400)
    each = found["elpd_i"].values[:, :5]  # the sixth has ended
    left = (each - each.mean()).sum(0)
    assert found.attrs["se"] == pytest.approx(math.sqrt(5 / 4 * (left**2).sum()), rel=1e-9)
    steps = found["elpd"].values
    assert found.attrs["se_steps"] == pytest.approx(steps.std(ddof=1) * math.sqrt(len(steps)), rel=1e-9)


# few draws of few data: the formula of the error holds all the same
@pytest.mark.filterwarnings("ignore:.*Pareto k are above:bayeswm.base.errors.EstimateWarning")
def test_a_single_recording_has_no_error_between_recordings() -> None:
    data = walk(episodes=1, steps=12)
    with pytest.warns(UndefinedWarning, match="one recording"):
        found = loo(model(draws=400).fit(data, seed=0, progress=False))
    assert bool(found["se"].isnull().all())
    assert bool(found["se_parts"].notnull().all())
    with pytest.warns(EstimateWarning, match="rest on 2 recordings only"):
        assert leave_future_out(model(), walk(episodes=2), first=4, draws=100).attrs["se"] > 0


# few draws of few data: the formula of the error holds all the same
@pytest.mark.filterwarnings("ignore:.*Pareto k are above:bayeswm.base.errors.EstimateWarning")
def test_windows_do_not_say_which_recording_they_are_of() -> None:
    drift = Linear(SCHEMA, A=torch.eye(2, dtype=F64), c=Normal(torch.zeros(2, dtype=F64), 1.0))
    windows = bwm.BayesianDynamics(structure=drift, noise=0.5, inference=bwm.inference.Laplace(draws=200), window=4)
    with pytest.warns(UndefinedWarning, match="which recording a part is of"):
        found = loo(windows.fit(walk(), seed=0, progress=False))
    assert bool(found["se"].isnull().all())


@pytest.mark.statistical
@pytest.mark.parametrize(("largest_k", "fits"), [(-math.inf, 9), (0.7, None)])
def test_leaving_out_the_future_has_its_exact_answer(largest_k: float, fits: int | None) -> None:
    data = walk()
    found = leave_future_out(model(), data, first=3, draws=DRAWS, largest_k=largest_k)
    assert found["step"].values.tolist() == list(range(3, 12))
    every = changes(data)
    for t in range(3, 12):
        given = every[:, :t].reshape(-1, 2)
        given = given[~given.isnan().any(-1)]
        exact = torch.stack([predicted(given, every[n, t]).sum() for n in range(5)])
        # weights are renewed when k > 0.7; until then they are worth a tenth of the draws or more
        error = ERROR if fits else math.sqrt(10) * ERROR
        np.testing.assert_allclose(found["elpd_i"].sel(step=t), exact, atol=error, equal_nan=True)
    assert found.attrs["elpd"] == pytest.approx(float(found["elpd_i"].sum()))
    if fits:
        assert found.attrs["fits"] == fits
    else:
        assert found.attrs["fits"] < 9
        assert not bool(found["refitted"].all())
        assert float(found["pareto_k"].max()) <= 0.7


def test_steps_ahead_are_predicted_together() -> None:
    data = walk(episodes=1)[0]
    data = bwm.Trajectories(SCHEMA, state=data.states(), lengths=data.lengths)
    with pytest.warns(UndefinedWarning, match="one recording"):
        found = leave_future_out(model(), data, first=4, ahead=3, largest_k=-math.inf, draws=DRAWS)
    every, total = changes(data)[0], torch.zeros((), dtype=F64)
    for k in range(3):
        total = total + predicted(every[: 4 + k], every[4 + k]).sum()
    assert found["step"].values.tolist() == list(range(4, data.horizon - 2))
    assert float(found["elpd"].sel(step=4)) == pytest.approx(float(total), abs=ERROR * 3)  # three steps
    assert math.isnan(found.attrs["se"])
    assert math.isfinite(found.attrs["se_steps"])


def test_a_hidden_state_is_filtered() -> None:
    known = bwm.KnownDynamics(
        structure=Linear(SCHEMA, A=torch.eye(2, dtype=F64)), noise=0.5, sensor_noise={"x": 0.1, "y": 0.2}
    )
    data = walk()
    each = stepwise_log_likelihood(known.draw(1), data)
    assert each.shape == (1, 5, 12)
    assert bool((each[0, -1, 8:] == 0).all())
    # after the first measurement x ~ N(m, s^2), so that the next differs by N(0, 2 s^2 + q^2)
    scale = (2 * torch.tensor([0.1, 0.2], dtype=F64) ** 2 + 0.25).sqrt()
    exact = Normal(0.0, scale).log_prob(changes(data)[:, 0]).sum(-1)
    torch.testing.assert_close(each[0, :, 0], exact)
    found = leave_future_out(known, data, first=3, draws=5)
    assert found.attrs["fits"] == 1
    assert found.attrs["elpd"] == pytest.approx(float(each[:, :, 3:].sum()))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="at least 13 steps, the longest has 12"):
        leave_future_out(model(), walk(), first=12)
    with pytest.raises(SpecError, match="first >= 1"):
        leave_future_out(model(), walk(), first=0)
    with pytest.raises(SpecError, match="gives none"):
        loo(bwm.KnownDynamics(structure=Linear(SCHEMA, A=torch.eye(2), c=Normal(torch.zeros(2), 1.0))))
