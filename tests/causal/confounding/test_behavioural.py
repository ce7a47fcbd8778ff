"""What goes together in a log is no ground to act on."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import ConfoundedError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.planning import quadratic
from bayeswm.planning.imagination.returns import policy_return
from tests.causal.confounding.logs import ONE, c2_log, fitted


def test_planners_refuse_what_was_only_logged():
    log = c2_log(500, "e")
    model = fitted(log, "e")
    objective = quadratic(torch.ones(1), torch.ones(1))
    planner = bwm.planning.CEM(objective, horizon=3, samples=8, iterations=1, elites=2, bounds=(-1.0, 1.0))
    plan = planner.plan(model, ONE, generator=make_generator(0))
    assert plan.actions.shape == (3, 1)
    with pytest.raises(ConfoundedError, match="adjusted for"):
        planner.plan(model.behavioural, ONE, generator=make_generator(0))

    with pytest.raises(ConfoundedError, match="adjusted for"):
        policy_return(model.behavioural, torch.ones(3, 1), ONE, objective=objective, generator=make_generator(0))


def test_it_is_not_fitted_by_itself():
    model = fitted(c2_log(100, "e"), "e")
    with pytest.raises(SpecError, match="causal model"):
        model.behavioural.fit(c2_log(100, "e"))
    assert model.behavioural.schema == model.schema
    assert "adjusted for (e)" in repr(model.behavioural)
