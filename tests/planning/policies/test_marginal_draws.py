import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian, SpecError
from bayeswm.planning.policies.marginal_draws import marginal_draws
from bayeswm.propagation import MomentMatching
from tests.planning.systems import spring_worlds

F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(*batch: int) -> MultivariateGaussian:
    root = torch.tensor([[0.3, 0.0], [0.1, 0.2]], dtype=F64)
    mean = torch.randn(1, 1, *batch, 2, generator=generator(5), dtype=F64)
    return MultivariateGaussian(mean, root.expand(1, 1, *batch, 2, 2))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("batch", [(), (4,)])
def test_draws_have_the_moments_of_each_law(pooled: bool, batch: tuple[int, ...]) -> None:
    belief = start(*batch)
    p = bwm.propagate(
        spring_worlds(), belief, torch.ones(*batch, 5, 1), method=MomentMatching(pooled=pooled), generator=generator()
    )
    x = marginal_draws(p, belief, draws=30, generator=generator())
    assert x.shape == (1 if pooled else 3, 30, *batch, 6, 2)
    for t, law in enumerate((belief, *p.laws)):
        at = x[..., t, :]
        off = at - at.mean(1, keepdim=True)
        cover = torch.einsum("wk...i,wk...j->w...ij", off, off) / 30
        torch.testing.assert_close(at.mean(1), law.mean[:, 0].expand(at.mean(1).shape))
        torch.testing.assert_close(cover, law.covariance[:, 0].expand(cover.shape), rtol=1e-9, atol=1e-12)


def test_a_known_start_is_one_place_and_a_column_may_be_certain() -> None:
    x0 = torch.tensor([0.5, -1.0], dtype=F64)
    p = bwm.propagate(spring_worlds(), x0, torch.ones(3, 1), generator=generator())
    assert torch.equal(marginal_draws(p, x0, draws=9, generator=generator())[..., 0, :], x0.expand(3, 9, 2))
    law = Gaussian(x0.view(1, 1, 2), torch.tensor([0.0, 0.2], dtype=F64), noisy=(1,))
    p = bwm.propagate(spring_worlds(), law, torch.ones(3, 1), generator=generator())
    x = marginal_draws(p, law, draws=9, generator=generator())[..., 0, :]
    torch.testing.assert_close(x[..., 0], torch.full((3, 9), 0.5, dtype=F64))
    assert float(x[..., 1].std()) > 0.1


def test_too_few_draws_are_refused() -> None:
    x0 = torch.zeros(2)
    p = bwm.propagate(spring_worlds(), x0, torch.ones(3, 1), generator=generator())
    with pytest.raises(SpecError, match="more than 2 draws"):
        marginal_draws(p, x0, draws=2, generator=generator())
