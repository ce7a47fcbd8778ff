from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import Learned, Mechanism, StructuralModel, intervene
from bayeswm.testing import check_model
from tests.causal.reference_models import EMPTY, c1


def one_slice(model: bwm.DynamicsModel, *interventions: bwm.causal.Intervention) -> bwm.Predictive:
    return intervene(model, *interventions).predictive(torch.zeros(model.schema.state.size), EMPTY)


def test_parameters_lags_actions_and_context() -> None:
    schema = bwm.Schema(
        state=[bwm.Variable("s"), bwm.Variable("q")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c")],
        time_step=1.0,
    )
    model = StructuralModel(
        {
            "s": Mechanism(lambda s, a, c, gain: 0.5 * s + gain * a + c, ("s[t-1]", "a", "c", "gain"), noise="sd"),
            "q": Mechanism(lambda s, old: s - old, ("s[t]", "s[t-1]")),
        },
        schema=schema,
        parameters={"gain": Normal(2.0, 0.1), "sd": 0.3},
    )
    drawn = model.draw(5, generator=torch.Generator().manual_seed(0))
    law = drawn.transition(
        torch.tensor([2.0, 0.0], dtype=torch.float64).expand(5, 1, 2),
        torch.ones(1).double(),
        3 * torch.ones(1).double(),
    )
    torch.testing.assert_close(law.mean[:, 0, 0], 4 + drawn.parameters["gain"])
    torch.testing.assert_close(law.mean[:, 0, 1], 2 + drawn.parameters["gain"])
    torch.testing.assert_close(law.variance, torch.full((5, 1, 2), 0.09).double())
    assert law.noise_size == 1


def test_errors_of_structural_models() -> None:
    with pytest.raises(bwm.SpecError, match="cycle"):
        StructuralModel({"a": Mechanism(lambda b: b), "b": Mechanism(lambda a: a)})
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'speed'"):
        StructuralModel({"speed": Mechanism(lambda: 0.0), "x": Mechanism(lambda sped: sped)})
    schema = bwm.Schema(state=[bwm.Variable("a"), bwm.Variable("b")], time_step=1.0)
    with pytest.raises(bwm.SpecError, match="got none for 'b'"):
        StructuralModel({"a": Mechanism(lambda: 0.0)}, schema=schema)
    with pytest.raises(bwm.SpecError, match="cycle"):
        one_slice(c1(), bwm.do(Z=Mechanism(lambda Y: Y)))
    with pytest.raises(bwm.SpecError, match="a Mechanism or Learned for 'a'"):
        StructuralModel({"a": lambda: 0.0})  # pyright: ignore[reportArgumentType]


def test_a_structural_model_keeps_the_contract() -> None:
    schema = bwm.Schema(
        state=[bwm.Variable("s"), bwm.Variable("q")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c")],
        time_step=1.0,
    )
    model = StructuralModel(
        {
            "s": Mechanism(lambda s, a, c, gain: 0.5 * s + gain * a + c, ("s[t-1]", "a", "c", "gain"), noise="sd"),
            "q": Mechanism(lambda s, old, q: 0.5 * s + 0.2 * old * s + 0.3 * q, ("s", "s[t-1]", "q[t-1]"), noise=0.5),
        },
        schema=schema,
        parameters={"gain": Normal(1.0, 0.1), "sd": 0.3},
    )
    g = torch.Generator().manual_seed(0)
    start, push, c = (torch.randn(6, *shape, generator=g, dtype=torch.float64) for shape in ((2,), (12, 1), (1,)))
    x = bwm.rollout(model, start, push, context=c, worlds=1, particles=1, generator=g).particles[0, 0]
    data = bwm.Trajectories(schema, state=torch.cat((start[:, None], x), 1), action=push, context=c)
    assert check_model(model, data).failed == ()


def test_repr_says_who_depends_on_whom():
    model = StructuralModel(
        {"z": Mechanism(lambda: 0.0), "x": Mechanism(lambda z: z), "y": Mechanism(lambda a, b: a + b, ("x", "z[t-1]"))}
    )
    assert repr(model) == "StructuralModel(z; x <- z; y <- x, z[t-1])"


def test_what_is_no_recorded_data_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match="expected Trajectories, got dict; make them by"):
        c1().fit({"X": [0.0]})  # pyright: ignore[reportArgumentType]


def test_parameters_are_where_the_learned_mechanisms_are(generator: torch.Generator) -> None:
    """Meta tensors have a device and no values, so that this needs no other device."""
    line = bwm.structures.Linear(c=Normal(0.0, 1.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    model = StructuralModel(
        {"X": Learned(linear), "Y": Mechanism(lambda X, gain, rate: gain * X + rate, ("X", "gain", "rate"), noise=1.0)},
        parameters={"gain": Normal(0.0, 1.0), "rate": 2.0},
    )
    log = bwm.Trajectories(model.schema, state=torch.randn(20, 2, 2, generator=generator).double())
    model.fit(log, seed=0, progress=False)
    inside = {k: m.draw(3, generator=generator).to("meta") for k, m in model.regressions.items()}
    drawn = model._draw(inside, 3, generator=generator)
    assert {str(drawn.parameters[k].device) for k in ("gain", "rate")} == {"meta"}
    assert str(drawn.log_weight.device) == "meta"


def test_bounds_are_warned_of_when_the_log_is_made_and_not_again(tmp_path: Path, generator: torch.Generator) -> None:
    state, action = (torch.randn(30, n, 1, generator=generator).double() for n in (6, 5))
    schema = bwm.Schema(
        state=[bwm.Variable("s", bounds=(-1, 1))], action=[bwm.Variable("a", bounds=(-1, 1))], time_step=1.0
    )
    with pytest.warns(bwm.base.DataWarning, match="outside its bounds"):
        log = bwm.Trajectories(schema, state=state, action=action)
    linear = bwm.BayesianDynamics(structure=bwm.structures.Linear(), inference=bwm.inference.Conjugate())
    model = StructuralModel({"s": Learned(linear, ("s[t-1]", "a"))}, schema=schema)
    # warnings are errors in tests
    model.fit(log, seed=0, progress=False).save(tmp_path / "model")
    assert bwm.load(tmp_path / "model").schema.state["s"].bounds == (-1, 1)
