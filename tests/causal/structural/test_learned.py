"""Learned mechanisms: whatever the family, the slice is made of what the family learned."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import Learned, Mechanism, StructuralModel, counterfactual, intervene, shift
from bayeswm.causal.structural.regression import Regression
from bayeswm.testing import check_model
from tests.causal.learned_models import C1, C2, ensemble, gaussian_process, learned, linear, recorded
from tests.causal.reference_models import EMPTY, c1, c2

FAMILIES = {"conjugate": linear, "gaussian process": gaussian_process, "ensemble": lambda: ensemble(epochs=3)}


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request: pytest.FixtureRequest) -> StructuralModel:
    """C2 learned by each family from a few rows."""
    return learned(FAMILIES[request.param](), C2).fit(recorded(c2(), 200, varied="s"), seed=0, progress=False)


def drawn(model: StructuralModel, worlds: int = 5) -> bwm.causal.StructuralWorlds:
    return model.draw(worlds, generator=torch.Generator().manual_seed(0))


def slices(count: int = 6, size: int = 3) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_a_slice_is_made_of_what_each_family_learned(fitted: StructuralModel) -> None:
    worlds, before, x = drawn(fitted), slices(), slices()
    law = worlds.transition(before[None, None], EMPTY.double())
    e, a, _ = x.unbind(-1)
    parents = {"e": [], "a": [before[:, 2], e], "s": [a, e]}  # s[t-1] is the state of the regression of s
    total, noise = torch.zeros(()), []
    for name, given in parents.items():
        own = worlds.regressions[name]
        state = before[:, 2:] if name == "s" else torch.zeros(6, 1).double()
        inputs = torch.stack(given, -1) if given else torch.zeros(6, 0).double()
        found = own.transition(state.expand(len(worlds), 1, 6, 1), inputs)
        value = x[:, [("e", "a", "s").index(name)]]
        total = total + found.log_prob(value)
        noise.append(found.abduct(value))
    torch.testing.assert_close(law.log_prob(x), total.expand(len(worlds), 1, 6))
    torch.testing.assert_close(law.abduct(x), torch.cat([n.expand(len(worlds), 1, 6, 1) for n in noise], -1))
    torch.testing.assert_close(law.push(law.abduct(x)), x.expand(len(worlds), 1, 6, 3), rtol=0, atol=1e-9)


def test_interventions_replace_a_learned_mechanism_inside_the_slice(fitted: StructuralModel) -> None:
    worlds, start = drawn(fitted), torch.tensor([[0.0, 0.0, 1.0]]).double()
    law = intervene(worlds, bwm.do(a=1.0, e=0.5)).transition(start[None, None], EMPTY.double())
    direct = worlds.regressions["s"].transition(
        torch.ones(len(worlds), 1, 1, 1).double(), torch.tensor([[1.0, 0.5]]).double()
    )
    torch.testing.assert_close(law.mean[..., 2], direct.mean[..., 0].expand(len(worlds), 1, 1))
    torch.testing.assert_close(law.variance[..., 2], direct.variance[..., 0].expand(len(worlds), 1, 1))
    assert law.mean[..., :2].unique().tolist() == [0.5, 1.0]
    mechanism = intervene(worlds, bwm.do(a=Mechanism(lambda e: 2 * e))).transition(start[None, None], EMPTY.double())
    x = mechanism.push(torch.ones(1, 1, 1, 3).double())
    torch.testing.assert_close(x[..., 1], 2 * x[..., 0])


def test_the_factual_intervention_returns_the_factual(fitted: StructuralModel) -> None:
    blank = torch.zeros(1, 3, dtype=torch.float64)
    episode = torch.cat((blank, slices(4)))
    factual = bwm.Trajectories(fitted.schema, state=episode[None])
    g = torch.Generator().manual_seed(0)
    same = counterfactual(fitted, factual, bwm.do(a=shift(0.0)), in_training=True, worlds=5, generator=g)
    torch.testing.assert_close(same.mean[0], episode[1:], rtol=0, atol=1e-9)
    assert float(same.variance.max()) < 1e-18
    moved = counterfactual(fitted, factual, bwm.do({"a": 2.0}, steps=2), in_training=True, worlds=5, generator=g)
    torch.testing.assert_close(moved.mean[0, :1], episode[1:2], rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.mean[0, :, 0], episode[1:, 0], rtol=0, atol=1e-9)  # no descendant of the action
    assert moved.mean[0, 1, 1].item() == pytest.approx(2.0)
    assert float((moved.mean[0, 1:, 2] - episode[2:, 2]).abs().min()) > 0


def test_worlds_are_a_collection(fitted: StructuralModel) -> None:
    worlds, before = drawn(fitted), slices()
    law = worlds.transition(before[None, None], EMPTY.double())
    pushed = law.push(torch.ones(1, 1, 1, 3).double())
    part = worlds[[3, 1]]
    torch.testing.assert_close(
        part.transition(before[None, None], EMPTY.double()).push(torch.ones(1, 1, 1, 3).double()), pushed[[3, 1]]
    )
    assert (len(part), part.exhaustive) == (2, False)
    assert [n for n in worlds.parameters if n.startswith("s.")] == [
        f"s.{n}" for n in worlds.regressions["s"].parameters
    ]
    weight = torch.arange(1.0, len(worlds) + 1)
    heavier = worlds.reweight(weight.log())
    torch.testing.assert_close(heavier.weight.float(), weight / weight.sum())
    again = heavier.transition(before[None, None], EMPTY.double())
    torch.testing.assert_close(again.push(torch.ones(1, 1, 1, 3).double()), pushed)
    name = next(iter(worlds.parameters))
    rolled = worlds.replace(**{name: worlds.parameters[name].roll(1, 0)})
    assert torch.equal(rolled.parameters[name], worlds.parameters[name].roll(1, 0))
    single = worlds.to(torch.float32)
    assert {single.dtype, *(v.dtype for v in single.parameters.values())} == {torch.float32}
    found = single.transition(before[None, None].float(), EMPTY).push(torch.ones(1, 1, 1, 3))
    # the weights of a process are large against its values, and so is their rounding
    torch.testing.assert_close(found.double(), pushed, rtol=0, atol=1e-2)


def test_laws_whose_axes_were_moved_are_the_same(fitted: StructuralModel) -> None:
    worlds, before = drawn(fitted), slices()
    law, noise = worlds.transition(before.expand(len(worlds), 2, 6, 3), EMPTY.double()), torch.ones(1, 1, 1, 3).double()
    pushed, order = law.push(noise), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(law.map(lambda v: v[order]).push(noise), pushed[order])
    torch.testing.assert_close(law.map(lambda v: v[:1]).push(noise), pushed[:1])
    index = torch.tensor([4, 4, 0, 1, 2, 3, 3])
    torch.testing.assert_close(law.map(lambda v: v[index, 0][None]).push(noise), pushed[index, 0][None])
    again = law.map(lambda v: v.flip(0).transpose(0, 1)).map(lambda v: v.transpose(0, 1).flip(0))
    torch.testing.assert_close(again.push(noise), pushed)


def test_noise_set_by_hand_in_a_learned_mechanism() -> None:
    model = learned(linear(), C1).fit(recorded(c1(), 100), seed=0, progress=False)
    worlds = drawn(model)
    quiet = intervene(worlds, bwm.do({"Y.process_noise": 0.0}))
    law = quiet.transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    x = law.push(torch.ones(1, 1, 3).double())
    own = worlds.regressions["Y"].transition(torch.zeros(5, 1, 1).double(), x[..., 1:])
    torch.testing.assert_close(x[..., :1], own.mean)


# --- fitting --------------------------------------------------------------------------------------------------------


def test_each_variable_has_a_copy_of_its_own() -> None:
    prototype = linear()
    model = learned(prototype, C1).fit(recorded(c1(), 50), seed=0, progress=False)
    with pytest.raises(bwm.SpecError, match="expected a fitted model"):
        prototype.draw(1, generator=torch.Generator().manual_seed(0))
    fits = model.regressions
    assert len({id(m) for m in fits.values()}) == 3
    assert fits["Y"].schema.action.names == ("X", "Z")
    again = learned(prototype, C1).fit(recorded(c1(), 50), seed=0, progress=False)
    other = learned(prototype, C1).fit(recorded(c1(), 50), seed=1, progress=False)
    b = [drawn(m).parameters["Y.B"] for m in (model, again, other)]
    assert torch.equal(b[0], b[1])
    assert not torch.equal(b[0], b[2])


def test_known_mechanisms_stay_beside_learned_ones() -> None:
    model = StructuralModel(
        {
            "Y": Learned(linear(), ("X", "Z")),
            "X": Mechanism(lambda Z, gain: gain * Z, noise="sd"),
            "Z": Mechanism(lambda: 0.0, noise=1.0),
        },
        parameters={"gain": Normal(1.0, 0.1), "sd": 1.0},
    )
    model.fit(recorded(c1(), 50), seed=0, progress=False)
    worlds = drawn(model)
    assert worlds.parameters["gain"].shape == (5,)
    x = worlds.transition(torch.zeros(1, 1, 3).double(), EMPTY.double()).push(torch.ones(1, 1, 3).double())
    torch.testing.assert_close(x[:, 0, 1], worlds.parameters["gain"] + 1)
    fixed = worlds.replace(gain=3.0)
    x = fixed.transition(torch.zeros(1, 1, 3).double(), EMPTY.double()).push(torch.ones(1, 1, 3).double())
    torch.testing.assert_close(x[:, 0, 1], torch.full((5,), 4.0).double())


def test_a_function_of_the_schema_as_prototype() -> None:
    seen: list[bwm.Schema] = []

    def prototype(schema: bwm.Schema) -> bwm.DynamicsModel:
        seen.append(schema)
        return linear()

    learned(prototype, C1).fit(recorded(c1(), 50), seed=0, progress=False)
    assert [s.state.names for s in seen] == [("Y",), ("X",), ("Z",)]
    with pytest.raises(bwm.SpecError, match="Y: expected a function that returns a model for a schema, got int"):
        learned(lambda schema: 1, C1).fit(recorded(c1(), 50), seed=0)


def test_the_blank_state_is_no_news(recwarn: pytest.WarningsRecorder) -> None:
    data = recorded(c1(), 60)
    for prototype in (gaussian_process(), ensemble(epochs=1)):
        learned(prototype, {**C1, "Z": ("X",), "X": ()}).fit(data, seed=0, progress=False)
    assert len(recwarn) == 0
    flat = bwm.data.from_rows({"Y": [0.1, 0.2, 0.4, 0.1], "X": [1.0] * 4, "Z": [0.0, 1.0, 2.0, 1.5]})
    with pytest.warns(bwm.DataWarning, match="X"):
        learned(ensemble(epochs=1), C1).fit(flat, seed=0, progress=False)


def test_conditioning_is_that_of_each_regression() -> None:
    half, more = recorded(c1(), 60), recorded(c1(), 40, seed=2)
    both = bwm.Trajectories.concatenate([half, more])
    known = linear(noise=1.0)
    g = torch.Generator().manual_seed(0)
    given, at_once = (
        m.draw(2000, generator=g).parameters["Y.B"][:, 0]
        for m in (
            learned(known, C1).fit(half, seed=0, progress=False).condition(more),
            learned(known, C1).fit(both, seed=0, progress=False),
        )
    )
    # the same normal law twice, by 1,000 draws each, of which all are taken
    z = (given.mean(0) - at_once.mean(0)) / (at_once.std(0) * (2 / 1000) ** 0.5)
    assert float(z.abs().max()) < 4.5
    model = learned(gaussian_process(), C1).fit(half, seed=0, progress=False)
    new = model.condition(more)
    assert model.condition(more, in_training=True) is model
    question = torch.zeros(1).double(), torch.tensor([1.0, 0.5]).double()
    exact = model.regressions["Y"].condition(Regression.of("Y", C1["Y"], model.schema).rows(more))
    assert isinstance(exact, bwm.GaussianProcess)
    found = new.regressions["Y"]
    assert isinstance(found, bwm.GaussianProcess)
    torch.testing.assert_close(found.posterior(*question), exact.posterior(*question))
    with pytest.raises(bwm.SpecError, match="reweight"):
        learned(ensemble(epochs=1), C1).fit(half, seed=0, progress=False).condition(more)


# --- files ----------------------------------------------------------------------------------------------------------


def test_learned_models_are_saved(fitted: StructuralModel, tmp_path: Path) -> None:
    path = tmp_path / "model.bwm"
    fitted.save(path)
    again = bwm.load(path)
    assert isinstance(again, StructuralModel)
    assert again.schema == fitted.schema
    a, b = (drawn(m).transition(slices()[None, None], EMPTY.double()).push(torch.ones(1, 1, 1, 3).double())
            for m in (fitted, again))  # fmt: skip
    assert torch.equal(a, b)
    # a loaded model can learn anew
    assert again.fit(recorded(c2(), 30, varied="s"), seed=0, progress=False) is again


def test_a_saved_model_needs_no_import_of_its_package(tmp_path: Path) -> None:
    learned(linear(), C1).fit(recorded(c1(), 20), seed=0, progress=False).save(tmp_path / "model.bwm")
    code = "import sys, bayeswm; print('bayeswm.causal' in sys.modules, type(bayeswm.load(sys.argv[1])).__name__)"
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.bwm")], capture_output=True, check=True)
    assert ran.stdout.decode().split() == ["False", "StructuralModel"]


def test_known_mechanisms_are_not_saved_but_put_together_again(tmp_path: Path) -> None:
    def build(y: Learned) -> StructuralModel:
        known = {"X": Mechanism(lambda Z: Z, noise=1.0), "Z": Mechanism(lambda: 0.0, noise=1.0)}
        return StructuralModel({"Y": y, **known})

    model = build(Learned(linear(), ("X", "Z"))).fit(recorded(c1(), 50), seed=0, progress=False)
    with pytest.raises(bwm.SpecError, match=r"mechanisms of X, Z, .* Learned\(loaded, parents=\.\.\.\)"):
        model.save(tmp_path / "model.bwm")
    model.regressions["Y"].save(tmp_path / "y.bwm")
    again = build(Learned(bwm.load(tmp_path / "y.bwm"), ("X", "Z")))
    assert torch.equal(drawn(model).parameters["Y.B"], drawn(again).parameters["Y.B"])
    wrong = build(Learned(bwm.load(tmp_path / "y.bwm"), ("Z", "X")))
    with pytest.raises(bwm.SpecError, match="the regression of 'Y'"):
        drawn(wrong)


# --- the contract ---------------------------------------------------------------------------------------------------


def contract_case(prototype: bwm.DynamicsModel, *, chained: bool) -> tuple[StructuralModel, bwm.Trajectories]:
    """A process with action and context; chained, one variable depends on another one of its slice."""
    schema = bwm.Schema(
        state=[bwm.Variable("s"), bwm.Variable("q")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c")],
        time_step=1.0,
    )
    parents = {"s": ("s[t-1]", "a", "c"), "q": ("s", "q[t-1]") if chained else ("s[t-1]", "q[t-1]")}
    truth = StructuralModel(
        {
            "s": Mechanism(lambda s, a, c: 0.5 * s + a + c, parents["s"], 0.3),
            "q": Mechanism(lambda s, q: 0.5 * s + 0.3 * q, parents["q"], 0.5),
        },
        schema=schema,
    )
    g = torch.Generator().manual_seed(0)
    start, push, c = (torch.randn(12, *shape, generator=g, dtype=torch.float64) for shape in ((2,), (15, 1), (1,)))
    data = bwm.data.simulate(truth, start, push, context=c, generator=g)
    model = StructuralModel({k: Learned(prototype, p) for k, p in parents.items()}, schema=schema)
    return model.fit(data, seed=0, progress=False), data


def test_learned_linear_mechanisms_keep_the_contract() -> None:
    assert check_model(*contract_case(linear(), chained=True)).failed == ()


@pytest.mark.parametrize("prototype", [gaussian_process(), ensemble(epochs=5)])
def test_learned_mechanisms_keep_the_contract(prototype: bwm.DynamicsModel) -> None:
    assert check_model(*contract_case(prototype, chained=False)).failed == ()


@pytest.mark.slow
def test_chained_nonlinear_mechanisms_keep_the_contract() -> None:
    assert check_model(*contract_case(ensemble(epochs=5), chained=True)).failed == ()


def test_what_cannot_be_learned() -> None:
    with pytest.raises(bwm.SpecError, match="unfitted model such as"):
        Learned(3.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(bwm.SpecError, match="sequence of names, got the string"):
        Learned(linear(), "X")  # pyright: ignore[reportArgumentType]
    assert repr(Learned(linear(), ("X",))) == "Learned(BayesianDynamics(structure=Linear), parents=('X',))"
    with pytest.raises(bwm.SpecError, match="cycle"):
        learned(linear(), {"a": ("b",), "b": ("a",)})
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'speed'"):
        learned(linear(), {"speed": (), "x": ("sped",)})
    with pytest.raises(bwm.SpecError, match="fit it"):
        learned(linear(), C1).draw(3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(bwm.SpecError, match=r"call \.fit"):
        learned(lambda schema: linear(), C1).draw(3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(bwm.SpecError, match="expected state"):
        learned(linear(), C1).fit(recorded(c2(), 20), seed=0)
    heavy = bwm.BayesianDynamics(
        structure=bwm.structures.Linear(A=0.0, c=Normal(0.0, 10.0)),
        likelihood=bwm.inference.StudentTLikelihood(),
        inference=bwm.inference.Laplace(),
    )
    model = learned(heavy, C1).fit(recorded(c1(), 50), seed=0, progress=False)
    with pytest.raises(bwm.SpecError, match="Gaussian noise for a learned mechanism"):
        drawn(model).transition(torch.zeros(1, 1, 3).double(), EMPTY.double()).push(torch.zeros(1, 1, 3).double())
