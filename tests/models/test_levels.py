import torch
from torch.distributions import HalfNormal, LogNormal

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.models.levels import PerEpisode, in_episodes, levels_of, sites, step_in_lanes

F64 = torch.float64
LAW = bwm.Hierarchical(LogNormal(0.0, 0.5), HalfNormal(0.1), relative=True)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return standard_normal(shape, make_generator(seed), dtype=F64)


def test_numbers_behind_the_levels() -> None:
    structure = bwm.structures.Pendulum(mass=LAW, damping=bwm.Hierarchical(0.1, 0.05))
    levels = levels_of(structure)
    assert list(levels) == ["mass", "damping"]
    found = sites(levels, 4)
    assert found["mass.episode"].batch_shape == (4,)
    assert float(found["damping.location"]) == 0.1
    values = {
        "mass.location": torch.tensor([1.0, 2.0], dtype=F64),
        "mass.scale": torch.tensor([0.1, 0.2], dtype=F64),
        "mass.episode": normal(2, 4),
    }
    each = in_episodes({"mass": LAW}, values)["mass"]
    torch.testing.assert_close(each[1], 2.0 * (0.2 * values["mass.episode"][1]).exp())


def test_a_step_in_lanes_is_each_lanes_own_step() -> None:
    structure = bwm.structures.Pendulum(mass=LAW, length=0.7)
    shared = {k: v for k, v in structure.sample(3, make_generator(0), F64).items() if k != "mass"}
    shared["length"] = torch.tensor([0.5, 0.7, 0.9], dtype=F64)
    state, action, context = normal(3, 2, 5, 2), normal(5, 1, seed=1), torch.empty(5, 0, dtype=F64)
    mass = normal(3, 1, 5, seed=2).exp()
    mean, scale = step_in_lanes(structure, shared, {"mass": mass}, state, action, context, 0)
    assert scale is None
    for w, p, i in ((0, 0, 0), (1, 1, 3), (2, 0, 4)):
        values = {**{k: v[w] for k, v in shared.items()}, "mass": mass[w, 0, i]}
        wanted = structure.transition(values, state[w, p, i], action[i], context[i], 0)[0]
        torch.testing.assert_close(mean[w, p, i], wanted)


def test_the_step_of_each_lane_has_its_index() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)

    class Clock(bwm.structures.FromFunction):
        def transition(self, parameters, state, action, context, step):
            return state + parameters["rate"] * step, None

    structure = Clock(lambda x, u, c, p: x, schema=schema, parameters={"rate": bwm.Hierarchical(1.0, 0.1)})
    none = torch.empty(4, 0, dtype=F64)
    rate = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=F64)
    mean, _ = step_in_lanes(
        structure, {}, {"rate": rate}, torch.zeros(1, 1, 4, 1, dtype=F64), none, none, torch.tensor([0, 10, 20, 30])
    )
    assert mean[0, 0, :, 0].tolist() == [0.0, 20.0, 60.0, 120.0]


def test_lifted_structure_keeps_the_episodes_numbers() -> None:
    structure = bwm.structures.Pendulum(mass=LAW)
    lifted = PerEpisode(structure, structure.schema)
    assert lifted.schema.state.names == ("angle", "velocity", "mass_episode")
    assert lifted.schema.measured.names == ("angle", "velocity")
    parameters = {k: v for k, v in structure.sample(1, make_generator(0), F64).items() if k != "mass"}
    parameters |= {"mass.location": torch.tensor([1.5], dtype=F64), "mass.scale": torch.tensor([0.2], dtype=F64)}
    state, action = torch.tensor([0.4, -1.0, 0.7], dtype=F64), torch.tensor([0.3], dtype=F64)
    one = {k: v[0] for k, v in parameters.items()}
    mean, _ = lifted.transition(one, state, action, torch.empty(0, dtype=F64), 0)
    values = {**{k: one[k] for k in structure.parameters() if k != "mass"}, "mass": 1.5 * torch.tensor(0.14).exp()}
    wanted = structure.transition(values, state[:2], action, torch.empty(0), 0)[0]
    torch.testing.assert_close(mean[:2], wanted, rtol=1e-6, atol=0)
    assert float(mean[2]) == 0.7
