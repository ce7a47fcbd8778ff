import math

import pytest
import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.causal.support.reference_rows import ReferenceRows


def normal_grid(n: int, *, mean: float = 0.0, sd: float = 1.0) -> Tensor:
    """Quantiles of a normal law, shape (n, 1): a sample without sampling error."""
    p = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (mean + sd * torch.special.ndtri(p))[:, None]


def rows_of(values: Tensor, *, level: float = 0.95) -> ReferenceRows:
    return ReferenceRows(values, torch.arange(len(values)), level=level)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 0.5), (-1.5, 0.2), (0.5, 1e-9)])
def test_effective_rows_are_those_of_the_importance_weights(mean: float, sd: float) -> None:
    """Kernels widen both laws: the weights are N(mean, sd^2 + h^2) / N(0, 1 + h^2) at rows of N(0, 1)."""
    n = 2001
    rows = rows_of(normal_grid(n))
    h = n**-0.2
    points = normal_grid(500, mean=mean, sd=sd)
    found = rows.effective_rows(points, torch.full((500,), 1 / 500, dtype=torch.float64))
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    law, wide, other = (
        torch.distributions.Normal(*v).log_prob(z)
        for v in ((0.0, 1.0), (0.0, math.sqrt(1 + h**2)), (mean, math.sqrt(sd**2 + h**2)))
    )
    weight = (other - wide).exp()
    share = float((law.exp() * weight).sum() ** 2 / ((law.exp() * weight.square()).sum() * law.exp().sum()))
    assert found == pytest.approx(share * n, rel=0.01)


def test_the_log_itself_counts_fully() -> None:
    rows = normal_grid(300)
    found = rows_of(rows).effective_rows(rows, torch.full((300,), 1 / 300, dtype=torch.float64))
    assert found == pytest.approx(300)


def test_far_away_hardly_a_row_counts() -> None:
    found = rows_of(normal_grid(1000)).effective_rows(torch.tensor([[30.0]]), torch.ones(1, dtype=torch.float64))
    assert 1 <= found < 3


def test_distances_are_in_standard_deviations() -> None:
    values = torch.stack((torch.arange(5.0), 10 * torch.arange(5.0)), -1)
    rows = rows_of(values)
    sd = math.sqrt(2.5)
    # neighbours are one apart in each column
    assert rows.radius == pytest.approx(math.sqrt(2) / sd)
    assert rows.distance(torch.tensor([[4.0, 70.0]])).item() == pytest.approx(3 / sd)


def test_the_radius_is_that_to_other_recordings() -> None:
    values = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    alone = ReferenceRows(values, torch.tensor([0, 0, 0, 0]), level=0.95)
    apart = ReferenceRows(values, torch.tensor([0, 0, 1, 1]), level=0.95)
    sd = float(values.std())
    assert alone.radius == pytest.approx(0.1 / sd, rel=1e-5)
    assert apart.radius == pytest.approx(5.0 / sd, rel=1e-5)


def test_a_constant_column_has_no_neighbourhood() -> None:
    values = torch.stack((torch.arange(20.0), torch.ones(20)), -1)
    rows = rows_of(values)
    assert rows.distance(torch.tensor([[3.0, 1.0]])).item() == 0
    assert rows.distance(torch.tensor([[3.0, 1.1]])).item() > 1e6
    assert rows.effective_rows(torch.tensor([[3.0, 1.1]]), torch.ones(1, dtype=torch.float64)) >= 1


def test_long_logs_are_thinned_out() -> None:
    rows = rows_of(torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)))
    assert (len(rows.rows), rows.total) == (2048, 5000)


def test_one_row_is_no_log() -> None:
    with pytest.raises(DataError, match="at least two steps"):
        rows_of(torch.zeros(1, 2))
