import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.errors import FitError, SpecError, SupportWarning
from bayeswm.causal import policy_value
from tests.causal.confounded_logs import known
from tests.causal.reference_models import line

# s' = 0.8 s + 0.5 a + 0.5 w from s ~ N(0, 1); the log's a = -0.2 s + e, the judged a = 0.3 - 0.5 s + 0.8 e
SYSTEM = {"A": 0.8, "B": 0.5, "noise": 0.5}
OBJECTIVE = bwm.planning.quadratic(torch.tensor([1.0]), torch.tensor([0.1]))


def policy(state: Tensor, step: int) -> bwm.Gaussian:
    return bwm.Gaussian(0.3 - 0.5 * state, torch.full_like(state, 0.8))


def chosen(state: Tensor, step: int) -> bwm.Gaussian:
    return bwm.Gaussian(-0.2 * state, torch.ones_like(state))


def truth(steps: int) -> float:
    """The expected return -sum s^2 + 0.1 a^2 of the judged policy, by recursion of mean and variance."""
    mean, variance, total = 0.0, 1.0, 0.0
    for _ in range(steps):
        total -= mean**2 + variance + 0.1 * ((0.3 - 0.5 * mean) ** 2 + 0.25 * variance + 0.64)
        mean, variance = 0.55 * mean + 0.15, 0.55**2 * variance + 0.25 * 0.64 + 0.25
    return total


def log_of(episodes: int, steps: int, *, generator: torch.Generator) -> bwm.Trajectories:
    def act(state: Tensor, step: int) -> Tensor:
        return -0.2 * state + torch.randn(state.shape, generator=generator, dtype=state.dtype)

    starts = torch.randn(episodes, 1, generator=generator, dtype=torch.float64)
    return bwm.data.simulate(known(**SYSTEM), starts, act, horizon=steps, generator=generator)


def stage_only() -> bwm.planning.Objective:
    return bwm.planning.Objective(stage=lambda s, a, c, t: s[..., 0] ** 2 + 0.1 * a[..., 0] ** 2)


def off(found: bwm.causal.PolicyValue, estimator: str, steps: int) -> float:
    """How many standard errors an estimate is from the exact value."""
    row = found.dataset.sel(estimator=estimator)
    return float((row["value"] - truth(steps)) / row["standard_error"])


@pytest.mark.statistical
def test_a_wrong_model_does_no_harm_where_the_behaviour_is_right(generator: torch.Generator) -> None:
    log = log_of(4000, 3, generator=generator)
    wrong = known(A=0.3, B=-0.5, noise=1.0)
    for behaviour in (None, chosen):
        found = policy_value(
            wrong, policy, log, objective=stage_only(), behaviour=behaviour, particles=4, generator=generator
        )
        assert abs(off(found, "model", 3)) > 20
        for estimator in ("weighted_doubly_robust", "doubly_robust", "importance_sampling"):
            assert abs(off(found, estimator, 3)) < 4.5
        # E[w] = 1; its error from the effective sample size
        mean, ess = found.dataset.mean_weight.values, found.dataset.effective_episodes.values
        assert (abs(mean - 1) < 4.5 * (1 / ess) ** 0.5).all()


@pytest.mark.statistical
def test_a_wrong_behaviour_does_no_harm_where_the_model_is_right(generator: torch.Generator) -> None:
    log = log_of(4000, 3, generator=generator)

    def wrong(state: Tensor, step: int) -> bwm.Gaussian:
        return bwm.Gaussian(0.4 + 0 * state, torch.full_like(state, 1.2))

    found = policy_value(
        known(**SYSTEM), policy, log, objective=stage_only(), behaviour=wrong, particles=4, generator=generator
    )
    assert abs(off(found, "importance_sampling", 3)) > 6
    for estimator in ("weighted_doubly_robust", "doubly_robust"):
        assert abs(off(found, estimator, 3)) < 4.5


def test_the_model_takes_most_of_the_variance_out(generator: torch.Generator) -> None:
    log = log_of(500, 4, generator=generator)
    found = policy_value(known(**SYSTEM), policy, log, objective=stage_only(), generator=generator)
    error = found.dataset.standard_error
    variance = (error**2).to_series()
    assert variance["doubly_robust"] < 0.5 * variance["importance_sampling"]
    assert found.interval[0] < found.value < found.interval[1]
    assert found.standard_error == error.values[0]
    assert "effective of 500" in repr(found)


@pytest.mark.slow
@pytest.mark.statistical
def test_intervals_cover_and_errors_are_standard(generator: torch.Generator) -> None:
    count, level = 300, 0.9
    inside, z = {"weighted_doubly_robust": 0, "doubly_robust": 0}, list[float]()
    for _ in range(count):
        log = log_of(200, 2, generator=generator)
        found = policy_value(
            known(**SYSTEM), policy, log, objective=stage_only(), particles=5, folds=2, level=level, generator=generator
        )
        z.append(off(found, "doubly_robust", 2))
        for name in inside:
            row = found.dataset.sel(estimator=name)
            inside[name] += int(row.lower <= truth(2) <= row.upper)
    for hits in inside.values():
        assert abs(hits / count - level) < 4.4172 * math.sqrt(level * (1 - level) / count)
    assert abs(sum(z) / math.sqrt(count)) < 4.4172


def test_a_fitted_model_and_a_terminal_cost(generator: torch.Generator) -> None:
    """A terminal cost counts once, at the end: -(0.9^2) E s_2^2 with the discount 0.9."""
    log = log_of(600, 2, generator=generator)
    structure = bwm.structures.Linear(line(), A=Normal(0.0, 1.0), B=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate(draws=100), noise=0.5)
    objective = bwm.planning.Objective(terminal=lambda s, c: s[..., 0] ** 2, discount=0.9)
    found = policy_value(model, policy, log, objective=objective, generator=generator)
    mean, variance = 0.0, 1.0
    for _ in range(2):
        mean, variance = 0.55 * mean + 0.15, 0.55**2 * variance + 0.41
    assert abs(found.value + 0.81 * (mean**2 + variance)) < 4.5 * found.standard_error
    assert found.standard_error < 0.2


@pytest.mark.statistical
def test_context_is_part_of_the_log(generator: torch.Generator) -> None:
    """s' = 0.8 s + 0.5 a + c + 0.5 w, where the log's a = c + e: without c, neither model nor behaviour is right."""
    schema = bwm.Schema(
        state=[bwm.Variable("s")], action=[bwm.Variable("a")], context=[bwm.Variable("c")], time_step=1.0
    )
    system = bwm.KnownDynamics(
        structure=bwm.structures.FromFunction(lambda s, a, c: 0.8 * s + 0.5 * a + c, schema=schema), noise=0.5
    )
    starts, c = (torch.randn(1500, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    tried = c[:, None] + torch.randn(1500, 2, 1, generator=generator, dtype=torch.float64)
    log = bwm.data.simulate(system, starts, tried, context=c, generator=generator)
    found = policy_value(system, policy, log, objective=stage_only(), particles=4, generator=generator)
    total = -1.0 - 0.1 * (0.3**2 + 0.25 + 0.64)
    variance = 0.55**2 + 0.41 + 1.0
    total -= 0.15**2 + variance + 0.1 * ((0.3 - 0.5 * 0.15) ** 2 + 0.25 * variance + 0.64)
    for estimator in found.dataset.estimator.values:
        row = found.dataset.sel(estimator=estimator)
        assert abs(row["value"] - total) < 4.5 * row["standard_error"]


def test_policies_far_from_the_log_are_refused(generator: torch.Generator) -> None:
    log = log_of(60, 6, generator=generator)

    def far(state: Tensor, step: int) -> bwm.Gaussian:
        return bwm.Gaussian(6.0 + 0 * state, torch.full_like(state, 0.1))

    def bold(state: Tensor, step: int) -> bwm.Gaussian:
        return bwm.Gaussian(0.6 - 0.2 * state, torch.full_like(state, 0.8))

    query = {"objective": OBJECTIVE, "generator": generator, "particles": 2}
    with pytest.raises(FitError, match="effective episodes, the weights leave"):
        policy_value(known(**SYSTEM), far, log, **query)
    with pytest.warns(SupportWarning, match="effective episodes of 60 at step"):
        policy_value(known(**SYSTEM), bold, log, horizon=4, **query)


def test_certain_policies_are_refused(generator: torch.Generator) -> None:
    log = log_of(20, 2, generator=generator)
    query = {"objective": OBJECTIVE, "generator": generator}
    with pytest.raises(SpecError, match="law of an action"):
        policy_value(known(**SYSTEM), lambda state, step: -state, log, **query)
    with pytest.raises(SpecError, match="at random"):
        policy_value(known(**SYSTEM), lambda state, step: bwm.Gaussian(-state), log, **query)


def test_objectives_have_a_cost():
    system = known(A=0.8, B=0.5, noise=0.5)
    log = bwm.Trajectories(system.schema, state=torch.zeros(3, 3, 1), action=torch.zeros(3, 2, 1))
    with pytest.raises(bwm.SpecError, match="objective= with cost"):
        policy_value(
            system,
            lambda state, step: bwm.Gaussian(state, torch.ones_like(state)),
            log,
            objective=lambda state: state,  # pyright: ignore[reportArgumentType]
            generator=torch.Generator().manual_seed(0),
        )
