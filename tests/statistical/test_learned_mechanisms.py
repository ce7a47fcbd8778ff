"""The reference answers from learned mechanisms: posteriors that hold the truth, and families that come close to it."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import Learned, StructuralModel, StructuralWorlds, counterfactual, effect, intervene
from tests.causal.learned_models import (
    C1,
    C2,
    C5,
    C6,
    ensemble,
    gaussian_process,
    learned,
    linear,
    recorded,
    with_product,
)
from tests.causal.reference_models import EMPTY, c1, c2, c3, c5, c6, line, observed
from tests.causal.structural.test_worlds import DO

ROWS, DRAWS = 20_000, 1000
AT = torch.tensor([0.0, 0.0, 1.0])


def draws(model: bwm.DynamicsModel) -> StructuralWorlds:
    worlds = model.draw(DRAWS, generator=torch.Generator().manual_seed(3))
    assert isinstance(worlds, StructuralWorlds)
    return worlds


def moments(worlds: bwm.Worlds, state: Tensor, *interventions: bwm.causal.Intervention) -> tuple[Tensor, Tensor]:
    """Mean and variance of the next state in each world, shape (worlds, S)."""
    law = intervene(worlds, *interventions).transition(state.double().expand(len(worlds), 1, -1), EMPTY.double())
    return law.mean[:, 0], law.variance[:, 0]


def holds(found: Tensor, truth: float) -> None:
    """The truth is a plausible draw from a posterior that draws (worlds,) represent, which is nearly normal."""
    z = (truth - float(found.mean())) / float(found.std())
    assert 2 * stats.norm.sf(abs(z)) > 1e-5, (float(found.mean()), float(found.std()), truth)


def seen() -> bwm.Trajectories:
    return bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5], [0.9]]], action=[[[0.0]] * 3])


def steps(rows: int) -> bwm.Trajectories:
    """Steps of C3 from anywhere, under random actions."""
    g = torch.Generator().manual_seed(1)
    start, action = (torch.randn(rows, *n, generator=g, dtype=torch.float64) for n in ((1,), (1, 1)))
    return bwm.data.simulate(c3(), start, action, generator=g)


def c3_learned(prototype: object) -> StructuralModel:
    return StructuralModel({"s": Learned(prototype, ("s[t-1]", "a"))}, schema=line())  # pyright: ignore[reportArgumentType]


def test_a_parameter_that_the_branches_share_is_exact() -> None:
    """theta ~ N(1, 1), s1 = theta a + w, w ~ N(0, 1); a = 1 and s1 = 2 were seen: theta ~ N(1.5, 0.5)."""
    structure = bwm.structures.Linear(A=0.0, B=Normal(1.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, noise=1.0, inference=bwm.inference.Conjugate())
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    nodes = model.fit(factual, seed=0, progress=False).nodes()
    for action, mean, variance in ((3.0, 5.0, 2.0), (1.0, 2.0, 0.0)):
        found = counterfactual(nodes, factual, bwm.do(a=action), in_training=True)
        assert found.mean.item() == pytest.approx(mean, abs=1e-9)
        assert found.variance.item() == pytest.approx(variance, abs=1e-9)
    fresh = intervene(nodes, bwm.do(a=3.0))
    p = bwm.rollout(fresh, torch.zeros(1), torch.zeros(1, 1), generator=torch.Generator().manual_seed(0))
    assert (p.mean.item(), p.variance.item()) == (pytest.approx(4.5, abs=1e-9), pytest.approx(5.5, abs=1e-9))
    # the same as one mechanism of a structural model
    part = StructuralModel({"s": Learned(model, ("a",))}, schema=line())
    assert part.regressions["s"] is model
    slices = StructuralWorlds(
        part.mechanisms, line(), {}, regressions={"s": nodes}, log_weight=nodes.log_weight, exhaustive=True
    )
    found = counterfactual(slices, factual, bwm.do(a=3.0), in_training=True)
    assert (found.mean.item(), found.variance.item()) == (pytest.approx(5.0, abs=1e-9), pytest.approx(2.0, abs=1e-9))


# --- closed form ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def back_door() -> StructuralModel:
    return learned(linear(), C1).fit(recorded(c1(), ROWS), seed=0, progress=False)


@pytest.mark.parametrize(("intervention", "mean", "variance"), DO)
def test_every_kind_of_intervention(
    back_door: StructuralModel, intervention: bwm.causal.Intervention, mean: float, variance: float
) -> None:
    means, variances = moments(draws(back_door), torch.zeros(3), intervention)
    holds(means[:, 0], mean)
    holds(variances[:, 0], variance)


def test_a_confounder_that_was_recorded() -> None:
    data = recorded(c2(), ROWS, varied="s")
    worlds = draws(learned(linear(), C2).fit(data, seed=0, progress=False))
    naive = learned(linear(), {"e": (), "a": (), "s": ("s[t-1]", "a")}).fit(data, seed=0, progress=False)
    conditional, one = draws(naive), bwm.do(a=1.0)
    holds(worlds.parameters["s.A"][:, 0, 0], 0.9)
    holds(worlds.parameters["s.B"][:, 0, 0], 0.5)
    holds(conditional.parameters["s.A"][:, 0, 0], 1.05)
    holds(conditional.parameters["s.B"][:, 0, 0], 1.0)
    answers = ((worlds, (1.4, 1.01), (1.76, 1.8281)), (conditional, (2.05, 0.51), (3.1525, 1.0723)))
    for system, first, second in answers:
        mean, variance = moments(system, AT, one)
        slope = moments(system, AT + 1, one)[0] - mean
        after, own = mean[:, 2] + slope[:, 2] * (mean[:, 2] - 1), variance[:, 2]
        for found, truth in zip(
            (mean[:, 2], own, after, own * (1 + slope[:, 2].square())), first + second, strict=True
        ):
            holds(found, truth)


def test_the_g_formula_and_the_regressions_that_are_not_it() -> None:
    data = recorded(c5(), ROWS)
    worlds = draws(learned(linear(), C5).fit(data, seed=0, progress=False))
    mean, variance = moments(worlds, torch.zeros(5), bwm.do(A0=1.0, A1=0.0))
    holds(mean[:, 4], 1.0)
    holds(variance[:, 4], 6.0)
    for parents, coefficients in ((("A0", "A1"), (0.0, 2.0)), (("A0", "A1", "L1"), (-0.5, 1.0, 1.5))):
        wrong = draws(
            StructuralModel({**c5().mechanisms, "Y": Learned(linear(), parents)}).fit(data, seed=0, progress=False)
        )
        for found, truth in zip(wrong.parameters["Y.B"][:, 0].unbind(-1), coefficients, strict=True):
            holds(found, truth)


def test_mediation_with_an_interaction() -> None:
    model = learned(linear(), C6, Y=with_product).fit(recorded(c6(), ROWS), seed=0, progress=False)
    worlds, zero = draws(model), torch.zeros(3)
    mean = {v: moments(worlds, zero, bwm.do(X=v))[0][:, 2] for v in (0.0, 1.0)}
    held = {v: moments(worlds, zero, bwm.do(X=v, M=0.0))[0][:, 2] for v in (0.0, 1.0)}
    holds(mean[1.0] - mean[0.0], 2.75)
    holds(held[1.0] - held[0.0], 1.0)
    g = torch.Generator().manual_seed(0)
    given = {"mediator": "M", "state": zero, "horizon": 1, "particles": 2000, "generator": g}
    found = bwm.causal.mediation(worlds, bwm.do(X=1.0), bwm.do(X=0.0), **given).sel(horizon=1, variable="Y")  # pyright: ignore[reportArgumentType]
    names = ("Y.first", "Y.second", "Y.both", "M.c", "M.B")
    first, second, both, at, slope = (worlds.parameters[k].flatten() for k in names)
    exact = {
        "total": (2.75, first + second * slope + both * (at + slope)),
        "natural_direct": (1.25, first + both * at),
        "natural_indirect": (1.0, second * slope),
        "total_indirect": (1.5, (second + both) * slope),
    }
    for name, (truth, by_world) in exact.items():
        error = math.hypot(float(by_world.std()), found[f"{name}_error"].item())
        assert 2 * stats.norm.sf(abs(found[name].item() - truth) / error) > 1e-5, name


COUNTERFACTUALS = [
    (lambda p: learned(p, C1), lambda: recorded(c1(), ROWS), lambda: observed(c1(), [[2.0, 1.0, 0.5]]),
     bwm.do(X=-1.0), [[-2.0, -1.0, 0.5]]),
    (c3_learned, lambda: steps(ROWS), seen, bwm.do({"a": 1.0}, steps=0), [[1.5], [0.9], [1.22]]),
    # noise of M 0.2, of Y 3 - 0.5 - 1.1 - 0.275
    (lambda p: learned(p, C6, **({"Y": with_product} if isinstance(p, bwm.BayesianDynamics) else {})),
     lambda: recorded(c6(), ROWS), lambda: observed(c6(), [[0.5, 2.2, 3.0]]), bwm.do(X=1.0), [[1.0, 3.2, 4.525]]),
]  # fmt: skip
System = Callable[[object], StructuralModel]
Data = Callable[[], bwm.Trajectories]


@pytest.mark.parametrize(("system", "data", "factual", "intervention", "truth"), COUNTERFACTUALS)
def test_counterfactuals(
    system: System, data: Data, factual: Data, intervention: bwm.causal.Intervention, truth: list[list[float]]
) -> None:
    model = system(linear()).fit(data(), seed=0, progress=False)
    g = torch.Generator().manual_seed(0)
    found = counterfactual(model, factual(), intervention, worlds=DRAWS, generator=g)
    wanted = torch.tensor(truth, dtype=torch.float64)
    z = (found.mean[0] - wanted) / found.variance[0].sqrt().clamp(min=1e-9)
    assert 2 * stats.norm.sf(float(z.abs().max())) > 1e-5
    assert float(found.variance.max()) < 1e-3
    same = counterfactual(model, factual(), bwm.do({"X": bwm.causal.shift(0.0)} if "X" in model.schema.state.names else
                                                   {"a": 0.0}), generator=g)  # fmt: skip
    torch.testing.assert_close(same.mean[0], factual().states()[0, 1:], rtol=0, atol=1e-9)
    assert float(same.variance.max()) < 1e-18


# --- other families -------------------------------------------------------------------------------------------------


def errors(prototype: bwm.DynamicsModel) -> dict[str, float]:
    """Errors of effects and counterfactuals after 20,000 rows, in standard deviations of the outcome."""
    g, do, found = torch.Generator().manual_seed(0), bwm.do, dict[str, float]()
    cases = [
        ("C1", c1(), C1, None, do(X=1.0), do(X=0.0), "Y", 2.0),
        ("C2", c2(), C2, "s", do(a=1.0), do(a=0.0), "s", 0.5),
        ("C5", c5(), C5, None, do(A0=1.0, A1=0.0), do(A0=0.0, A1=0.0), "Y", 1.0),
        ("C6", c6(), C6, None, do(X=1.0), do(X=0.0), "Y", 2.75),
    ]
    for name, truth, parents, varied, treatment, control, outcome, value in cases:
        data = recorded(truth, ROWS, varied=varied)
        model = learned(prototype, {k: parents[k] for k in truth.schema.state.names}).fit(data, seed=0, progress=False)
        sd = data.states()[:, 1, truth.schema.state.column(outcome)].std().item()
        given = {"state": AT if varied else torch.zeros(truth.schema.state.size), "worlds": 16, "generator": g}
        answer = effect(model, treatment, control, horizon=1, **given)  # pyright: ignore[reportArgumentType]
        found[name] = (answer.effect.sel(horizon=1, variable=outcome).item() - value) / sd
        if name == "C6":
            parts = bwm.causal.mediation(model, treatment, control, mediator="M", horizon=1, particles=5000, **given)  # pyright: ignore[reportArgumentType]
            parts = parts.sel(horizon=1, variable="Y")
            for part, exact in (("natural_direct", 1.25), ("natural_indirect", 1.0), ("total_indirect", 1.5)):
                found[f"C6 {part}"] = (parts[part].item() - exact) / sd
            held = effect(model, do(X=1.0, M=0.0), do(X=0.0, M=0.0), horizon=1, **given)  # pyright: ignore[reportArgumentType]
            found["C6 controlled direct"] = (held.effect.sel(horizon=1, variable="Y").item() - 1.0) / sd
    in_training = isinstance(prototype, bwm.DeepEnsemble)
    for name, (system, data, factual, intervention, exact) in zip(("C1", "C3", "C6"), COUNTERFACTUALS, strict=True):
        rows = data()
        model = system(prototype).fit(rows, seed=0, progress=False)
        answer = counterfactual(model, factual(), intervention, worlds=16, in_training=in_training, generator=g)
        off = (answer.mean[0] - torch.tensor(exact)) / rows.states()[:, 1].std(0)
        found[f"counterfactual {name}"] = float(off.abs().max())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("prototype", [gaussian_process(), ensemble()])
def test_families_come_within_a_twentieth_of_the_outcomes_spread(prototype: bwm.DynamicsModel) -> None:
    found = errors(prototype)
    assert max(map(abs, found.values())) <= 0.05, found
