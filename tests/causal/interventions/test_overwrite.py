import torch

import bayeswm as bwm
from bayeswm.causal.interventions.overwrite import Overwrite, changed

STATE = torch.tensor([[[1.0, -2.0]]], dtype=torch.float64)


def test_each_column_is_set_from_the_state_as_the_system_gave_it() -> None:
    both = bwm.do(x=lambda state, step: state[..., 1] + step, y=lambda state, step: state[..., 0]).assignments
    made = Overwrite(both, ("x", "y"), step=3, drawn={})
    assert made(STATE).flatten().tolist() == [1.0, 1.0]
    assert (made.known, made.settled) == (False, ())


def test_what_is_known_before_the_step() -> None:
    changes = bwm.do(x=5.0, y=bwm.causal.shift(1.0)).assignments
    made = Overwrite(changes, ("x", "y"), step=0, drawn={changes[0]: torch.full((1, 1), 5.0)})
    assert made(STATE).flatten().tolist() == [5.0, -1.0]
    assert (made.known, made.settled) == (True, (0,))
    assert not Overwrite(bwm.do(x=bwm.causal.clamp(0.0)).assignments, ("x", "y"), step=0, drawn={}).known


def test_one_value() -> None:
    (one,) = bwm.do(y=bwm.causal.clamp(low=0.0)).assignments
    assert changed(one, STATE[..., 1], STATE, step=0, given=None).item() == 0.0
    assert changed(one, STATE[..., 1], STATE, step=0, given=torch.tensor(4.0)).dtype == torch.float64
