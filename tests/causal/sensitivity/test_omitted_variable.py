import math

import pytest
import torch

from bayeswm.base.errors import SpecError
from bayeswm.causal import adjusted_estimate, robustness_value

# exposure to violence and attitudes to peace in Darfur (Cinelli and Hazlett 2020, section 5)
DARFUR = (0.09731582, 0.02325654)


def test_the_numbers_of_the_paper() -> None:
    assert robustness_value(*DARFUR, degrees_of_freedom=783) == pytest.approx(0.1387764, abs=1e-6)
    assert robustness_value(*DARFUR, degrees_of_freedom=783, level=0.95) == pytest.approx(0.07625797, abs=1e-6)
    found = adjusted_estimate(*DARFUR, degrees_of_freedom=783, treatment_r2=0.05, outcome_r2=0.05)
    assert found == pytest.approx((0.06393, 0.02327), abs=1e-5)
    assert found.value / found.standard_error == pytest.approx(2.74724, abs=1e-4)


def test_a_confounder_of_that_strength_takes_the_estimate_to_zero() -> None:
    for share in (1.0, 0.5):
        value = robustness_value(*DARFUR, degrees_of_freedom=783, share=share)
        found = adjusted_estimate(*DARFUR, degrees_of_freedom=783, treatment_r2=value, outcome_r2=value)
        assert found.value == pytest.approx((1 - share) * DARFUR[0], abs=1e-12)
    negative = adjusted_estimate(-0.5, 0.1, degrees_of_freedom=50, treatment_r2=0.2, outcome_r2=0.1)
    assert negative.value == pytest.approx(
        -adjusted_estimate(0.5, 0.1, degrees_of_freedom=50, treatment_r2=0.2, outcome_r2=0.1).value
    )


def test_adjusting_is_what_the_longer_regression_does(generator: torch.Generator) -> None:
    """The bias formula is an identity of least squares, whatever the numbers."""
    n = 60
    x, u = (torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))
    d = 0.5 * x + u + torch.randn(n, generator=generator, dtype=torch.float64)
    y = d - x + 2 * u + torch.randn(n, generator=generator, dtype=torch.float64)
    ones = torch.ones(n, dtype=torch.float64)

    def least_squares(y: torch.Tensor, *columns: torch.Tensor) -> tuple[float, float, float]:
        X = torch.stack((*columns, ones), -1)
        beta = torch.linalg.solve(X.mT @ X, X.mT @ y)
        rss = (y - X @ beta).square().sum()
        error = (rss / (n - X.shape[1]) * torch.linalg.inv(X.mT @ X)[0, 0]).sqrt()
        return float(beta[0]), float(error), float(rss)

    short, error, rss = least_squares(y, d, x)
    long, long_error, long_rss = least_squares(y, d, x, u)
    treatment_r2 = 1 - least_squares(d, x, u)[2] / least_squares(d, x)[2]
    found = adjusted_estimate(
        short, error, degrees_of_freedom=n - 3, treatment_r2=treatment_r2, outcome_r2=1 - long_rss / rss
    )
    assert found == pytest.approx((long, long_error), rel=1e-9)


def test_an_interval_that_reaches_zero_has_no_robustness() -> None:
    assert robustness_value(0.1, 0.1, degrees_of_freedom=100, level=0.95) == 0
    assert robustness_value(0.0, 0.1, degrees_of_freedom=100) == 0


def test_a_confounder_of_the_treatment_alone_widens_the_interval() -> None:
    """Far out, no choice of the outcome's share below RV is worse: the adjusted bound is 0 there, and not before."""
    t, df = 40.0, 20
    value = robustness_value(t, 1.0, degrees_of_freedom=df, level=0.95)
    critical = 2.093024 / math.sqrt(df - 1)  # two-sided 5 % point of t with 19 degrees of freedom

    def least(treatment_r2: float) -> float:
        grid = [i / 2000 * treatment_r2 for i in range(2001)]
        f = t / math.sqrt(df)
        return min(
            f - math.sqrt(r * treatment_r2 / (1 - treatment_r2)) - critical * math.sqrt((1 - r) / (1 - treatment_r2))
            for r in grid
        )

    assert least(value - 1e-3) > 0 > least(value + 1e-3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"standard_error": 0.0}, "standard_error > 0"),
        ({"estimate": math.nan}, "finite estimate"),
        ({"degrees_of_freedom": 1}, "degrees_of_freedom"),
        ({"share": 0.0}, "share"),
        ({"level": 1.0}, "level"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, float], match: str) -> None:
    given = {"estimate": 0.1, "standard_error": 0.1, "degrees_of_freedom": 10} | arguments
    with pytest.raises(SpecError, match=match):
        robustness_value(given.pop("estimate"), given.pop("standard_error"), **given)


def test_shares_are_shares() -> None:
    with pytest.raises(SpecError, match="treatment_r2"):
        adjusted_estimate(0.1, 0.1, degrees_of_freedom=10, treatment_r2=1.0, outcome_r2=0.5)
    with pytest.raises(SpecError, match="outcome_r2"):
        adjusted_estimate(0.1, 0.1, degrees_of_freedom=10, treatment_r2=0.5, outcome_r2=1.1)
