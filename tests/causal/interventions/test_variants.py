import torch

import bayeswm as bwm
from bayeswm.causal import shift
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
