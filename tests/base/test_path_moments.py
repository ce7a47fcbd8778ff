"""Moments of all steps at once are those of each step by itself."""

import math

import pytest
import torch

from bayeswm.base import Gaussian
from bayeswm.base import path_moments as module
from bayeswm.base.mixture import Step, step_moments
from bayeswm.base.path_moments import path_mean, path_moments

F64 = torch.float64


def steps(*, worlds: int, particles: int, exhaustive: bool, diverged: bool) -> list[Step]:
    """Six steps of which the first has one particle and the last another scale."""
    g = torch.Generator().manual_seed(0)
    weight = torch.rand(worlds, generator=g, dtype=F64)
    found: list[Step] = []
    for h in range(6):
        size = (worlds, 1 if h == 0 else particles, 4)
        mean = torch.randn(*size, 2, generator=g, dtype=F64)
        scale = 0.1 + torch.rand(2 if h < 5 else (*size, 2), generator=g, dtype=F64)
        valid = torch.rand(*size, generator=g) > 0.2 if diverged else None
        found.append(Step(Gaussian(mean, scale), weight.log_softmax(0), exhaustive, h == 0, valid))
    return found


@pytest.mark.parametrize(("worlds", "particles"), [(1, 1), (1, 5), (3, 1), (3, 5)])
@pytest.mark.parametrize("exhaustive", [True, False])
@pytest.mark.parametrize("diverged", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("most", [2**17, 50, 1])
def test_runs_of_steps(
    worlds: int,
    particles: int,
    exhaustive: bool,
    diverged: bool,
    fresh: bool,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST", most)
    given = steps(worlds=worlds, particles=particles, exhaustive=exhaustive, diverged=diverged)
    expected = [step_moments(step, merged=fresh and h > 0) for h, step in enumerate(given)]
    parts = path_moments(given, fresh_worlds=fresh)
    for i in range(4):
        found = torch.cat([part[i] for part in parts], -2)
        torch.testing.assert_close(found, torch.stack([one[i] for one in expected], -2), equal_nan=True)
    mean = torch.cat(path_mean(given, fresh_worlds=fresh), -2)
    torch.testing.assert_close(mean, torch.stack([one.mean for one in expected], -2), equal_nan=True)


def test_steps_of_one_kind_are_one_call() -> None:
    given = steps(worlds=3, particles=5, exhaustive=True, diverged=False)
    assert [part.shape for part in path_mean(given)] == [(4, 1, 2), (4, 5, 2)]
    rows = math.prod((3, 5, 4, 2))
    assert rows < module._MOST
    assert path_moments([]) == path_mean([]) == []
