import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import counterfactual, shift

SCHEMA = bwm.Schema(
    state=[bwm.Variable("s")], action=[bwm.Variable("a", bounds=(-1, 1)), bwm.Variable("b")], time_step=1.0
)


def system(**given: float) -> bwm.KnownDynamics:
    structure = bwm.structures.FromFunction(lambda s, a: 0.8 * s + a.sum(-1, keepdim=True), schema=SCHEMA)
    return bwm.KnownDynamics(structure=structure, noise=1.0, **given)


def seen() -> bwm.Trajectories:
    """Two episodes of 3 and 2 steps."""
    actions = [[[0.5, 0.0], [0.9, 0.0], [-0.5, 0.0]], [[0.5, 0.0], [0.5, 0.0]]]
    return bwm.Trajectories(SCHEMA, state=[[[0.0]] * 4, [[1.0]] * 3], action=actions)


@pytest.mark.parametrize("given", [{}, {"sensor_noise": 0.5}])
@pytest.mark.parametrize(
    ("intervention", "count"),
    [
        (bwm.do({"a": 2.0}), 5),
        (bwm.do({"a": -2.0}, steps=slice(1, 3)), 3),
        (bwm.do({"a": shift(0.3)}), 1),
        (bwm.do(a=lambda s, t: torch.full_like(s[..., 0], 3.0 if t == 1 else 0.0)), 2),
    ],
)
def test_actions_out_of_bounds_are_counted(
    intervention: bwm.causal.Intervention, count: int, given: dict[str, float], generator: torch.Generator
) -> None:
    with pytest.warns(bwm.base.DataWarning, match=rf"^{count} value\(s\) of action variable 'a' outside") as caught:
        found = counterfactual(system(**given), seen(), intervention, generator=generator)
    assert len(caught) == 1
    assert bool(found.mean[0].isfinite().all())


def test_draws_are_counted_too(generator: torch.Generator) -> None:
    with pytest.warns(bwm.base.DataWarning, match=r"^5 value\(s\)"):
        counterfactual(system(), seen(), bwm.do(a=Normal(0.0, 2.0)), particles=100, generator=generator)


def test_what_is_inside_or_has_no_bounds_is_not_warned_of() -> None:
    for inside in (bwm.do(a=1.0), bwm.do(a=shift(0.0)), bwm.do(b=5.0), bwm.do(s=5.0)):
        counterfactual(system(), seen(), inside)


def test_a_single_action() -> None:
    pendulum = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    factual = bwm.data.simulate(
        pendulum, torch.zeros(3, 2), torch.zeros(3, 5, 1), generator=torch.Generator().manual_seed(0)
    )
    with pytest.warns(bwm.base.DataWarning, match=r"^12 value\(s\) of action variable 'torque'"):
        counterfactual(pendulum, factual, bwm.do({"torque": 5.0}, steps=slice(1, 5)))
