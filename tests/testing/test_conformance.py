"""`check_model` passes sound models, reports what does not apply, and refuses nonsense."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.structures import CartPole, FromFunction, Pendulum
from bayeswm.testing import CHECKS, ContractError, LinearGaussianSystem, check_model
from bayeswm.testing.strategies import linear_gaussian_systems
from tests.hidden_models import HiddenModel, hidden_mode_worlds, hidden_velocity_worlds
from tests.statistical.linear import LinearWorlds

WIND = bwm.Schema(
    state=[bwm.Variable("x", unit="m"), bwm.Variable("heading", unit="rad", kind="angle")],
    action=[bwm.Variable("turn", unit="rad")],
    context=[bwm.Variable("wind", unit="m/s"), bwm.Variable("slope")],
    reward=True,
    time_step=0.1,
)


def drift(x, u, c, p):
    moved = x[..., 0] + 0.1 * (p["speed"] * torch.cos(x[..., 1]) + c[..., 0] + c[..., 1])
    return torch.stack((moved, x[..., 1] + u[..., 0]), -1)


def sail(speed) -> FromFunction:
    return FromFunction(drift, schema=WIND, parameters={"speed": speed}, name="sail")


KNOWN = {
    "pendulum": bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.01),
    "pendulum without noise": bwm.KnownDynamics(structure=Pendulum.gymnasium()),
    "pendulum with one noisy column": bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise={"velocity": 0.05}),
    "uncertain pendulum": bwm.KnownDynamics(
        structure=Pendulum(mass=LogNormal(0.0, 0.2), damping=LogNormal(-2.0, 0.3)), noise=0.05
    ),
    "uncertain pendulum without noise": bwm.KnownDynamics(structure=Pendulum(mass=LogNormal(0.0, 0.2))),
    "uncertain pendulum in float32": bwm.KnownDynamics(
        structure=Pendulum(mass=LogNormal(0.0, 0.2)), noise=0.02, dtype=torch.float32
    ),
    "cart-pole": bwm.KnownDynamics(structure=CartPole(), noise=0.01),
    "uncertain cart-pole": bwm.KnownDynamics(
        structure=CartPole(length=LogNormal(-0.7, 0.1)), noise={"angle": 0.01, "velocity": 0.1}
    ),
    "function with context": bwm.KnownDynamics(structure=sail(2.0), noise=[0.1, 0.02]),
    "pendulum seen through sensors": bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.02, sensor_noise=0.05),
    "pendulum of which the angle is seen": bwm.KnownDynamics(
        structure=Pendulum(mass=LogNormal(0.0, 0.2)),
        noise={"velocity": 0.05},
        sensor_noise={"angle": 0.05},
        belief={"velocity": Normal(0.0, 1.0)},
    ),
    "pendulum seen by a particle filter": bwm.KnownDynamics(
        structure=Pendulum(), noise=0.05, sensor_noise=0.05, filtering=bwm.inference.ParticleFilter(particles=50)
    ),
    "function with context seen through sensors": bwm.KnownDynamics(
        structure=sail(Normal(2.0, 0.5)), noise=0.1, sensor_noise=0.2
    ),
    "uncertain function with context": bwm.KnownDynamics(structure=sail(Normal(2.0, 0.5)), noise=0.1),
}


def recordings(schema: bwm.Schema, *, missing: bool = False) -> bwm.Trajectories:
    g = make_generator(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    state = 0.2 * normal(4, 10, schema.state.size).cumsum(1)
    if missing:
        state[0, 4] = float("nan")
    seen = None if schema.observation is None else normal(4, 10, schema.observation.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.DataWarning)  # torques outside their bounds are recorded, too
        return bwm.Trajectories(
            schema,
            state=state,
            action=normal(4, 9, schema.action.size),
            observation=seen,
            context=normal(4, schema.context.size) if schema.context.size else None,
            reward=normal(4, 9) if schema.reward else None,
            lengths=[9, 3, 7, 1],
            allow_missing=missing,
        )


@pytest.mark.parametrize("name", KNOWN)
def test_known_dynamics_pass(name):
    report = check_model(KNOWN[name], recordings(KNOWN[name].schema, missing="context" in name))
    assert len(report.checks) == len(CHECKS)
    assert not {n for n, why in report.skipped.items() if "noise" not in why and "worlds are the posterior" not in why}


@given(linear_gaussian_systems())
@settings(max_examples=8, deadline=None)
def test_linear_gaussian_systems_pass(system):
    model = system.model()
    assert check_model(model, recordings(model.schema)).failed == ()


@pytest.mark.statistical
@pytest.mark.parametrize("seed", range(1, 4))
def test_other_seeds_pass_too(seed):
    """Sound models pass whatever the seed: see `test_no_seed_is_refused` for how often that was tried."""
    model = KNOWN["uncertain pendulum"]
    assert check_model(model, recordings(model.schema), seed=seed).failed == ()


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("name", ["pendulum", "uncertain pendulum", "uncertain function with context"])
def test_no_seed_is_refused(name):
    """200 seeds of each: with a budget of 1e-5 a run, one refusal or more of 600 has probability 6e-3 at most.

    Counted once over these and an ensemble, a hidden mode and a hidden velocity: 0 refusals in 1200 runs.
    """
    for seed in range(200):
        assert check_model(KNOWN[name], recordings(KNOWN[name].schema), seed=seed).failed == ()


@pytest.mark.parametrize(
    "worlds",
    [
        hidden_velocity_worlds(),
        hidden_mode_worlds(),
        LinearWorlds(
            {
                "A": torch.tensor([[[0.9, 0.1], [0.0, 0.8]], [[0.7, 0.0], [0.2, 0.9]]]).double(),
                "factor": torch.tensor([[[0.3, 0.0], [0.1, 0.2]], [[0.1, 0.0], [-0.3, 0.5]]]).double(),
            },
            exhaustive=True,
        ),
    ],
    ids=["hidden velocity", "hidden mode", "correlated noise"],
)
def test_other_kinds_of_worlds_pass(worlds):
    report = check_model(HiddenModel(worlds), recordings(worlds.schema))
    assert report.failed == ()
    assert "cannot be saved" in report.skipped["saved_model_answers_alike"]


def test_models_of_observations_alone_pass():
    worlds = hidden_velocity_worlds()
    full = recordings(worlds.schema)
    seen = bwm.Trajectories(
        worlds.schema, observation=full.observation, action=full.action, lengths=full.lengths, state=None
    )
    assert check_model(HiddenModel(worlds), seen).failed == ()


def test_result_does_not_depend_on_the_surroundings():
    model = KNOWN["uncertain pendulum"]
    before = torch.get_rng_state()
    data = recordings(model.schema)
    with torch.inference_mode():
        pass
    torch.set_default_dtype(torch.float64)
    try:
        assert check_model(model, data).failed == ()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        assert check_model(model, data).failed == ()
    assert bool((torch.get_rng_state() == before).all())


def test_time_varying_system_can_be_excused():
    class Clock(FromFunction):
        def transition(self, parameters, state, action, context, step):
            mean, scale = super().transition(parameters, state, action, context, step)
            return mean + torch.as_tensor(step, dtype=mean.dtype)[..., None], scale

    fn = LinearGaussianSystem(
        A=torch.eye(1).double(), B=torch.eye(1).double(), noise=torch.ones(1).double(), drift=torch.ones(1).double()
    ).model()
    structure = Clock(fn.structure.fn, schema=fn.schema, parameters=fn.structure.parameters(), name="clock")
    model = bwm.KnownDynamics(structure=structure, noise=1.0)
    with pytest.raises(ContractError, match="if the system changes with time on purpose, pass skip="):
        check_model(model, recordings(model.schema))
    report = check_model(model, recordings(model.schema), skip=("same_function_at_every_step",))
    assert report.skipped["same_function_at_every_step"] == "left out by skip="


def test_unknown_check_is_refused():
    model = KNOWN["pendulum"]
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'law_shapes'"):
        check_model(model, recordings(model.schema), skip=("law_shape",))


@pytest.mark.parametrize("p_value", [0.0, 1.0, -1.0, float("nan")])
def test_p_value_is_a_probability(p_value):
    model = KNOWN["pendulum"]
    with pytest.raises(bwm.SpecError, match="p_value between 0 and 1"):
        check_model(model, recordings(model.schema), p_value=p_value)


def test_trajectories_of_another_system_are_refused():
    with pytest.raises(bwm.SpecError, match="expected trajectories with state"):
        check_model(KNOWN["pendulum"], recordings(KNOWN["cart-pole"].schema))


def test_report_reads_as_a_table():
    model = KNOWN["pendulum"]
    text = str(check_model(model, recordings(model.schema), skip=tuple(list(CHECKS)[1:])))
    assert text.splitlines()[0].startswith(f"KnownDynamics: 1 passed, {len(CHECKS) - 1} skipped, 0 failed")
    assert "(left out by skip=)" in text


def test_a_model_that_refuses_on_purpose_breaks_no_promise():
    schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    g = make_generator(0)
    data = bwm.Trajectories(schema, state=torch.randn(9, 4, 1, generator=g), action=torch.randn(9, 3, 1, generator=g))
    graph = bwm.causal.TimeGraph([("s[t]", "s[t+1]"), ("a[t]", "s[t+1]")], confounded=[("a[t]", "s[t+1]")])
    linear = bwm.BayesianDynamics(structure=bwm.structures.Linear(), inference=bwm.inference.Conjugate())
    model = bwm.causal.CausalDynamics(graph, dynamics=linear).fit(data, seed=0, progress=False)
    with pytest.raises(bwm.ConfoundedError, match="does not follow from this log"):
        check_model(model, data)
