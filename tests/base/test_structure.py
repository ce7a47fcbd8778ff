import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Parameter, Schema, SpecError, Structure, Variable
from bayeswm.structures import FromFunction, Pendulum

SCHEMA = Schema(state=[Variable("x"), Variable("y")], action=[Variable("u")], context=[Variable("c")], time_step=1.0)


def move(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["gain"] * torch.sin(x) + u * p["offset"] + c


STRUCTURE = FromFunction(move, schema=SCHEMA, parameters={"gain": 1.0, "offset": 0.0})


class Timed(Structure):
    """x' = x + step, with a noise scale of its own."""

    schema = SCHEMA

    def parameters(self) -> dict[str, Parameter]:
        return {"level": Parameter(0.5, positive=True)}

    def transition(self, parameters, state, action, context, step):
        shift = torch.as_tensor(step, dtype=state.dtype)[..., None]
        return state + shift, parameters["level"] * torch.ones_like(state)


def parameters(worlds: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"gain": torch.rand(worlds, generator=g), "offset": torch.rand(worlds, 2, generator=g)}


@pytest.mark.parametrize("worlds", [1, 3])
@pytest.mark.parametrize("lead", [(), (1, 1), ("W", 1), ("W", 4), (1, 4)])
def test_batched_equals_a_loop_over_worlds(worlds: int, lead: tuple[object, ...]) -> None:
    g, p = torch.Generator().manual_seed(1), parameters(worlds)
    x = torch.randn(worlds, 4, 5, 2, generator=g)
    shape = tuple(worlds if n == "W" else n for n in lead)
    u, c = torch.randn(*shape, 5, 1, generator=g), torch.randn(5, 1, generator=g)
    mean, scale = STRUCTURE.batched(p, x, u, c, 0)
    assert scale is None
    assert mean.shape == x.shape
    full = u.expand(worlds, 4, 5, 1)
    for w in range(worlds):
        one, _ = STRUCTURE.transition({k: v[w] for k, v in p.items()}, x[w], full[w], c, 0)
        torch.testing.assert_close(mean[w], one)


ELEMENTWISE = (
    bwm.structures.Ballistic(drag=0.1),
    bwm.structures.CartPole(friction=0.1),
    bwm.structures.CartPole.swing_up(),
    bwm.structures.DoublePendulum.gymnasium(),
    bwm.structures.DuffingOscillator(),
    bwm.structures.DuffingOscillator(input_samples=3),
    bwm.structures.LotkaVolterra(),
    bwm.structures.Pendulum(damping=0.1, friction=0.02),
    bwm.structures.Pendulum.gymnasium(),
)


def test_every_elementwise_structure_is_compared() -> None:
    found = {name for name, one in Structure.registry.items() if one.elementwise}
    assert found == {one.name for one in ELEMENTWISE}


@pytest.mark.parametrize("structure", ELEMENTWISE, ids=lambda one: one.name)
@pytest.mark.parametrize("lead", [(), (1, 1), (3, 1), (3, 4)])
@pytest.mark.parametrize("shared", [False, True])
def test_worlds_broadcast_where_parameters_are_single_numbers(
    structure: Structure, lead: tuple[int, ...], shared: bool
) -> None:
    g, schema = torch.Generator().manual_seed(2), structure.schema
    assert schema is not None
    p = structure.sample(3, g, torch.float64)
    p = {k: v * (0.5 + torch.rand(3, generator=g, dtype=torch.float64)) for k, v in p.items()}
    x = torch.rand(1 if shared else 3, 4, 5, schema.state.size, generator=g, dtype=torch.float64)
    u = torch.randn(*lead, 5, schema.action.size, generator=g, dtype=torch.float64)
    mean, scale = structure.batched(p, x, u, torch.empty(5, 0), 0)
    assert scale is None
    assert mean.shape == (3, 4, 5, schema.state.size)
    for w, (own, actions) in enumerate(zip(x.expand(mean.shape), u.expand(3, 4, *u.shape[-2:]), strict=True)):
        one, _ = structure.transition({k: v[w] for k, v in p.items()}, own, actions, torch.empty(5, 0), 0)
        torch.testing.assert_close(mean[w], one, rtol=1e-12, atol=1e-12)


def test_a_state_shared_by_all_worlds_meets_each() -> None:
    p = parameters(3)
    mean, _ = STRUCTURE.batched(p, torch.ones(1, 1, 2), torch.zeros(1), torch.zeros(1), 0)
    torch.testing.assert_close(mean[:, 0, 0], p["gain"] * torch.sin(torch.ones(3)))


def test_a_structure_may_bring_its_noise_and_depend_on_time() -> None:
    model = bwm.KnownDynamics(structure=Timed())
    r = bwm.rollout(
        model,
        torch.zeros(2),
        torch.zeros(4, 1),
        context=torch.zeros(1),
        particles=3,
        generator=torch.Generator().manual_seed(0),
    )
    assert r.variance[0].tolist() == [0.25, 0.25]  # not dropped by a default of 0
    increments = torch.stack([law.mean[..., 0] for law in r.laws[1:]]) - r.particles[..., :-1, 0].movedim(-1, 0)
    torch.testing.assert_close(increments, torch.arange(1.0, 4.0).double().view(3, 1, 1).expand(3, 1, 3))
    # the whole trajectory at once sees the same times
    x = torch.tensor([0.0, 1.0, 3.0, 6.0], dtype=torch.float64)[:, None].expand(4, 2)
    assert float(r.log_prob(x)) == pytest.approx(
        float(torch.distributions.Normal(0.0, 0.5).log_prob(torch.zeros(8)).sum())
    )
    silent = bwm.KnownDynamics(structure=Timed(), noise=0.0)
    assert silent.draw(1).noise_size == 0


def test_uncertain_parameters_are_drawn_from_the_generator() -> None:
    structure = Pendulum(mass=torch.distributions.LogNormal(0.0, 0.1))
    before = torch.get_rng_state()
    one, two = (structure.initial(5, torch.Generator().manual_seed(3), torch.float64) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one["mass"], two["mass"])
    assert len(one["mass"].unique()) == 5
    assert one["length"].tolist() == [1.0] * 5
    with pytest.raises(SpecError, match="'mass' is uncertain"):
        structure.initial(5, None, torch.float64)


def test_values_that_make_no_sense() -> None:
    with pytest.raises(SpecError, match="mass > 0 kg, got -1"):
        Pendulum(mass=-1.0)
    with pytest.raises(SpecError, match="gravity finite"):
        Pendulum(gravity=float("nan"))


def test_a_law_reaches_no_further_than_the_constraint() -> None:
    with pytest.raises(SpecError, match="Pendulum, mass: expected a law of numbers > 0, got Normal; try LogNormal"):
        Pendulum(mass=torch.distributions.Normal(1.0, 1e-6))
    Pendulum(mass=torch.distributions.Uniform(0.0, 1.0), gravity=torch.distributions.Normal(9.81, 0.1))

    class Unchecked(Timed):
        def parameters(self) -> dict[str, Parameter]:
            return {"level": Parameter(torch.distributions.Normal(0.0, 1.0), positive=True)}

    with pytest.raises(SpecError, match="positive law"):  # where a constructor did not look
        Unchecked().initial(50, torch.Generator().manual_seed(0), torch.float64)


def test_bind_checks_columns_and_time_step() -> None:
    pendulum = Pendulum(time_step=0.05)
    assert pendulum.bind(Pendulum(time_step=0.05).schema) is pendulum
    with pytest.raises(SpecError, match=r"state \(angle: angle, velocity\)"):
        pendulum.bind(Schema(state=[Variable("x")], action=[Variable("u")], time_step=0.05))
    with pytest.raises(SpecError, match=r"time step of 0\.05 s, as Pendulum has, got 0\.02 s"):
        pendulum.bind(Pendulum(time_step=0.02).schema)


def test_a_structure_without_a_description_says_so() -> None:
    with pytest.raises(SpecError, match="cannot be saved"):
        STRUCTURE.config()
