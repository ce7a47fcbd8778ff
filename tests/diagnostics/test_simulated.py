"""The calibration check itself, on a normal mean: it passes the exact posterior and sees wrong ones."""

import math

import pytest
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base import DataError, EstimateWarning, FitError, SpecError
from bayeswm.diagnostics import simulation_based_calibration
from tests.statistical.checks import BUDGET

F64 = torch.float64
DRAWS, N = 63, 5
SEEN = torch.tensor([0.4, -1.0, 2.0], dtype=F64)


def prior(g: torch.Generator) -> dict[str, Tensor]:
    return {"mean": torch.randn(2, generator=g, dtype=F64)}


def simulate(truth: dict[str, Tensor], g: torch.Generator) -> Tensor:
    return truth["mean"] + torch.randn(N, 2, generator=g, dtype=F64)


def normal(total: Tensor, count: int, g: torch.Generator, *, widen: float = 1.0, shift: float = 0.0) -> Tensor:
    """Draws given the prior N(0, 1) and observations of variance 1: N(sum / (n + 1), 1 / (n + 1))."""
    scale = 1 / math.sqrt(count + 1)
    return total / (count + 1) + shift * scale + widen * scale * torch.randn(DRAWS, 2, generator=g, dtype=F64)


def log_likelihood(values: dict[str, Tensor], data: Tensor) -> Tensor:
    return -0.5 * (data - values["mean"][:, None]).square().sum((1, 2))


def check(posterior=None, **wrong: float) -> xr.Dataset:
    def exact(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": normal(data.sum(0), N, g, **wrong)}

    return simulation_based_calibration(
        prior, simulate, posterior or exact, repetitions=300, draws=DRAWS, quantities={"log_likelihood": log_likelihood}
    )


@pytest.mark.statistical
def test_an_exact_posterior_is_calibrated() -> None:
    found = check()
    assert found["quantity"].values.tolist() == ["mean[0]", "mean[1]", "log_likelihood"]
    assert found["rank"].shape == (300, 3)
    assert found.attrs["p_value"] > BUDGET
    assert float(found["p_ecdf"].min()) > 0.001
    off = (found["coverage"] - found["level"]) / found["coverage_se"]
    assert float(abs(off).max()) < 4.5  # binomial standard errors, 6 of them


@pytest.mark.statistical
@pytest.mark.parametrize("wrong", [{"widen": 0.6}, {"widen": 1.7}, {"shift": 0.6}])
def test_a_wrong_posterior_is_seen(wrong: dict[str, float]) -> None:
    found = check(**wrong)
    assert found.attrs["p_value"] < BUDGET
    assert float(found["p_ecdf"].min()) == pytest.approx(1 / 1001)
    if "widen" in wrong:
        # a central interval that is w times too wide holds 2 Phi(w z) - 1
        z = 1.6448536269514722
        expected = math.erf(wrong["widen"] * z / math.sqrt(2))
        error = math.sqrt(expected * (1 - expected) / 300)
        # ranks among 63 draws: the interval's ends are draws, which moves its coverage by no more than 0.02
        assert abs(float(found["coverage"].sel(quantity="mean[0]", level=0.9)) - expected) < 4 * error + 0.02


@pytest.mark.statistical
def test_the_likelihood_sees_a_posterior_that_ignores_the_data() -> None:
    def same(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": torch.randn(DRAWS, 2, generator=g, dtype=F64)}

    found = check(same)["p_value"]
    assert float(found.sel(quantity=["mean[0]", "mean[1]"]).min()) > BUDGET
    assert float(found.sel(quantity="log_likelihood")) < BUDGET


@pytest.mark.statistical
@pytest.mark.parametrize(("widen", "calibrated"), [(1.0, True), (0.5, False)])
def test_posterior_sbc_checks_the_inference_given_what_was_observed(*, widen: float, calibrated: bool) -> None:
    seen = SEEN[:, None].expand(-1, 2)

    def before(g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": normal(seen.sum(0), len(seen), g, widen=widen)[0]}

    def after(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": normal(seen.sum(0) + data.sum(0), len(seen) + N, g, widen=widen)}

    found = simulation_based_calibration(before, simulate, after, repetitions=300, draws=DRAWS)
    assert (found.attrs["p_value"] > BUDGET) is calibrated


def test_constants_are_left_out_and_the_same_seed_gives_the_same_ranks() -> None:
    def fixed(g: torch.Generator) -> dict[str, Tensor]:
        return {**prior(g), "known": torch.tensor(2.0)}

    def exact(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        return {"mean": normal(data.sum(0), N, g), "known": torch.full((DRAWS,), 2.0)}

    state = torch.get_rng_state()
    one, two = (simulation_based_calibration(fixed, simulate, exact, repetitions=5, seed=3) for _ in range(2))
    assert one["quantity"].values.tolist() == ["mean[0]", "mean[1]"]
    assert one.identical(two)
    assert torch.equal(state, torch.get_rng_state())


def test_draws_are_spread_evenly_over_the_chains() -> None:
    # 4 of 8 draws are kept, every second one: those of value 0
    drawn = torch.tensor([0.0, 9.0] * 4)
    found = simulation_based_calibration(
        lambda g: {"x": torch.tensor(5.0)}, lambda t, g: None, lambda d, g: {"x": drawn}, repetitions=3, draws=4
    )
    assert found["rank"].values.tolist() == [[4]] * 3


def test_failed_fits_are_left_out_and_said() -> None:
    def posterior(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        if float(data[0, 0]) > 0:
            raise FitError("no posterior")
        return {"mean": normal(data.sum(0), N, g)}

    with pytest.warns(EstimateWarning, match="repetitions failed .* no posterior"):
        found = simulation_based_calibration(prior, simulate, posterior, repetitions=20, draws=DRAWS)
    assert found.attrs["failed"] + found.sizes["repetition"] == 20
    assert 0 < found.attrs["failed"] < 20

    def never(data: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        raise FitError("no posterior")

    with pytest.raises(FitError, match="no posterior"):
        simulation_based_calibration(prior, simulate, never, repetitions=3)


def test_what_makes_no_sense_is_refused() -> None:
    def run(found: dict[str, Tensor], **given: object) -> xr.Dataset:
        return simulation_based_calibration(
            lambda g: {"x": torch.tensor(1.0)}, lambda t, g: None, lambda d, g: found, **{"repetitions": 2, **given}
        )

    with pytest.raises(SpecError, match="at least 9 draws of the posterior, got 5"):
        run({"x": torch.rand(5)}, draws=9)
    with pytest.raises(SpecError, match="true value of 'y'"):
        run({"y": torch.rand(63)})
    with pytest.raises(DataError, match="x: expected draws of shape"):
        run({"x": torch.rand(63, 2)})
    with pytest.raises(DataError, match="all are constant"):
        run({"x": torch.ones(63)})
    with pytest.raises(SpecError, match="repetitions >= 2"):
        run({"x": torch.rand(63)}, repetitions=1)
    with pytest.raises(SpecError, match="between 0 and 1"):
        run({"x": torch.rand(63)}, levels=(90,))
    with pytest.raises(SpecError, match="one number a draw"):
        run({"x": torch.rand(63)}, quantities={"q": lambda v, d: v["x"][:, None]})
