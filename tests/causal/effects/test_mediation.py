import pytest
import torch

import bayeswm as bwm
from bayeswm.base import DivergenceWarning
from bayeswm.causal import Mechanism, effect, mediation
from tests.causal.reference_models import c3, c6

PARTS = {"total": 2.75, "natural_direct": 1.25, "natural_indirect": 1.0, "total_indirect": 1.5}


def test_natural_effects(generator: torch.Generator) -> None:
    x1, x0 = bwm.do(X=1.0), bwm.do(X=0.0)
    found = mediation(
        c6(), x1, x0, mediator="M", state=torch.zeros(3), horizon=1, particles=1_000_000, generator=generator
    ).sel(variable="Y", horizon=1)
    for name, expected in PARTS.items():
        error = found[f"{name}_error"].item()
        # what comes with X itself varies with the mediator's noise, 0.25 of it; the rest is the same in all particles
        varies = name in ("total", "natural_direct")
        assert error == pytest.approx(0.25e-3 if varies else 0.0, rel=0.02, abs=1e-9)
        assert abs(found[name].item() - expected) <= max(4.417 * error, 1e-9), name
    held = bwm.do(M=0.0)
    both = [bwm.causal.Intervention((*x.assignments, *held.assignments)) for x in (x1, x0)]
    direct = effect(c6(), *both, state=torch.zeros(3), horizon=1, generator=generator)
    assert direct.effect.sel(variable="Y", horizon=1).item() == pytest.approx(1.0)


def test_what_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(bwm.SpecError, match="leave alone"):
        mediation(
            c6(), bwm.do(M=1.0), bwm.do(X=0.0), mediator="M", state=torch.zeros(3), horizon=1, generator=generator
        )
    with pytest.raises(bwm.UnknownVariableError):
        mediation(
            c3(), bwm.do(a=1.0), bwm.do(a=0.0), mediator="m", state=torch.zeros(1), horizon=1, generator=generator
        )


def test_branches_that_diverge_are_refused(generator: torch.Generator) -> None:
    model = bwm.causal.StructuralModel(
        {"X": Mechanism(lambda: 0.0), "M": Mechanism(lambda X: X, noise=1.0), "Y": Mechanism(lambda M: M / 0.0)}
    )
    query = {"mediator": "M", "state": torch.zeros(3), "horizon": 1, "particles": 9, "generator": generator}
    with pytest.raises(bwm.SpecError, match="stay finite"), pytest.warns(DivergenceWarning):
        mediation(model, bwm.do(X=1.0), bwm.do(X=0.0), **query)
