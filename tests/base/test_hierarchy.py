import math

import pytest
import torch
from scipy import stats
from torch.distributions import HalfNormal, LogNormal, Normal

from bayeswm.base import Hierarchical, SpecError
from bayeswm.base.priors import decode, encode, positive

F64 = torch.float64


def test_values_of_an_episode() -> None:
    z = torch.tensor([-1.0, 0.0, 2.0], dtype=F64)
    two, tenth = torch.tensor(2.0, dtype=F64), torch.tensor(0.1, dtype=F64)
    plain, relative = Hierarchical(2.0, 0.1), Hierarchical(2.0, 0.1, relative=True)
    torch.testing.assert_close(plain.value(two, tenth, z), torch.tensor([1.9, 2.0, 2.2], dtype=F64))
    wanted = [2 * math.exp(-0.1), 2.0, 2 * math.exp(0.2)]
    torch.testing.assert_close(relative.value(two, tenth, z), torch.tensor(wanted, dtype=F64))


@pytest.mark.statistical
def test_draws_have_the_law_of_a_new_episode() -> None:
    torch.manual_seed(0)  # the law draws as torch's do: under the caller's fork of the global state
    drawn = Hierarchical(Normal(1.0, 3.0), 4.0).sample((4000,))
    assert stats.kstest(drawn.numpy(), stats.norm(1.0, 5.0).cdf).pvalue > 1e-5  # 3-4-5
    drawn = Hierarchical(LogNormal(0.5, 0.3), 0.4, relative=True).sample((4000,))
    assert stats.kstest(drawn.log().numpy(), stats.norm(0.5, 0.5).cdf).pvalue > 1e-5


def test_constraint_and_centre() -> None:
    assert positive(Hierarchical(1.0, HalfNormal(0.1), relative=True))
    assert not positive(Hierarchical(1.0, HalfNormal(0.1)))
    assert float(Hierarchical(Normal(3.0, 1.0), 0.1).mean) == float(Hierarchical(3.0, 0.1).mean) == 3.0
    with pytest.raises(NotImplementedError, match="levels have laws of their own"):
        Hierarchical(1.0, 0.1).log_prob(torch.ones(()))


@pytest.mark.parametrize(
    ("location", "scale", "relative", "message"),
    [
        (0.0, 0.0, False, "scale > 0"),
        (-1.0, 0.1, True, "location > 0"),
        (Normal(torch.zeros(2), 1.0), 0.1, False, r"location to be one number or a law of one, got shape \(2,\)"),
    ],
)
def test_levels_that_make_no_sense(location, scale, relative, message) -> None:
    with pytest.raises(SpecError, match=message):
        Hierarchical(location, scale, relative=relative)


def test_saved_as_plain_values() -> None:
    law = Hierarchical(LogNormal(0.5, 0.3), 0.4, relative=True)
    again = decode(encode(law))
    assert isinstance(again, Hierarchical)
    assert (again.relative, again.scale) == (True, 0.4)
    assert encode(again) == encode(law)


def test_a_parameter_of_an_episode_is_one_number() -> None:
    with pytest.raises(SpecError, match=r"one number in each episode, got a parameter of shape \(2, 2\)"):
        Hierarchical(1.0, 0.1).expand((2, 2))
