import pytest
import torch

from bayeswm import DataError, Gaussian, MultivariateGaussian, SpecError
from bayeswm.planning.loop.starts import draw_starts

LIKE = torch.empty(2, dtype=torch.float64)


def drawn(start, rows=4):
    return draw_starts(start, rows, generator=torch.Generator().manual_seed(0), like=LIKE)


def test_given_states_are_taken_as_they_are():
    given = torch.arange(8.0).view(4, 2)
    assert torch.equal(drawn(given), given.double())
    assert torch.equal(drawn(given[0]), given[:1].double().expand(4, 2))


def test_laws_and_functions_draw():
    tril = torch.tensor([[1.0, 0.0], [0.5, 0.1]], dtype=torch.float64)
    found = drawn(MultivariateGaussian(torch.zeros(1, 1, 2, dtype=torch.float64), tril), 4000)
    # the relative standard error of a variance from n values is sqrt(2 / n) = 0.022; 4.5 of them
    torch.testing.assert_close(found.T.cov(), tril @ tril.T, rtol=0.1, atol=0)
    narrow = drawn(Gaussian(torch.ones(1, 1, 2), torch.tensor([0.0, 1.0])))
    assert bool((narrow[:, 0] == 1).all())
    assert len(narrow[:, 1].unique()) == 4
    assert torch.equal(
        drawn(lambda rows, g: torch.rand(rows, 2, generator=g)), drawn(lambda n, g: torch.rand(n, 2, generator=g))
    )


@pytest.mark.parametrize("start", [torch.zeros(3), torch.zeros(3, 2), torch.tensor([0.0, float("nan")])])
def test_what_is_no_start_is_refused(start):
    with pytest.raises(DataError, match="start states"):
        drawn(start)
    with pytest.raises(SpecError, match="law of start"):
        drawn(Gaussian(torch.zeros(3, 1, 2)))
