"""Worlds that only say what went together keep saying so."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import ConfoundedError
from bayeswm.causal.confounding.logged_worlds import LoggedWorlds


def test_the_reason_stays():
    inner = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1).draw(1)
    worlds = LoggedWorlds(inner, "the wind was not recorded")
    for kept in (worlds, worlds[0], worlds.to(torch.float32), worlds.replace(process_noise=0.2)):
        with pytest.raises(ConfoundedError, match="the wind"):
            kept.check_actionable()
    inner.check_actionable()
