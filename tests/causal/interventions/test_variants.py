import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.causal import intervene, shift
from bayeswm.causal.interventions.variants import Variants
from tests.causal.reference_models import cart


def test_parameters_by_step() -> None:
    worlds = cart().draw(1)
    given = (*bwm.do({"mass": 5.0}, steps=slice(1, 3)).assignments, *bwm.do({"mass": shift(1.0)}, steps=2).assignments)
    made = Variants(worlds, given)
    assert [made.at(t).parameters["mass"].item() for t in range(4)] == [2.0, 5.0, 6.0, 2.0]
    assert made.at(0) is worlds
    assert made.at(1) is made.at(torch.tensor([1, 1]))
    assert Variants(worlds, ()).at(0) is worlds


def test_a_parameter_for_each_step() -> None:
    """A mass that grows: each step has its own, and a change goes on from it."""
    masses = [2.0, 4.0, 5.0]
    (rows,), (more,) = (bwm.do(**v).assignments for v in ({"mass": masses}, {"mass": shift(1.0)}))
    variants = Variants(cart().draw(1), [rows, more])
    assert [variants.at(t).parameters["mass"].item() for t in range(3)] == [m + 1 for m in masses]
    with pytest.raises(SpecError, match="one step at a time"):
        variants.at(torch.arange(3))


def test_a_path_of_a_parameter_in_a_rollout() -> None:
    start, force, wind = torch.zeros(3), torch.ones(3, 1), torch.zeros(1)
    done = intervene(cart(noise=0.0), bwm.do(mass=[1.0, 2.0, 4.0]))
    r = bwm.rollout(done, start, force, context=wind)
    v = [1.0, 0.9 + 0.5, 0.9 * 1.4 + 0.25]
    assert r.mean[:, 1].tolist() == pytest.approx(v)
    part = intervene(cart(noise=0.0), bwm.do({"mass": [1.0, 4.0]}, steps=slice(1, 3)))
    assert bwm.rollout(part, start, force, context=wind).mean[:, 1].tolist() == pytest.approx([0.5, 1.45, 1.555])
