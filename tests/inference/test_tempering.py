import math

import pytest
import torch
from torch.distributions import Normal

from bayeswm.base import FitError
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Inferred, Joint, temper
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64


def level(seen: torch.Tensor, sigma: float = 0.5) -> Joint:
    def log_likelihood(values, rows):
        return Normal(values["level"][:, None], sigma).log_prob(seen if rows is None else seen[rows])

    return Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=len(seen))


def known(seen: torch.Tensor, sigma: float = 0.5) -> tuple[float, float]:
    precision = 1 / 100 + len(seen) / sigma**2
    return float(seen.sum()) / sigma**2 / precision, 1 / math.sqrt(precision)


@pytest.mark.statistical
@pytest.mark.parametrize(("shift", "stages"), [(0.0, 1), (4.0, 2)])
def test_a_normal_mean(shift: float, stages: int) -> None:
    g = make_generator(0)
    seen = torch.randn(30, generator=g, dtype=F64)
    seen[10:] += shift  # with 4.0 the new data lie 25 standard deviations of the posterior away
    mean, spread = known(seen[:10])
    before = Inferred({"level": mean + spread * torch.randn(4, 1000, generator=g, dtype=F64)})
    after = temper(level(seen), 10, before, rejuvenate=HMC().rejuvenate, generator=g)
    draws = after.values["level"]
    assert draws.shape == (1, 2048)
    assert after.statistics["stages"] >= stages
    mean, spread = known(seen)
    white, size = (draws[0] - mean) / spread, 1024  # at least half of the draws have ancestors of their own
    assert chi_square_p(size * white.mean() ** 2, 1) > BUDGET
    assert chi_square_p(size * white.square().mean(), size) > BUDGET


def test_draws_that_cannot_be_moved_are_refused() -> None:
    seen = torch.zeros(4, dtype=F64)
    before = Inferred({"level": torch.randn(1, 500, generator=make_generator(0), dtype=F64)})
    with pytest.raises(FitError, match=r"mean acceptance of 0.00: fit again on Trajectories\.concatenate"):
        temper(level(seen), 2, before, rejuvenate=lambda f, x, g: (x, 0.0), generator=make_generator(0))


def test_data_that_no_draw_explains_are_refused() -> None:
    def log_likelihood(values, rows):
        each = torch.zeros(len(values["level"]), 2, dtype=F64)
        each[:, 1] = -torch.inf
        return each if rows is None else each[:, rows]

    joint = Joint({"level": Normal(0.0, 1.0)}, log_likelihood, terms=2)
    before = Inferred({"level": torch.randn(1, 500, generator=make_generator(0), dtype=F64)})
    with pytest.raises(FitError, match="the new data say too much"):
        temper(joint, 1, before, rejuvenate=HMC().rejuvenate, generator=make_generator(0))
