import pytest
import torch
from torch import Tensor

from bayeswm.base import FitError, FitWarning
from bayeswm.inference import maximum
from bayeswm.inference.maximum import maximise
from tests.inference.joints import F64, randn


def test_a_quadratic_ends_at_its_top_to_rounding() -> None:
    # scales from 1e-4 to 1e4, correlated
    scale = torch.logspace(-4, 4, 6, dtype=F64)
    factor = scale[:, None] * torch.linalg.cholesky(0.5 * torch.eye(6, dtype=F64) + 0.5)
    top = scale * randn(6, seed=0)

    def log_density(x: Tensor) -> Tensor:
        return -0.5 * torch.linalg.solve_triangular(factor, (x - top).mT, upper=False).square().sum(0)

    found = maximise(log_density, torch.zeros(2, 6, dtype=F64), scale=scale)
    assert found.converged
    torch.testing.assert_close(found.x / scale, top / scale, rtol=0, atol=1e-12)
    assert found.value == pytest.approx(0.0, abs=1e-20)


def test_a_top_that_rounding_hides_is_not_searched_for_ever() -> None:
    # 5,000 rows of sd 5e-5 near 9.6: the neighbouring number is 5,000 (1e-15 / 5e-5)^2 = 1e-18 nats away, so that
    # Newton's steps never promise less
    rows = 9.6 + 5e-5 * randn(5000, seed=2)
    found = maximise(
        lambda x: -0.5 * ((rows - x) / 5e-5).square().sum(-1), torch.full((1, 1), 9.5, dtype=F64), scale=torch.ones(1)
    )
    assert found.converged
    assert float(found.x) == pytest.approx(float(rows.mean()), abs=1e-13)
    assert found.evaluations < 30  # as many as all steps of Newton's method take


def test_the_best_of_several_ends_is_kept() -> None:
    def log_density(x: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * (x[:, 0] + 5).square(), 2 - 0.5 * (x[:, 0] - 5).square())

    found = maximise(log_density, torch.tensor([[-6.0], [4.0], [-3.0]], dtype=F64), scale=torch.ones(1))
    assert float(found.x) == pytest.approx(5.0, abs=1e-8)  # the other mode moves it by e^-52
    assert found.value == pytest.approx(2.0, abs=1e-12)


def test_a_saddle_is_left() -> None:
    def log_density(x: Tensor) -> Tensor:
        return -0.5 * x[:, 0].square() + 0.5 * x[:, 1].square() - 0.25 * x[:, 1] ** 4

    found = maximise(log_density, torch.tensor([[1.0, 1e-3]], dtype=F64), scale=torch.ones(2))
    torch.testing.assert_close(found.x, torch.tensor([0.0, 1.0], dtype=F64), rtol=0, atol=1e-10)


def test_many_dimensions_do_without_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maximum, "_NEWTON", 0)
    top = randn(5, seed=1)
    found = maximise(lambda x: -(x - top).cosh().log().sum(-1), torch.zeros(1, 5, dtype=F64), scale=torch.ones(5))
    torch.testing.assert_close(found.x, top, rtol=0, atol=1e-6)


def test_a_climb_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maximum, "_NEWTON", 0)
    monkeypatch.setattr(maximum, "_ITERATIONS", 2)

    def valley(x: Tensor) -> Tensor:
        return -(1 - x[:, 0]).square() - 100 * (x[:, 1] - x[:, 0].square()).square()

    found = maximise(valley, torch.tensor([[-1.2, 1.0]], dtype=F64), scale=torch.ones(2))
    assert not found.converged
    with pytest.warns(FitWarning, match="stopped after"):
        found.warn()


def test_starts_of_no_density_are_left_out() -> None:
    def log_density(x: Tensor) -> Tensor:
        return (x[:, 0]).log() - x[:, 0]  # NaN below 0

    found = maximise(log_density, torch.tensor([[-1.0], [3.0]], dtype=F64), scale=torch.ones(1))
    assert float(found.x) == pytest.approx(1.0, abs=1e-10)
    with pytest.raises(FitError, match="none among 1"):
        maximise(log_density, torch.tensor([[-1.0]], dtype=F64), scale=torch.ones(1))
