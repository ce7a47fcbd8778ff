"""Of a log, the model asks for its own context; the law of the actions is given what they share causes by too."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import ConfoundedError, SpecError
from bayeswm.causal import CausalDynamics, policy_value
from bayeswm.causal.support.chosen_by import views
from tests.causal.confounding.logs import C2, affine, c2_log

N = 4000
OBJECTIVE = bwm.planning.Objective(terminal=lambda s, c: s[..., 0])


def policy(state: torch.Tensor, step: int) -> bwm.Gaussian:
    return bwm.Gaussian(torch.ones_like(state), torch.ones_like(state))


def test_views_of_a_log() -> None:
    log = c2_log(10, "e", "nu")
    asked, chosen = views(CausalDynamics(C2, dynamics=affine("e")), log)
    assert (asked.schema.context.names, chosen.schema.context.names) == ((), ("e",))
    assert views(affine("e", "nu"), log) == (log, log)


@pytest.mark.statistical
def test_the_value_of_a_policy_by_a_log_with_a_recorded_cause(generator: torch.Generator) -> None:
    """From s ~ N(0, 1) with a ~ N(1, 1), s' = 0.9 s + 0.5 a + e + 0.1 w has the mean 0.5; so the value is -0.5."""
    log = c2_log(N, "e")
    model = CausalDynamics(C2, dynamics=affine("e"))
    found = policy_value(model, policy, log, objective=OBJECTIVE, worlds=4, folds=2, generator=generator)
    for value, error in zip(found.dataset["value"].values, found.dataset["standard_error"].values, strict=True):
        # that of the model alone knows nothing of its own uncertainty, about 1 / sqrt(N) for the mean of e
        assert abs(value + 0.5) < 4.42 * (error**2 + 2 / N) ** 0.5


def test_a_log_without_what_chose_its_actions_is_refused(generator: torch.Generator) -> None:
    def value(log: bwm.Trajectories, **kwargs) -> None:
        model = CausalDynamics(C2, dynamics=affine("e"))
        policy_value(model, policy, log, objective=OBJECTIVE, generator=generator, **kwargs)

    with pytest.raises(ConfoundedError, match="record these causes"):
        value(c2_log(50, "nu"))
    with pytest.raises(ConfoundedError, match="does not follow from this log"):
        value(c2_log(50))
    with pytest.raises(SpecError, match=r"whose law is given \(e\) too"):
        value(c2_log(50, "e"), behaviour=policy)
