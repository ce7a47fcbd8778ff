import pytest
import torch

import bayeswm as bwm
from bayeswm.base import DivergenceWarning
from bayeswm.causal import Learned, Mechanism, StructuralModel, path_effect
from tests.causal.reference_models import c3, c6


def along(model: StructuralModel, paths: list[tuple[str, ...]], generator: torch.Generator) -> float:
    x1, x0 = bwm.do(X=1.0), bwm.do(X=0.0)
    state = torch.zeros(model.schema.state.size)
    found = path_effect(model, x1, x0, paths=paths, state=state, particles=200_000, generator=generator)
    assert found.variable.item() == "Y"
    # what comes with X itself varies with the mediator's noise, 0.25 of it
    assert found.standard_error.item() < 0.3 / 200_000**0.5
    return found.effect.item()


def test_mediation_with_an_interaction(generator: torch.Generator) -> None:
    paths = {1.25: [("X", "Y")], 1.0: [("X", "M", "Y")], 2.75: [("X", "Y"), ("X", "M", "Y")]}
    for expected, some in paths.items():
        assert along(c6(), some, generator) == pytest.approx(expected, abs=4.5 * 0.25 / 200_000**0.5)


def two_mediators() -> StructuralModel:
    """X -> A -> Y, X -> B -> Y, A -> B, X -> Y; all linear."""
    return StructuralModel(
        {
            "Y": Mechanism(lambda A, B, X: 2 * A + 3 * B + 7 * X, noise=1.0),
            "B": Mechanism(lambda X, A: 5 * X - A, noise=1.0),
            "A": Mechanism(lambda X: 11 * X, noise=1.0),
            "X": Mechanism(lambda: 0.0, noise=1.0),
        }
    )


def test_paths_of_a_linear_slice_add_up(generator: torch.Generator) -> None:
    by_path = {("X", "Y"): 7.0, ("X", "B", "Y"): 15.0, ("X", "A", "Y"): 22.0, ("X", "A", "B", "Y"): -33.0}
    first, second, third, fourth = by_path
    for paths in ([first], [second], [first, second], [third, fourth], [second, third, fourth], list(by_path)):
        expected = sum(by_path[path] for path in paths)
        assert along(two_mediators(), paths, generator) == pytest.approx(expected)


def test_a_recanting_witness_is_refused(generator: torch.Generator) -> None:
    for paths in ([("X", "A", "Y")], [("X", "A", "B", "Y")], [("X", "Y"), ("X", "A", "Y")]):
        with pytest.raises(bwm.SpecError, match="recanting witness, got 'A'"):
            along(two_mediators(), paths, generator)


def test_what_is_refused(generator: torch.Generator) -> None:
    kite = {
        "X": Mechanism(lambda: 0.0),
        "A": Mechanism(lambda X: X),
        "B": Mechanism(lambda X: X),
        "C": Mechanism(lambda A, B: A + B),
        "D": Mechanism(lambda C: C),
        "E": Mechanism(lambda C: C),
        "Y": Mechanism(lambda D, E: D + E),
    }
    with pytest.raises(bwm.SpecError, match="X -> A -> C -> E -> Y; add it"):
        along(StructuralModel(kite), [("X", "A", "C", "D", "Y"), ("X", "B", "C", "E", "Y")], generator)
    with pytest.raises(bwm.SpecError, match="along edges"):
        along(c6(), [("M", "Y")], generator)
    with pytest.raises(bwm.SpecError, match="along edges"):
        along(c6(), [("X",)], generator)
    with pytest.raises(bwm.UnknownVariableError):
        along(c6(), [("X", "N", "Y")], generator)
    with pytest.raises(bwm.SpecError, match="one outcome"):
        along(c6(), [("X", "M"), ("X", "Y")], generator)
    push, rest = bwm.do(a=1.0), bwm.do(a=0.0)
    with pytest.raises(bwm.SpecError, match="StructuralModel"):
        path_effect(
            c3(), push, rest, paths=[("a", "s")], state=torch.zeros(1), actions=torch.zeros(1, 1), generator=generator
        )


def test_branches_that_diverge_are_refused(generator: torch.Generator) -> None:
    model = StructuralModel({"X": Mechanism(lambda: 0.0), "Y": Mechanism(lambda X: X / 0.0, noise=1.0)})
    x1, x0 = bwm.do(X=1.0), bwm.do(X=0.5)
    with pytest.raises(bwm.SpecError, match="stay finite"), pytest.warns(DivergenceWarning):
        path_effect(model, x1, x0, paths=[("X", "Y")], state=torch.zeros(2), particles=9, generator=generator)


def test_learned_mechanisms_are_refused():
    line = bwm.structures.Linear(c=torch.distributions.Normal(0.0, 10.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    model = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Learned(linear, parents=("X",))})
    rows = bwm.data.from_rows({"X": torch.tensor([0.0, 1.0, 2.0]), "Y": torch.tensor([0.1, 0.9, 2.2])})
    model = model.fit(rows, seed=0, progress=False)
    g = torch.Generator().manual_seed(0)
    with pytest.raises(bwm.SpecError, match="got a Learned for 'Y'; mediation takes"):
        path_effect(model, bwm.do(X=1.0), bwm.do(X=0.0), paths=[("X", "Y")], state=torch.zeros(2), generator=g)


def test_actions_are_asked_for_and_used() -> None:
    """Y = a + X + 2 M with M = a X: from X = 0 to 1 past M it gains 1, along M 2 a."""
    schema = bwm.Schema(state=[bwm.Variable(name) for name in "XMY"], action=[bwm.Variable("a")], time_step=1.0)
    model = StructuralModel(
        {
            "X": Mechanism(lambda: 0.0),
            "M": Mechanism(lambda a, X: a * X),
            "Y": Mechanism(lambda a, X, M: a + X + 2 * M),
        },
        schema=schema,
    )

    def found(**given: torch.Tensor) -> float:
        x1, x0 = bwm.do(X=1.0), bwm.do(X=0.0)
        paths = [("X", "M", "Y")]
        return path_effect(model, x1, x0, paths=paths, state=torch.zeros(3), particles=1, **given).effect.item()

    with pytest.raises(bwm.SpecError, match=r"expected actions=, or interventions that set \['a'\]"):
        found()
    assert found(actions=torch.full((1, 1), 3.0)) == 6.0
