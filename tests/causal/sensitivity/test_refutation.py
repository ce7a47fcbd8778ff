import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import negative_control, placebo_treatment
from tests.causal.confounded_logs import confounded_log, known
from tests.causal.reference_models import line

QUERY = {"horizon": 2, "worlds": 8, "particles": 1}


def regression(schema: bwm.Schema) -> bwm.BayesianDynamics:
    """Bayesian linear regression of the next state on state and action, flat enough not to matter."""
    s, a = schema.state.size, schema.action.size
    structure = bwm.structures.Linear(schema, A=Normal(torch.zeros(s, s), 10.0), B=Normal(torch.zeros(s, a), 10.0))
    return bwm.BayesianDynamics(structure=structure, inference=bwm.inference.Conjugate(draws=50), noise=1.0)


def test_shuffled_actions_have_no_effect(generator: torch.Generator) -> None:
    log = confounded_log(100, 5, generator=generator)
    found = placebo_treatment(
        regression(line()),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        generator=generator,
        **QUERY,
    )
    assert found.passed
    assert "placebo treatment: passed" in repr(found)
    # the regression's own: 1.00, and 1.05 + 1.00 over two steps
    assert found.dataset.original.values.ravel() == pytest.approx([1.0, 2.05], abs=0.2)
    assert abs(found.dataset.effect).max() < 0.1
    assert ((found.dataset.lower < found.dataset.effect) & (found.dataset.effect < found.dataset.upper)).all()


def test_an_effect_that_is_not_from_the_data_is_found(generator: torch.Generator) -> None:
    log = confounded_log(20, 5, generator=generator)
    found = placebo_treatment(
        known(A=0.9, B=0.5, noise=1.0),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        generator=generator,
        **QUERY,
    )
    assert not found.passed
    assert found.p_value == 0
    assert found.dataset.effect.values.ravel().tolist() == pytest.approx([0.5, 0.95])


def two_outcomes(*, confounded: bool, generator: torch.Generator) -> bwm.Trajectories:
    """The action drives s, never the control outcome; e drives both, and the action if confounded."""
    schema = bwm.Schema(
        state=[bwm.Variable("s"), bwm.Variable("control")], action=[bwm.Variable("a"), bwm.Variable("b")], time_step=1.0
    )

    def draw() -> torch.Tensor:
        return torch.randn(150, generator=generator, dtype=torch.float64)

    states, actions = [torch.stack((draw(), draw()), -1)], list[torch.Tensor]()
    for _ in range(4):
        s, other = states[-1].unbind(-1)
        e = draw()
        chosen = draw() + (e if confounded else 0.0)
        actions.append(torch.stack((chosen, draw() + (e if confounded else 0.0)), -1))
        states.append(torch.stack((0.5 * s + 0.5 * chosen + e + 0.5 * draw(), 0.5 * other + e + 0.5 * draw()), -1))
    return bwm.Trajectories(schema, state=torch.stack(states, 1), action=torch.stack(actions, 1))


def test_negative_controls_find_hidden_confounders(generator: torch.Generator) -> None:
    """With e in a and b alike, the regression gives a a share of e in the control outcome: cov 1, var [[2, 1], [1, 2]].

    Its coefficients are (1/3, 1/3). Without confounding they are 0. The action b has no effect on s either.
    """
    for confounded in (True, False):
        log = two_outcomes(confounded=confounded, generator=generator)
        for treated, outcome in (("a", "control"), ("b", "s")):
            found = negative_control(
                regression(log.schema),
                bwm.do({treated: 1.0}),
                bwm.do({treated: 0.0}),
                logged=log,
                variables=[outcome],
                state=torch.zeros(2),
                actions=torch.zeros(2, 2),
                generator=generator,
                **QUERY,
            )
            assert found.passed is not confounded
            assert found.dataset.variable.values.tolist() == [outcome]
            if confounded:
                # 600 rows, residual variance 1/3 + 1/4, inverse of the actions' covariance 2/3; the mean of 8 worlds
                # drawn with a noise of 1
                error = (2 / 3 / 600 * (1 / 3 + 1 / 4 + 1 / 8)) ** 0.5
                assert abs(found.dataset.effect.isel(horizon=0).item() - 1 / 3) < 4.5 * error
                assert "REFUTED" in repr(found)


def test_what_makes_no_sense_is_refused(generator: torch.Generator) -> None:
    log = confounded_log(5, 5, generator=generator)
    given = {"logged": log, "state": torch.ones(1), "generator": generator, **QUERY}
    query = (known(A=0.9, B=0.5, noise=1.0), bwm.do(a=1.0), bwm.do(a=0.0))
    with pytest.raises(SpecError, match="refits >= 2"):
        placebo_treatment(*query, refits=1, **given)
    with pytest.raises(UnknownVariableError, match="'t'"):
        negative_control(*query, variables=["t"], **given)
    with pytest.raises(SpecError, match="at least 2 recordings"):
        negative_control(*query, variables=["s"], **{**given, "logged": log[0]})
    free = bwm.Trajectories(bwm.Schema(state=[bwm.Variable("s")], time_step=1.0), state=torch.zeros(2, 3, 1))
    with pytest.raises(SpecError, match="actions to shuffle"):
        placebo_treatment(*query, **{**given, "logged": free})
