"""What all policies share: bounds, features, parameters that can be kept and replaced."""

import math
from pathlib import Path
from typing import override

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import DataError, Schema, SpecError, Variable
from bayeswm.planning import LinearPolicy, MLPPolicy, ParametricPolicy, RBFPolicy, saturating_sine
from bayeswm.propagation import FixedWorlds, MomentMatching, MomentReset, Unscented

F64 = torch.float64
SCHEMA = Schema(
    state=[Variable("angle", kind="angle"), Variable("speed")],
    action=[Variable("u", bounds=(-1.0, 3.0)), Variable("v")],
    time_step=0.1,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def families(schema: Schema = SCHEMA, **more: object) -> list[ParametricPolicy]:
    """One of each kind, with parameters that do something."""
    kinds = [
        LinearPolicy(schema, **more),
        RBFPolicy(schema, basis=7, generator=generator(1), **more),
        MLPPolicy(schema, hidden=(5, 4), generator=generator(2), **more),
    ]
    return [p.replace(**{k: v + 0.3 for k, v in p.initial(generator(3)).items()}) for p in kinds]


def name(policy: ParametricPolicy) -> str:
    return type(policy).__name__


@pytest.mark.parametrize("policy", families(), ids=name)
def test_bounded_actions_stay_within_and_free_ones_are_the_value(policy: ParametricPolicy) -> None:
    states = 5 * torch.randn(4, 200, 2, generator=generator(), dtype=F64)
    action, value = policy(states, 0), policy.value(SCHEMA.state.embed(states), 0)
    assert action.shape == (4, 200, 2)
    torch.testing.assert_close(action[..., 0], 1 + 2 * torch.tanh(value[..., 0] / 2))
    torch.testing.assert_close(action[..., 1], value[..., 1])
    large = policy.replace(**{k: 1e3 * v for k, v in policy.parameters.items()})
    assert float((large(states, 0)[..., 0] - 1).abs().max()) <= 2


@pytest.mark.parametrize("policy", families(squash=saturating_sine), ids=name)
def test_other_squashing(policy: ParametricPolicy) -> None:
    states = torch.randn(9, 2, generator=generator(), dtype=F64)
    value = policy.value(SCHEMA.state.embed(states), 0)
    torch.testing.assert_close(policy(states, 0)[..., 0], 1 + 2 * saturating_sine(value[..., 0] / 2))


@pytest.mark.parametrize("policy", families(bounds=(-0.5, torch.tensor([0.5, 2.0]))), ids=name)
def test_given_bounds_replace_those_of_the_schema(policy: ParametricPolicy) -> None:
    assert policy.center.tolist() == [0.0, 0.75]
    assert policy.radius.tolist() == [0.5, 1.25]


@pytest.mark.parametrize("policy", families(), ids=name)
def test_a_full_turn_changes_nothing(policy: ParametricPolicy) -> None:
    states = torch.randn(9, 2, generator=generator(), dtype=F64)
    turned = states + torch.tensor([2 * math.pi, 0.0], dtype=F64)
    torch.testing.assert_close(policy(turned, 3), policy(states, 3))


def test_scaled_variables() -> None:
    plain, scaled = families(), families(scale={"speed": 4.0})
    states = torch.randn(9, 2, generator=generator(), dtype=F64)
    wide = states * torch.tensor([1.0, 4.0], dtype=F64)
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other(wide, 0), one(states, 0))


@pytest.mark.parametrize("policy", families(), ids=name)
def test_parameters_are_plain_tensors_that_a_file_keeps(policy: ParametricPolicy, tmp_path: Path) -> None:
    assert all(type(v) is Tensor and not v.requires_grad for v in policy.parameters.values())
    torch.save(policy.parameters, tmp_path / "policy.pt")
    loaded = torch.load(tmp_path / "policy.pt", weights_only=True)
    fresh = next(p for p in (LinearPolicy(SCHEMA), *families()[1:]) if type(p) is type(policy))
    states = torch.randn(9, 2, generator=generator(), dtype=F64)
    assert torch.equal(fresh.replace(**loaded)(states, 0), policy(states, 0))


@pytest.mark.parametrize("policy", families(), ids=name)
def test_the_state_decides_the_number_format(policy: ParametricPolicy) -> None:
    assert policy(torch.zeros(3, 2), 0).dtype == torch.float32


@pytest.mark.parametrize("policy", families(), ids=name)
def test_replaced_parameters_leave_the_old_policy_alone(policy: ParametricPolicy) -> None:
    before = {k: v.clone() for k, v in policy.parameters.items()}
    key = next(iter(before))
    other = policy.replace(**{key: torch.zeros_like(before[key])})
    assert float(other.parameters[key].abs().max()) == 0
    assert all(torch.equal(policy.parameters[k], v) for k, v in before.items())


def test_parameters_that_do_not_fit_are_refused() -> None:
    policy = LinearPolicy(SCHEMA)
    with pytest.raises(SpecError, match="expected parameters among gain, bias, got gains"):
        policy.replace(gains=torch.zeros(2, 3))
    with pytest.raises(SpecError, match=r"gain of shape \(2, 3\), got \(2, 2\)"):
        policy.replace(gain=torch.zeros(2, 2))
    with pytest.raises(DataError, match="NaN or infinity in bias"):
        policy.replace(bias=torch.tensor([0.0, float("nan")]))


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpecError, match="with actions"):
        LinearPolicy(Schema(state=[Variable("x")], time_step=0.1))
    with pytest.raises(bwm.UnknownVariableError, match="speed"):
        LinearPolicy(SCHEMA, scale={"sped": 1.0})
    with pytest.raises(SpecError, match="angle"):
        LinearPolicy(SCHEMA, scale={"angle": 2.0})
    with pytest.raises(SpecError, match="speed: -1"):
        LinearPolicy(SCHEMA, scale={"speed": -1.0})
    with pytest.raises(SpecError, match="low < high"):
        LinearPolicy(SCHEMA, bounds=(1.0, -1.0))


PENDULUM = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)


@pytest.mark.parametrize("method", [FixedWorlds(30), MomentReset(30), MomentMatching(), Unscented()], ids=repr)
@pytest.mark.parametrize("policy", families(PENDULUM.schema), ids=name)
def test_every_way_of_propagation_takes_it(policy: ParametricPolicy, method: bwm.propagation.Method) -> None:
    start = torch.tensor([[0.1, 0.0], [3.0, 1.0]], dtype=F64)
    both = bwm.propagate(PENDULUM, start, policy, horizon=4, method=method, generator=generator())
    assert both.mean.shape == (2, 4, 2)
    assert bool(both.mean.isfinite().all())


def test_a_policy_of_ones_own_may_change_with_the_step() -> None:
    class Ramp(ParametricPolicy):
        def __init__(self, schema: Schema) -> None:
            super().__init__(schema)
            self.parameters = {"slope": torch.ones(1, dtype=F64)}

        @override
        def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
            return {"slope": torch.ones(1, dtype=F64)}

        @override
        def value(self, features: Tensor, step: int) -> Tensor:
            return 0.1 * step * self.parameters["slope"] + 0 * features[..., :1]

    policy = Ramp(PENDULUM.schema)
    assert float(policy(torch.zeros(2, dtype=F64), 3)) == pytest.approx(2 * math.tanh(0.15), abs=1e-12)
