"""Boxes and ellipsoids: what lies inside, how large they are."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import EllipsoidTube, Tube
from bayeswm.diagnostics.tube import AXES, check_over, grouped, ungrouped, whitening
from tests.diagnostics.paths import variables

OVERS = (AXES, ("horizon",), ("variable",))


def box(lower: torch.Tensor, upper: torch.Tensor, over: tuple[str, ...] = AXES) -> Tube:
    size = lower.shape[-1]
    return Tube(lower, upper, level=0.9, over=over, variables=variables(size), time_step=0.1)


def unit_box(*shape: int, over: tuple[str, ...] = AXES) -> Tube:
    one = torch.ones(*shape).double()
    return box(-one, one, over)


def test_inside_is_by_what_is_held_together() -> None:
    x = torch.zeros(5, 2).double()
    x[3, 1] = 2.0
    assert not bool(unit_box(5, 2).contains(x))
    assert unit_box(5, 2, over=("horizon",)).contains(x).tolist() == [True, False]
    assert unit_box(5, 2, over=("variable",)).contains(x).tolist() == [True, True, True, False, True]


def test_what_was_not_recorded_counts_as_inside() -> None:
    x = torch.full((5, 2), float("nan")).double()
    assert bool(unit_box(5, 2).contains(x))
    x[0, 0] = 1.5
    assert not bool(unit_box(5, 2).contains(x))


def test_several_outcomes_for_one_batch() -> None:
    x = torch.zeros(7, 3, 5, 2).double()
    x[2, 1] = 9.0
    inside = unit_box(3, 5, 2).contains(x)
    assert inside.shape == (7, 3)
    assert (~inside).nonzero().tolist() == [[2, 1]]
    with pytest.raises(bwm.DataError, match="without the start"):
        unit_box(3, 5, 2).contains(x[..., 1:, :])


def test_a_tube_without_width_is_met_within_rounding() -> None:
    point = torch.tensor([[1e6]]).double()
    tube = box(point, point)
    assert bool(tube.contains(point + 1e-4))  # a relative 1e-10
    assert not bool(tube.contains(point + 1.0))


def test_an_infinite_tube_holds_everything_and_an_undefined_one_nothing() -> None:
    x, far = (torch.full((2, 1), v, dtype=torch.float64) for v in (1e300, math.inf))
    assert bool(box(-far, far).contains(x))
    assert not bool(box(x * math.nan, x * math.nan).contains(x))


@pytest.mark.parametrize("over", OVERS)
def test_sizes(over: tuple[str, ...]) -> None:
    tube = box(torch.zeros(4, 3, 2).double(), torch.tensor([2.0, 5.0]).double().expand(4, 3, 2), over)
    assert tube.mean_width[0].tolist() == [2.0, 5.0]
    volume = {
        AXES: [1000.0],
        ("horizon",): [8.0, 125.0],
        ("variable",): [10.0] * 3,
    }[over]
    assert tube.log_volume[0].exp().reshape(-1).tolist() == pytest.approx(volume)


@pytest.mark.parametrize("over", OVERS)
def test_grouping_is_undone(over: tuple[str, ...]) -> None:
    x = torch.arange(60.0).view(2, 5, 6)
    assert torch.equal(ungrouped(grouped(x, over), over, steps=5), x)


def test_labels() -> None:
    data = unit_box(3, 5, 2, over=("horizon",)).to_xarray()
    assert dict(data.sizes) == {"batch_0": 3, "horizon": 5, "variable": 2}
    assert data.attrs == {"level": 0.9, "over": "horizon"}
    assert data.time.values[-1] == pytest.approx(0.5)
    assert float(data.upper.min()) == 1


@pytest.mark.parametrize("over", ["horizon", (), ("time",), ("horizon", "horizon")])
def test_unknown_axes_are_refused(over: tuple[str, ...]) -> None:
    with pytest.raises(bwm.SpecError, match="expected over="):
        check_over(over)


def ellipsoid(correlation: torch.Tensor, scale: torch.Tensor, radius: float) -> EllipsoidTube:
    steps = len(scale)
    return EllipsoidTube(
        torch.zeros(steps, 1).double(),
        scale[:, None],
        correlation[None],
        torch.tensor([radius]).double(),
        level=0.9,
        over=AXES,
        variables=variables(1),
        time_step=0.1,
    )


def covariance() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    matrix = root @ root.T + 0.1 * torch.eye(4)
    scale = matrix.diagonal().sqrt()
    return matrix, scale, matrix / scale[:, None] / scale


def test_ellipsoid_holds_what_is_near_in_mahalanobis_distance() -> None:
    matrix, scale, correlation = covariance()
    tube = ellipsoid(correlation, scale, 1.8)
    x = 1.5 * torch.randn(500, 4, 1, generator=torch.Generator().manual_seed(1)).double() * scale[:, None]
    distance = (x[..., 0] @ torch.linalg.inv(matrix) * x[..., 0]).sum(-1).sqrt()
    inside = tube.contains(x)
    assert torch.equal(inside, distance <= 1.8)
    assert 20 < int(inside.sum()) < 480
    ball = math.pi**2 / 2 * 1.8**4  # of four dimensions
    assert float(tube.log_volume) == pytest.approx(math.log(ball * float(matrix.det().sqrt())))
    assert torch.allclose(tube.upper[:, 0], 1.8 * scale)


def test_ellipsoid_of_a_gap_asks_whether_any_completion_fits() -> None:
    """That of the recorded entries is the distance in their marginal covariance."""
    matrix, scale, correlation = covariance()
    tube = ellipsoid(correlation, scale, 1.8)
    x = 1.5 * torch.randn(500, 4, 1, generator=torch.Generator().manual_seed(1)).double() * scale[:, None]
    x[:, 2] = math.nan
    some = x[:, [0, 1, 3], 0]
    distance = (some @ torch.linalg.inv(matrix[[0, 1, 3]][:, [0, 1, 3]]) * some).sum(-1).sqrt()
    assert torch.equal(tube.contains(x), distance <= 1.8)


def test_ellipsoid_without_spread_in_a_direction_leaves_that_to_the_box() -> None:
    _, scale, correlation = covariance()
    scale = scale * torch.tensor([1.0, 1.0, 1.0, 0.0])
    tube = ellipsoid(correlation, scale, 1.8)
    x = torch.zeros(4, 1).double()
    assert bool(tube.contains(x))
    x[3] = 0.1
    assert not bool(tube.contains(x))


def test_whitening_of_a_singular_correlation_is_its_pseudo_inverse() -> None:
    root = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    matrix = root @ root.T
    white = whitening(matrix)
    assert torch.allclose(white @ white.T, torch.linalg.pinv(matrix, hermitian=True), rtol=1e-8, atol=1e-10)


def test_it_says_what_it_is() -> None:
    tube = unit_box(3, 4, 2)
    names = ", ".join(tube.variables.columns)
    assert repr(tube) == f"Tube(90 %, batch (3,), 4 steps, ({names}))"
