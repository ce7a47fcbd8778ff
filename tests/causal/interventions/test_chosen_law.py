import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian
from bayeswm.causal.interventions.chosen_law import ChosenLaw

ON = torch.tensor([[True, False, True, False]])
FIRST = Gaussian(torch.tensor([1.0, 2.0]).double().expand(1, 4, 2), torch.tensor([0.0, 0.5]).double(), noisy=(0, 1))
SECOND = Gaussian(torch.zeros(1, 4, 2).double(), torch.tensor([2.0, 3.0]).double(), noisy=(0, 1))


def test_each_trajectory_has_the_law_that_holds_there() -> None:
    law = ChosenLaw(ON, FIRST, SECOND)
    x = torch.tensor([[1.0, 2.5], [4.0, 3.0], [1.0, 1.5], [-2.0, 0.0]]).double()[None]
    for ask in (
        lambda a: a.mean,
        lambda a: a.variance,
        lambda a: a.covariance,
        lambda a: a.cdf(x),
        lambda a: a.push(x),
    ):
        found, first, second = (ask(a) for a in (law, FIRST, SECOND))
        torch.testing.assert_close(found[:, [0, 2]], first.expand(found.shape)[:, [0, 2]])
        torch.testing.assert_close(found[:, [1, 3]], second.expand(found.shape)[:, [1, 3]])
    # a law that contradicts the state is not asked where it does not hold
    torch.testing.assert_close(law.push(law.abduct(x)), x)
    assert bool(law.log_prob(x).isfinite().all())
    torch.testing.assert_close(law.log_prob(x)[:, 1], SECOND.log_prob(x)[:, 1])
    torch.testing.assert_close(
        law.log_prob(x, marginal=True)[:, :, 1].sum(),
        law.log_prob(x).sum() - SECOND.log_prob(x, marginal=True)[:, [1, 3], 0].sum(),
    )
    assert law.log_prob(x + 1)[0].isfinite().tolist() == [False, True, False, True]


def test_it_changes_its_leading_axes() -> None:
    law = ChosenLaw(ON, FIRST, SECOND).map(lambda v: v[:, 1:3])
    torch.testing.assert_close(law.mean, torch.tensor([[[0.0, 0.0], [1.0, 2.0]]]).double())


def test_laws_of_different_noise_are_refused() -> None:
    other = MultivariateGaussian(torch.zeros(1, 4, 2), torch.eye(2))
    assert ChosenLaw(ON, SECOND, other).noise_size == 2
    with pytest.raises(bwm.SpecError, match="as it is"):
        ChosenLaw(ON, SECOND, Gaussian(torch.zeros(1, 4, 2)))
