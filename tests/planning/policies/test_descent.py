import math

import pytest
import torch
from torch import Tensor

from bayeswm.base import SpecError
from bayeswm.planning import LBFGS, Adam, Descent

F64 = torch.float64
BOTH = [LBFGS(), Adam(iterations=600, rate=0.1)]


class Seen:
    """Rosenbrock's valley, with a wall where the first number is above a limit; remembers the lowest value."""

    def __init__(self, wall: float = math.inf, beyond: float = math.inf) -> None:
        self.wall, self.beyond, self.least, self.hits, self.count = wall, beyond, math.inf, 0, 0

    def __call__(self, at: Tensor) -> tuple[float, Tensor]:
        self.count += 1
        if float(at[0]) > self.wall:
            self.hits += 1
            return self.beyond, torch.full_like(at, float("nan"))
        x, y = at.tolist()
        value = (1 - x) ** 2 + 10 * (y - x * x) ** 2
        self.least = min(self.least, value)
        return value, torch.tensor([-2 * (1 - x) - 40 * x * (y - x * x), 20 * (y - x * x)], dtype=F64)


@pytest.mark.parametrize("descent", BOTH, ids=repr)
def test_it_finds_the_minimum(descent: Descent) -> None:
    seen, start = Seen(), torch.tensor([-1.0, 1.0], dtype=F64)
    descent(seen, start)
    assert seen.least < 1e-6
    assert start.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("beyond", [math.inf, math.nan])
@pytest.mark.parametrize("descent", BOTH, ids=repr)
def test_it_goes_on_where_there_was_no_value(descent: Descent, beyond: float) -> None:
    # the minimum lies behind the wall: at 0.5 the best is (1 - 0.5)^2 = 0.25
    seen = Seen(wall=0.5, beyond=beyond)
    descent(seen, torch.tensor([-1.0, 1.0], dtype=F64))
    assert seen.hits > 0
    assert 0.25 <= seen.least < 0.5


@pytest.mark.parametrize("descent", BOTH, ids=repr)
def test_without_a_single_value_it_ends(descent: Descent) -> None:
    seen = Seen(wall=-10.0)
    descent(seen, torch.tensor([-1.0, 1.0], dtype=F64))
    assert seen.count == seen.hits
    assert seen.count < 50


def test_iterations_are_counted() -> None:
    seen = Seen()
    Adam(iterations=7)(seen, torch.zeros(2, dtype=F64))
    assert seen.count == 7
    few = Seen()
    LBFGS(iterations=3)(few, torch.tensor([-1.0, 1.0], dtype=F64))
    assert few.count <= 7


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (lambda: LBFGS(iterations=0), lambda: Adam(iterations=0), lambda: Adam(rate=0.0)):
        with pytest.raises(SpecError, match="iterations >= 1"):
            wrong()
    with pytest.raises(SpecError, match="tolerance >= 0"):
        LBFGS(tolerance=-1.0)
