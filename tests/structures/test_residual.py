"""Known physics and a learned correction: the sum, who is trained, scales, files, and what the physics is worth."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import Parameter, SpecError, Structure
from bayeswm.base.objective import AutogradObjective
from bayeswm.base.random import make_generator
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum, Residual
from bayeswm.testing import check_model

F64 = torch.float64
TRUE = {"length": 0.5, "damping": 0.1, "time_step": 0.05}
WRONG = Pendulum(**TRUE, gravity=0.7 * 9.81)


class Own(Pendulum):
    """A user's physics that describes itself."""


class Guess(Structure):
    """A user's physics that does not describe itself."""

    schema = WRONG.schema

    def parameters(self) -> dict[str, Parameter]:
        return {"rate": Parameter(0.9)}

    def transition(self, parameters, state, action, context, step):
        return parameters["rate"] * state, None


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=make_generator(seed), dtype=F64)


def recordings(episodes: int, steps: int, *, seed: int) -> bwm.Trajectories:
    truth = bwm.KnownDynamics(structure=Pendulum(**TRUE), noise=0.01)
    g = make_generator(seed)
    start = torch.randn(episodes, 2, generator=g, dtype=F64)
    torque = 4 * torch.rand(episodes, steps, 1, generator=g, dtype=F64) - 2
    paths = bwm.rollout(truth, start, torque, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=torque)


def part(name: str, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(name): v for k, v in parameters.items() if k.startswith(name)}


# --- the sum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worlds", [1, 3])
@pytest.mark.parametrize("known", [WRONG, Pendulum(gravity=Normal(9.0, 1.0)), Guess()])
def test_the_change_of_the_learned_part_is_added(worlds: int, known: Structure) -> None:
    structure = Residual(known, MLP(hidden=(8,)))
    parameters = structure.initial(worlds, make_generator(0), F64)
    assert set(parameters) == set(structure.parameters())
    state, action, context = normal(worlds, 4, 2), normal(4, 1, seed=1), torch.empty(0, dtype=F64)
    mean, scale = structure.batched(parameters, state, action, context, 0)
    assert scale is not None
    for w in range(worlds):
        own = {k: v[w] for k, v in parameters.items()}
        physics, _ = known.transition(part("known.", own), state[w], action, context, 0)
        moved, noise = structure.learned.transition(part("learned.", own), state[w], action, context, 0)
        torch.testing.assert_close(mean[w], physics + (moved - state[w]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(scale[w], noise, rtol=1e-12, atol=1e-12)
        one, same = structure.transition(own, state[w], action, context, 0)
        torch.testing.assert_close(one, mean[w], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(same, scale[w], rtol=1e-12, atol=1e-12)


def test_a_rotation_is_corrected_in_its_own_way() -> None:
    schema = bwm.Schema(state=[bwm.Variable("attitude", kind="rotation")], time_step=0.1)

    def turn(*angle: float) -> FromFunction:
        return FromFunction(lambda x, u: schema.state.add(x, x.new_tensor(angle)), schema=schema, name="turn")

    start = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=F64)
    none = torch.empty(0, dtype=F64)
    both, _ = Residual(turn(0.0, 0.0, 0.3), turn(0.0, 0.0, 0.2)).transition({}, start, none, none, 0)
    expected = torch.tensor([math.cos(0.25), 0.0, 0.0, math.sin(0.25)], dtype=F64)
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-12)


def test_noise_is_the_learned_parts_or_else_the_known_parts() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    silent = FromFunction(lambda x, u: x + 1.0, schema=schema, name="silent")
    loud = FromFunction(lambda x, u: (x + 2.0, torch.full_like(x, 0.5)), schema=schema, name="loud")
    quiet = FromFunction(lambda x, u: (x + 2.0, torch.full_like(x, 0.1)), schema=schema, name="quiet")
    x, none = torch.zeros(1), torch.empty(0)
    for known, learned, expected in ((loud, silent, 0.5), (silent, quiet, 0.1), (loud, quiet, 0.1)):
        scale = Residual(known, learned).transition({}, x, none, none, 0)[1]
        assert scale is not None
        assert scale.item() == pytest.approx(expected)
    mean, scale = Residual(silent, silent).transition({}, x, none, none, 0)
    assert (mean.item(), scale) == (2.0, None)


def test_variables_come_from_the_physics_without_their_bounds() -> None:
    structure = Residual(Pendulum.gymnasium(), MLP(hidden=(4,)))
    assert structure.schema == Pendulum.gymnasium().schema
    assert structure.learned.schema is not None
    assert [v.bounds for v in structure.learned.schema.state] == [None, None]  # a correction has no speed limit
    assert structure.bind(Pendulum.gymnasium().schema) is structure
    with pytest.raises(SpecError, match="physics with a schema, got MLP"):
        Residual(MLP(), MLP())
    with pytest.raises(SpecError, match="as MLP has"):
        Residual(WRONG, MLP(schema=bwm.structures.CartPole().schema))
    with pytest.raises(SpecError, match="time step"):
        structure.bind(Pendulum(time_step=0.1).schema)


def test_laws_and_units_pass_through() -> None:
    structure = Residual(Pendulum(mass=LogNormal(0.0, 0.1)), Linear(WRONG.schema))
    found = structure.parameters()
    assert found["known.mass"].uncertain
    assert found["known.mass"].positive
    assert found["known.gravity"].unit == "m/s^2"
    assert found["learned.A"].uncertain
    worlds = bwm.KnownDynamics(structure=structure, noise=0.1).draw(6, generator=make_generator(0))
    assert len(worlds.parameters["known.mass"].unique()) == len(worlds.parameters["learned.A"].unique(dim=0)) == 6
    assert worlds.replace(**{"known.mass": 2.0}).parameters["known.mass"].tolist() == [2.0] * 6
    with pytest.raises(SpecError, match=r"known.mass > 0"):
        worlds.replace(**{"known.mass": -2.0})


# --- training -----------------------------------------------------------------------------------------------------


def test_scales_are_those_of_what_the_physics_missed() -> None:
    data = recordings(4, 25, seed=0).transitions()
    empty, values = torch.empty(0), {k: torch.as_tensor(p.value, dtype=F64) for k, p in WRONG.parameters().items()}
    missed = data.next_state - WRONG.transition(values, data.state, data.action, empty, 0)[0]
    structure = Residual(WRONG, MLP(hidden=(8,)))
    found = structure.standardise(structure.initial(2, make_generator(0), F64), data)
    for w in range(2):
        torch.testing.assert_close(found["learned.change_mean"][w], missed.mean(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["learned.change_scale"][w], missed.std(0, correction=0), rtol=1e-9, atol=0)
    # an uncertain gravity: that of the middle world
    unsure = Residual(Pendulum(**TRUE, gravity=Normal(9.81, 3.0)), MLP(hidden=(8,)))
    parameters = unsure.initial(3, make_generator(0), F64)
    parameters["known.gravity"] = torch.tensor([1.0, 0.7 * 9.81, 300.0], dtype=F64)
    again = unsure.standardise(parameters, data)
    torch.testing.assert_close(again["learned.change_scale"], found["learned.change_scale"][:1].expand(3, 2))
    assert torch.equal(again["known.gravity"], parameters["known.gravity"])


@pytest.mark.parametrize("unsure", [False, True])
def test_the_objective_is_the_density_of_the_whole(unsure: bool) -> None:
    physics = Pendulum(**TRUE, gravity=Normal(9.0, 1.0)) if unsure else WRONG
    structure, data = Residual(physics, MLP(hidden=(8,))), recordings(4, 25, seed=0).transitions()
    parameters = structure.standardise(structure.initial(3, make_generator(0), F64), data)
    objective, rows = structure.objective(parameters, data), torch.arange(20)
    reference = AutogradObjective(structure, parameters, data)
    torch.testing.assert_close(objective.log_prob(rows), reference.log_prob(rows), rtol=1e-9, atol=1e-9)
    # numbers of the physics stay, its laws are learned along, scales stay
    assert set(objective.trained) == {"learned.network"} | ({"known.gravity"} if unsure else set())
    assert objective.trained["learned.network"] is parameters["learned.network"]
    _, gradient = objective.gradient(rows.expand(3, -1))
    assert set(gradient) == set(objective.trained)
    assert all(bool(v.isfinite().all() & (v != 0).any()) for v in gradient.values())


def test_a_correction_without_noise_needs_physics_with_some() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=0.1)
    loud = FromFunction(lambda x, u: (0.5 * x, torch.full_like(x, 0.1)), schema=schema, name="loud")
    structure = Residual(loud, Linear(schema))
    x = normal(6, 10, 1)
    data = bwm.Trajectories(schema, state=x, action=torch.empty(6, 9, 0)).transitions()
    objective = structure.objective(structure.initial(2, make_generator(0), F64), data)
    assert set(objective.trained) == {"learned.A", "learned.c"}
    assert bool(objective.log_prob(torch.arange(5)).isfinite().all())


def test_wrong_physics_is_worth_more_than_none_where_data_are_few() -> None:
    train, test = recordings(4, 25, seed=0), recordings(20, 40, seed=1)
    data = test.transitions()

    def error(model: bwm.DynamicsModel) -> float:
        return float((model.predictive(data.state, data.action).mean[:, 0] - data.next_state).square().mean().sqrt())

    errors, long = {}, {}
    for name, structure in (("both", Residual(WRONG, MLP(hidden=(32, 32)))), ("alone", MLP(hidden=(32, 32)))):
        model = bwm.DeepEnsemble(structure=structure, members=3, epochs=200).fit(train, seed=0, progress=False)
        errors[name] = error(model)
        r = bwm.rollout(model, test.state[:, 0], test.action[:, :20], particles=5, generator=make_generator(3))
        long[name] = float((r.mean[:, -1] - test.state[:, 20]).square().mean().sqrt())
        if name == "both":
            assert model.draw(3).parameters["known.gravity"].tolist() == pytest.approx([0.7 * 9.81] * 3)
    # found: 0.012 against 0.025 for the network alone and 0.102 for the physics alone, with noise of 0.010;
    # after 20 steps 0.10 against 0.23
    assert errors["both"] < 0.7 * errors["alone"]
    assert errors["both"] < 0.2 * error(bwm.KnownDynamics(structure=WRONG))
    assert long["both"] < 0.7 * long["alone"]


# --- contract and files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [WRONG, Pendulum(**TRUE, gravity=LogNormal(2.0, 0.2)), Own(**TRUE), Guess()])
def test_ensembles_keep_the_contract(known: Structure) -> None:
    data = recordings(8, 50, seed=0)
    structure = Residual(known, MLP(hidden=(16,)))
    model = bwm.DeepEnsemble(structure=structure, members=3, epochs=5, stacking=True)
    assert check_model(model.fit(data, seed=0, progress=False), data).failed == ()


def test_an_uncertain_sum_keeps_the_contract() -> None:
    data = recordings(8, 50, seed=0)
    identity = torch.eye(2, dtype=F64)
    structure = Residual(Pendulum(**TRUE, mass=LogNormal(0.0, 0.1)), Linear(WRONG.schema, A=Normal(identity, 0.01)))
    assert check_model(bwm.KnownDynamics(structure=structure, noise=0.05), data).failed == ()


def test_parts_are_saved_each_in_its_way(tmp_path) -> None:
    inner = Residual(Own(**TRUE, mass=LogNormal(0.0, 0.1)), Linear(WRONG.schema, A=torch.eye(2), B=0.0))
    structure = Residual(inner, Guess())
    bwm.KnownDynamics(structure=structure, noise=0.1).save(tmp_path / "m")
    for given, missing in (([], "Own"), ([Own], "Guess"), ([Guess()], "Own"), ([Own, Guess], "as an object")):
        with pytest.raises(bwm.base.CheckpointError, match=missing):
            bwm.load(tmp_path / "m", structures=given)
    guess = Guess()
    again = bwm.load(tmp_path / "m", structures=[Own, guess]).structure
    assert isinstance(again, Residual)
    assert again.learned is guess
    assert isinstance(again.known, Residual)
    assert type(again.known.known) is Own
    assert again.known.known.config() == inner.known.config()
    assert again.known.learned.config() == inner.learned.config()
