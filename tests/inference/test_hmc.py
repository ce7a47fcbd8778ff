import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, Gamma, Uniform

from bayeswm.base import FitError, FitWarning, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Draws, Unconstrained
from tests.inference.moments import chain_moments_p
from tests.inference.posteriors import POSTERIORS
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
SHORT = HMC(chains=4, warmup=20, draws=10)


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def starts(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(n, size, generator=make_generator(seed), dtype=F64)


@pytest.mark.statistical
@pytest.mark.parametrize("dense_limit", [256, 0])
def test_gaussian_of_known_moments(dense_limit: int) -> None:
    g = make_generator(1)
    # variables from 1e-3 to 1e3; correlated, mildly enough for diagonal coordinates
    scale = torch.logspace(-3, 3, 8, dtype=F64)
    factor = scale[:, None] * torch.linalg.cholesky(0.6 * torch.eye(8, dtype=F64) + 0.4)
    mean = 3 * scale * torch.randn(8, generator=g, dtype=F64)
    precision = torch.cholesky_inverse(factor)

    def log_density(x: Tensor) -> Tensor:
        moved = x - mean
        return -0.5 * ((moved @ precision) * moved).sum(-1)

    settings = HMC(dense_limit=dense_limit, warmup=200 if dense_limit else 400, draws=300)
    drawn = settings.sample(log_density, starts(64, 8), generator=g)
    assert drawn.positions.shape == (64, 300, 8)
    assert drawn.problems() == ()
    assert 0.75 < float(drawn.acceptance.mean()) < 0.95
    assert chain_moments_p(drawn.positions, mean, factor) > BUDGET


@pytest.mark.statistical
def test_bounded_laws_have_their_moments() -> None:
    alpha = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    flat = Unconstrained({"rate": Gamma(3.0, 2.0), "share": Dirichlet(alpha), "place": Uniform(-2.0, 5.0)})

    def log_density(x: Tensor) -> Tensor:
        values, log_det = flat.constrain(x)
        return flat.log_prior(values) + log_det

    g = make_generator(0)
    drawn = HMC().sample(log_density, flat.sample(64, g), generator=g, labels=flat.labels)
    values = flat.constrain(drawn.positions)[0]
    # means and second moments in closed form
    exact = {
        "rate": (1.5, 3.0),
        "share": (alpha / 6, alpha * (alpha + 1) / 42),
        "place": (1.5, 1.5**2 + 49 / 12),
    }
    for name, (first, second) in exact.items():
        assert mean_p(values[name].mean(1), first) > BUDGET, name
        assert mean_p(values[name].square().mean(1), second) > BUDGET, name


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriordb(name: str, measured_data: Path) -> None:
    posterior = POSTERIORS[name](measured_data)
    settings = HMC(warmup=100, draws=240) if name == "lotka-volterra" else HMC()
    assert run(posterior, settings, 0) < 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriordb_over_seeds(name: str, seed: int, measured_data: Path) -> None:
    assert run(POSTERIORS[name](measured_data), HMC(), seed) < 4


def run(posterior, settings: HMC, seed: int) -> float:
    g = make_generator(seed)
    start = posterior.flat.sample(4 * settings.chains, g)
    drawn = settings.sample(posterior.log_density, start, generator=g, labels=posterior.flat.labels)
    assert drawn.problems() == ()
    return posterior.worst(drawn.positions)


def test_chains_in_a_negligible_mode_are_moved() -> None:
    def log_density(x: Tensor) -> Tensor:
        one, other = -0.5 * x.square(), -0.5 * (x - 40).square() - 60
        return torch.logaddexp(one, other).sum(-1)

    start = torch.tensor([[0.5], [39.0]], dtype=F64)
    drawn = HMC(chains=8).sample(log_density, start, generator=make_generator(0))
    assert float(drawn.positions.max()) < 10
    assert float(drawn.r_hat) < 1.01


def test_two_modes_of_equal_weight_are_reported() -> None:
    def log_density(x: Tensor) -> Tensor:
        return torch.logaddexp(-0.5 * x.square(), -0.5 * (x - 40).square()).sum(-1)

    start = torch.tensor([[0.5], [39.0]], dtype=F64)
    with pytest.warns(FitWarning, match=r"R-hat above 1\.01 for 1 of 1 .*\(place\)"):
        drawn = HMC(chains=8).sample(log_density, start, generator=make_generator(0), labels=["place"])
    assert float(drawn.r_hat) > 1.5


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_same_seed_same_draws_and_nothing_else_is_touched() -> None:
    before = torch.get_rng_state()
    start = starts(4, 3)
    kept = start.clone()
    one, two = (SHORT.sample(normal, start, generator=make_generator(5)) for _ in range(2))
    other = SHORT.sample(normal, start, generator=make_generator(6))
    assert torch.equal(one.positions, two.positions)
    assert not torch.equal(one.positions, other.positions)
    assert torch.equal(start, kept)
    assert torch.equal(before, torch.get_rng_state())
    with torch.inference_mode():
        inside = SHORT.sample(normal, start, generator=make_generator(5))
    assert torch.equal(inside.positions, one.positions)
    torch.set_default_dtype(F64)
    try:
        assert torch.equal(SHORT.sample(normal, start, generator=make_generator(5)).positions, one.positions)
    finally:
        torch.set_default_dtype(torch.float32)


def test_too_few_draws_are_reported() -> None:
    with pytest.warns(FitWarning, match=r"effective sample size below 400 for 3 of 3"):
        SHORT.sample(normal, starts(4, 3), generator=make_generator(0))


def test_the_fewest_draws_are_kept_and_say_nothing_of_themselves() -> None:
    with pytest.warns(FitWarning, match="smallest nan"):
        drawn = HMC(chains=4, warmup=20, draws=4).sample(normal, starts(4, 3), generator=make_generator(0))
    assert drawn.positions.shape == (4, 4, 3)
    assert bool(drawn.ess_bulk.isnan().all())


def test_starts_of_no_density_are_left_out() -> None:
    start = torch.tensor([[math.nan], [2.0], [math.inf], [1e200]], dtype=F64)
    drawn = HMC(chains=16).sample(normal, start, generator=make_generator(0))
    assert bool(drawn.positions.isfinite().all())
    assert drawn.problems() == ()


def test_no_start_is_an_error_that_names_the_quantity() -> None:
    def bad_gradient(x: Tensor) -> Tensor:
        return normal(x) + (x[:, 1] * 0).sqrt()  # infinite slope at 0 times 0

    with pytest.raises(FitError, match=r"none among 4: the gradient is not finite in mass;"):
        SHORT.sample(bad_gradient, starts(4, 2), generator=make_generator(0), labels=["length", "mass"])
    with pytest.raises(FitError, match="the log density is not finite"):
        SHORT.sample(lambda x: normal(x) - math.inf, starts(4, 2), generator=make_generator(0))


def test_divergence_everywhere_is_an_error_that_names_the_quantity() -> None:
    start = starts(1, 2)

    def trap(x: Tensor) -> Tensor:
        return torch.where((x.detach() == start).all(-1), 0.0, torch.nan) + 3 * x[:, 1] + x[:, 0]

    with pytest.raises(FitError, match="every trajectory diverges; the gradient is largest in mass"):
        SHORT.sample(trap, start, generator=make_generator(0), labels=["length", "mass"])


def test_an_interrupted_run_keeps_its_draws() -> None:
    calls = 0

    def interrupted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 1000:
            raise KeyboardInterrupt
        return normal(x)

    with pytest.warns(FitWarning) as said:
        drawn = HMC(chains=8, draws=2000).sample(interrupted, starts(8, 2), generator=make_generator(0))
    kept = drawn.positions.shape[1]
    assert 4 <= kept < 2000
    assert f"interrupted after {kept} draws a chain" in str(said[0].message)


@pytest.mark.parametrize(
    "wrong", [{"chains": 1}, {"warmup": 5}, {"draws": 0}, {"max_steps": 0}, {"chains": 4.0}, {"dense_limit": -1}]
)
def test_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        HMC(**wrong)


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(SpecError, match="target_acceptance"):
        HMC(target_acceptance=1.0)
    with pytest.raises(SpecError, match=r"start of shape \(n, D\)"):
        SHORT.sample(normal, torch.zeros(3), generator=make_generator(0))
    with pytest.raises(SpecError, match="2 labels, got 1"):
        SHORT.sample(normal, starts(4, 2), generator=make_generator(0), labels=["a"])


def test_a_quantity_that_never_moves_counts_as_bad() -> None:
    ones = torch.ones(4, 10, dtype=F64)
    drawn = Draws(
        torch.ones(4, 10, 1, dtype=F64),
        ones,
        ones,
        ones < 0,
        step_size=1.0,
        trajectory_length=1.0,
        evaluations=0,
        labels=("x",),
    )
    assert len(drawn.problems()) == 2
