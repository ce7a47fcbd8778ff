import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from bayeswm.base import FitError, FitWarning, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import NUTS, Inference, Joint
from tests.inference.posteriors import POSTERIORS
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
SHORT = NUTS(draws=20, warmup=20)


def density(log_likelihood: Callable[[Tensor], Tensor], size: int = 2) -> Joint:
    """A joint density of ``x`` (size,), which is standard normal before data."""
    return Joint(
        {"x": Normal(torch.zeros(size, dtype=F64), 1.0)},
        lambda values, rows: log_likelihood(values["x"])[:, None],
        terms=1,
    )


@pytest.mark.statistical
def test_a_gaussian_of_known_moments() -> None:
    # N(0, 1) prior times N(m | x, S): precision 1 + inverse of S
    inverse = torch.tensor([[40.0, 30.0], [30.0, 40.0]], dtype=F64)
    covariance = torch.linalg.inv(inverse + torch.eye(2, dtype=F64))
    centre = torch.tensor([3.0, -1.0], dtype=F64)
    mean = covariance @ inverse @ centre

    def log_likelihood(x: Tensor) -> Tensor:
        return -0.5 * ((x - centre) @ inverse * (x - centre)).sum(-1)

    settings = NUTS(draws=1200, warmup=200, chains=2)
    found = settings.infer(density(log_likelihood), generator=make_generator(0))
    assert found.values["x"].shape == (2, 1200, 2)
    white = (found.values["x"] - mean) @ torch.linalg.inv(torch.linalg.cholesky(covariance)).mT
    # blocks of 40 draws depend on each other hardly
    blocks = white.reshape(60, 40, 2)
    assert mean_p(blocks.mean(1), 0.0) > BUDGET
    assert mean_p((blocks[..., :, None] * blocks[..., None, :]).mean(1), torch.eye(2)) > BUDGET


@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_figures_of_each_draw_have_arviz_names() -> None:
    joint = density(lambda x: 0 * x.sum(-1))
    found = NUTS(draws=50, warmup=30, chains=2).infer(joint, generator=make_generator(0))
    stats = found.sample_stats
    assert set(stats) == {"lp", "acceptance_rate", "diverging", "n_steps", "tree_depth", "reached_max_treedepth"}
    assert all(v.shape == (2, 50) for v in stats.values())
    x = found.values["x"]
    torch.testing.assert_close(stats["lp"], Normal(0.0, 1.0).log_prob(x).sum(-1), rtol=1e-9, atol=1e-12)
    assert bool(((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1)).all())
    assert float(stats["acceptance_rate"].mean()) == pytest.approx(found.statistics["acceptance"])
    # a tree of depth d has more than 2^(d-1) - 1 and at most 2^d - 1 steps
    depth, steps = stats["tree_depth"], stats["n_steps"]
    assert bool((steps <= 2**depth - 1).all())
    assert bool((steps > 2 ** (depth - 1) - 1).all())
    assert found.statistics["divergences"] == 0
    assert found.statistics["evaluations"] >= int(steps.sum())
    capped = NUTS(draws=20, warmup=20, max_tree_depth=1).infer(joint, generator=make_generator(0)).sample_stats
    assert bool(capped["reached_max_treedepth"].all())
    assert int(capped["n_steps"].max()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriordb(name: str, measured_data: Path) -> None:
    posterior = POSTERIORS[name](measured_data)
    joint = Joint(posterior.flat.laws, lambda v, rows: torch.zeros(1, 1), terms=1)
    joint.log_density = lambda x, rows=None: posterior.log_density(x)
    # 150 (schools: 40) effective draws a 1,000 are the fewest seen; the limits of the warnings need 400
    chains = 4 if name == "autoregression" else 2
    settings = NUTS(draws=1000, warmup=500, chains=1 if name == "lotka-volterra" else chains)
    found = settings.infer(joint, generator=make_generator(0))
    assert posterior.worst(posterior.flat.unconstrain(found.values)) < 4
    assert all(float(v.max()) < 1.01 for v in found.r_hat.values())
    assert all(float(v.min()) > 400 for v in found.ess_bulk.values())


def test_more_data_are_taken_in_by_tempering() -> None:
    seen = torch.tensor([0.9, 1.1, 1.4, 1.6], dtype=F64)

    def log_likelihood(values, rows):
        return Normal(values["level"][:, None], 0.5).log_prob(seen if rows is None else seen[rows])

    joint = Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=4)
    g = make_generator(0)
    old = Joint(joint.laws, lambda v, r: log_likelihood(v, torch.arange(2)), terms=2)
    before = NUTS(draws=1500, warmup=100).infer(old, generator=g)
    after = NUTS().update(joint, 2, before, generator=g)
    assert after.statistics["stages"] >= 1
    precision = 1 / 100 + 4 / 0.25
    mean, spread = float(seen.sum()) / 0.25 / precision, precision**-0.5
    # at least 500 draws are worth an independent one
    assert abs(float(after.values["level"].mean()) - mean) < 4.5 * spread / math.sqrt(500)


def test_too_few_draws_are_reported() -> None:
    with pytest.warns(FitWarning, match=r"effective sample size below 400 for 2 of 2 .*\(x\[[01]\]\)"):
        SHORT.infer(density(lambda x: 0 * x.sum(-1)), generator=make_generator(0))


def test_no_start_is_an_error_that_names_the_site() -> None:
    with pytest.raises(FitError, match=r"the gradient is not finite in x\[1\];"):
        SHORT.infer(density(lambda x: (x[:, 1] * 0).sqrt()), generator=make_generator(0))
    with pytest.raises(FitError, match="the log density is not finite"):
        SHORT.infer(density(lambda x: x.sum(-1) - math.inf), generator=make_generator(0))


def test_divergence_everywhere_is_an_error_that_names_the_site() -> None:
    start: list[Tensor] = []

    def trap(x: Tensor) -> Tensor:
        # fine for the climb, in which many points are evaluated together; then finite at the chain's start only
        start.extend([x.detach()] if len(x) == 1 and not start else [])
        away = len(x) == 1 and not torch.allclose(x.detach(), start[0], rtol=1e-12)
        return 9 * x[:, 1] + x[:, 0] + (math.nan if away else 0.0) * x.sum(-1)

    with pytest.raises(FitError, match=r"every trajectory diverges; the gradient is largest in x\[1\]"):
        SHORT.infer(density(trap), generator=make_generator(0))


@pytest.mark.parametrize(("after", "kept"), [(1000, 100), (400, 8)])
def test_an_interrupted_run_keeps_complete_chains_or_the_first(after: int, kept: int) -> None:
    calls = 0

    def interrupted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x) == 1
        if calls == after and len(x) == 1:
            raise KeyboardInterrupt
        return 0 * x.sum(-1)

    with pytest.warns(FitWarning) as said:
        found = NUTS(draws=100, warmup=20, chains=9).infer(density(interrupted), generator=make_generator(0))
    chains, draws = found.values["x"].shape[:2]
    assert f"interrupted: {chains} chain(s) of {draws} draws are kept" in str(said[0].message)
    assert 1 <= chains < 9
    assert kept <= draws <= 100
    assert draws == 100 or chains == 1


def test_an_interruption_in_the_warmup_is_one() -> None:
    calls = 0

    def interrupted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x) == 1
        if calls == 10:
            raise KeyboardInterrupt
        return 0 * x.sum(-1)

    with pytest.raises(KeyboardInterrupt):
        SHORT.infer(density(interrupted), generator=make_generator(0))


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"warmup": 5}, {"draws": 0}, {"max_tree_depth": 0}, {"chains": 4.0}])
def test_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        NUTS(**wrong)
    with pytest.raises(SpecError, match="target_acceptance"):
        NUTS(target_acceptance=1.0)


def test_it_is_found_by_name_and_rebuilt() -> None:
    assert Inference.registry["NUTS"] is NUTS
    assert NUTS.from_config(SHORT.config()) == SHORT
