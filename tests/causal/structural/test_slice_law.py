import pytest
import torch
from torch.distributions import Laplace, Normal

import bayeswm as bwm
from bayeswm.causal import Mechanism, intervene
from bayeswm.causal.structural.slice_law import SliceLaw
from tests.causal.learned_models import ensemble, learned
from tests.causal.reference_models import EMPTY, c1, c6, observed


def test_draws_of_a_slice_follow_its_law(generator: torch.Generator) -> None:
    r = bwm.rollout(
        intervene(c1(), bwm.do(X=Normal(0.0, 2.0))), torch.zeros(3), horizon=1, particles=100_000, generator=generator
    )
    y = r.particles[0, :, 0, 0]
    z = (y.var() / 25.25 - 1) / (2 / len(y)) ** 0.5
    assert z.abs() < 4.5
    assert (y.mean() / (25.25 / len(y)) ** 0.5).abs() < 4.5


def test_density_and_inverse_of_a_slice_are_exact(generator: torch.Generator) -> None:
    law = c6().draw(1).transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    noise = torch.randn(1, 50, 3, generator=generator, dtype=torch.float64)
    x = law.push(noise)
    torch.testing.assert_close(law.abduct(x), noise)
    expected = Normal(0.0, 1.0).log_prob(noise).sum(-1)
    torch.testing.assert_close(law.log_prob(x), expected)


def test_a_law_that_is_not_normal(generator: torch.Generator) -> None:
    done = intervene(c1(), bwm.do(X=Laplace(1.0, 0.5)))
    r = bwm.rollout(done, torch.zeros(3), horizon=1, particles=100_000, generator=generator)
    x = r.particles[0, :, 0, 1]
    # the kurtosis of a Laplace law is 6, so the variance of x^2 about the mean is 5 var^2
    assert ((x.var() / 0.5 - 1) / (5 / len(x)) ** 0.5).abs() < 4.5
    assert ((x.mean() - 1) / (0.5 / len(x)) ** 0.5).abs() < 4.5


def test_a_variable_that_is_not_settled_yet_is_nan() -> None:
    seen: list[torch.Tensor] = []

    def policy(state: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(state)
        return state[..., 2]

    law = (
        intervene(c1(), bwm.do(X=policy)).draw(1).transition(torch.zeros(1, 1, 3, dtype=torch.float64), EMPTY.double())
    )
    assert law.mean.isfinite().all()
    assert bool(seen[0][..., :2].isnan().all())
    assert bool(seen[0][..., 2].isfinite().all())


def test_shifted_and_set_slices_have_densities() -> None:
    start = torch.zeros(1, 1, 3, dtype=torch.float64)
    x = torch.tensor([1.0, 0.7, 0.2], dtype=torch.float64)
    done = intervene(c1(), bwm.do(X=bwm.causal.shift(1.0))).draw(1).transition(start, EMPTY.double())
    expected = Normal(0.2 * 1.0 + 1, 1.0).log_prob(x[1]) + Normal(0.0, 1.0).log_prob(x[2])
    expected = expected + Normal(2 * 0.7 - 0.6, 0.5).log_prob(x[0])
    torch.testing.assert_close(done.log_prob(x).flatten()[0], expected)
    hard = intervene(c1(), bwm.do(X=0.7)).draw(1).transition(start, EMPTY.double())
    expected = Normal(0.0, 1.0).log_prob(x[2]) + Normal(2 * 0.7 - 0.6, 0.5).log_prob(x[0])
    torch.testing.assert_close(hard.log_prob(x).flatten()[0], expected)
    clamped = intervene(c1(), bwm.do(X=bwm.causal.clamp(0.0))).draw(1).transition(start, EMPTY.double())
    with pytest.raises(bwm.SpecError, match="joint density"):
        clamped.log_prob(x)
    assert observed(c1(), [[0.0, 0.0, 0.0]]).horizon == 1


@pytest.mark.parametrize(
    ("intervention", "inner"),
    [
        (bwm.do(Z=bwm.causal.shift(1.0)), (1, 2)),
        (bwm.do(X=1.0), (2,)),
        (bwm.do(X=1.0, Z=2.0), ()),
        (bwm.do(X=Normal(0.0, 1.0)), (2, 3)),  # a draw has a coordinate of its own
        (bwm.do(Z=Mechanism(lambda: 0.0)), (1, 2)),
        (bwm.do(X=Mechanism(lambda: 0.0, noise=1.0)), (1, 2)),
        (bwm.do(Y=bwm.causal.clamp(0.0)), (0, 1, 2)),
        (bwm.do(Y=Laplace(0.0, 1.0)), (2, 3)),
        (bwm.do(X=lambda state, step: state[..., 2]), (0, 2)),
    ],
)
def test_noise_that_moments_are_integrated_over(
    intervention: bwm.causal.Intervention, inner: tuple[int, ...], generator: torch.Generator
) -> None:
    law = intervene(c1(), intervention).draw(1).transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    assert isinstance(law, SliceLaw)
    assert law.inner == inner
    if 0 in inner or 3 in inner:  # the variance of what is no polynomial is an estimate, and says so
        return
    x = law.push(torch.randn(1, 100_000, law.noise_size, generator=generator, dtype=torch.float64))[0]
    error = (x.var(0) - law.variance[0, 0]) / (((x - x.mean(0)) ** 4).mean(0) / len(x)).sqrt().clamp(min=1e-9)
    assert float(error.abs().max()) < 4.5


def test_noise_whose_size_depends_on_the_slice() -> None:
    """The scale of a learned mechanism follows its parents: by the law of total variance, over a dense grid of them."""
    model = learned(ensemble(epochs=2), {"x": (), "y": ("x",)})
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, generator=g)
    model.fit(bwm.data.from_rows({"x": x, "y": x * torch.randn(400, generator=g)}), seed=0, progress=False)
    worlds = model.draw(1)
    law = worlds.transition(torch.zeros(1, 1, 2).double(), EMPTY.double())
    assert law.inner == (0,)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weight = Normal(0.0, 1.0).log_prob(z).exp() * 0.004
    first = worlds.regressions["x"].transition(torch.zeros(1, 1, 1).double(), EMPTY.double())
    at = first.push(z[:, None])  # (worlds, 4001, 1)
    second = worlds.regressions["y"].transition(torch.zeros_like(at), at)
    mean, variance = second.mean[..., 0], second.variance[..., 0]
    expected = (weight * mean).sum(-1)
    torch.testing.assert_close(law.mean[:, 0, 1], expected, rtol=1e-3, atol=1e-3)
    total = (weight * (variance + (mean - expected[:, None]).square())).sum(-1)
    torch.testing.assert_close(law.variance[:, 0, 1], total, rtol=1e-3, atol=0)
    covariance = (weight * (at[..., 0] - first.mean[..., 0]) * mean).sum(-1)
    torch.testing.assert_close(law.covariance[:, 0, 0, 1], covariance, rtol=1e-3, atol=1e-3)
