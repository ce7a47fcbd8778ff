import json

import pyro.distributions as pyro_dist
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import distributions as dist

from bayeswm.base import SpecError
from bayeswm.base.priors import decode, encode, positive

F64 = torch.float64


def again(law: dist.Distribution) -> dist.Distribution:
    return decode(json.loads(json.dumps(encode(law))))


def spread(*size: int, seed: int = 0) -> torch.Tensor:
    """A positive definite matrix, or a batch of them."""
    root = torch.randn(*size, size[-1], generator=torch.Generator().manual_seed(seed), dtype=F64)
    return root @ root.mT + torch.eye(size[-1], dtype=F64)


LAWS = [
    dist.Normal(0.1, 0.3),
    dist.LogNormal(torch.tensor(0.1, dtype=F64), 0.3),
    dist.HalfNormal(torch.tensor([0.1, 0.7], dtype=F64)),
    dist.StudentT(3.3, 0.1, 2.0),
    dist.Uniform(torch.tensor(0.1, dtype=F64), torch.tensor(0.7, dtype=F64)),
    dist.Gamma(2.1, 0.3),
    dist.InverseGamma(2.1, 0.3),
    dist.Beta(0.4, 1.7),
    dist.Exponential(0.3),
    dist.HalfCauchy(0.3),
    dist.Laplace(0.1, 0.3),
    dist.Cauchy(0.1, 0.3),
    dist.Weibull(0.7, 1.3),
    dist.Gumbel(0.1, 0.3),
    dist.Pareto(0.7, 2.3),
    dist.Chi2(3.3),
    dist.VonMises(0.1, 4.3),
    dist.Kumaraswamy(0.4, 1.7),
    dist.FisherSnedecor(2.3, 5.7),
    dist.GeneralizedPareto(0.1, 0.3, 0.2),
    dist.LogisticNormal(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4])),
    dist.Dirichlet(torch.tensor([0.3, 1.7, 2.2], dtype=F64)),
    dist.MultivariateNormal(torch.zeros(3, dtype=F64), spread(3)),
    dist.MultivariateNormal(torch.zeros(2, 3, dtype=F64), precision_matrix=spread(2, 3)),
    dist.MultivariateNormal(torch.ones(2), scale_tril=torch.tensor([[0.3, 0.0], [-0.7, 0.1]])),
    dist.LowRankMultivariateNormal(torch.zeros(3), 0.3 * torch.ones(3, 1), torch.tensor([0.1, 0.2, 0.3])),
    dist.LKJCholesky(3, 1.3),
    dist.ContinuousBernoulli(0.3),
    dist.Poisson(2.3),
    dist.Categorical(logits=torch.tensor([0.1, -0.3])),
    dist.NegativeBinomial(3, logits=torch.tensor(0.3)),
    dist.Normal(0.1, 0.3).expand(torch.Size((2, 3))),
    dist.Dirichlet(torch.tensor([0.3, 1.7])).expand(torch.Size((4,))),
    dist.Independent(dist.LogNormal(torch.zeros(2, 3), 0.3), 1),
    dist.Independent(dist.Independent(dist.Gamma(torch.full((2, 3), 2.1), 0.3), 1), 1),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_a_law_survives_bit_for_bit(law: dist.Distribution) -> None:
    loaded = again(law)
    assert type(loaded) is type(law)
    assert (loaded.batch_shape, loaded.event_shape) == (law.batch_shape, law.event_shape)
    draws = []
    for one in (law, loaded):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            draws.append(one.sample((5,)))
    assert draws[0].dtype == draws[1].dtype
    assert torch.equal(*draws)
    assert torch.equal(law.log_prob(draws[0]), loaded.log_prob(draws[0]))


def test_a_law_of_matrices_survives() -> None:
    law = dist.Wishart(torch.tensor(4.3, dtype=F64), precision_matrix=spread(3))
    x = spread(3, seed=1)  # not a draw: torch warns of singular samples there where it found a good one
    assert torch.equal(again(law).log_prob(x), law.log_prob(x))


numbers = st.floats(0.0625, 16.0, width=32)
shapes = st.lists(st.integers(1, 3), max_size=2)


@st.composite
def laws(draw: st.DrawFn) -> dist.Distribution:
    """A law of random class, parameters, number format, batch shape and event axes."""
    shape, dtype = draw(shapes), draw(st.sampled_from([torch.float32, F64]))
    seed = draw(st.integers(0, 2**31))

    def value(*event: int) -> torch.Tensor:
        raw = torch.rand((*shape, *event), generator=torch.Generator().manual_seed(seed), dtype=dtype)
        return draw(numbers) * (raw + 0.1)

    size = draw(st.integers(1, 3))
    law = draw(
        st.sampled_from(
            [
                lambda: dist.Normal(value(), value()),
                lambda: dist.StudentT(value(), value(), value()),
                lambda: dist.Gamma(value(), value()),
                lambda: dist.Weibull(value(), value()),
                lambda: dist.InverseGamma(value(), value()),
                lambda: dist.Uniform(-value(), value()),
                lambda: dist.Dirichlet(value(size)),
                lambda: dist.MultivariateNormal(value(size), torch.diag_embed(value(size))),
                lambda: dist.MultivariateNormal(value(size), scale_tril=torch.diag_embed(value(size))),
                lambda: pyro_dist.LogNormal(value(), value()),
                lambda: pyro_dist.Beta(value(), value()),
            ]
        )
    )()
    law = law.expand(torch.Size((*draw(shapes), *law.batch_shape)))
    return dist.Independent(law, draw(st.integers(0, len(law.batch_shape))))


@given(laws())
def test_any_law_round_trips(law: dist.Distribution) -> None:
    loaded = again(law)
    assert encode(loaded) == encode(law)  # the parameters, to the last bit
    assert (loaded.batch_shape, loaded.event_shape) == (law.batch_shape, law.event_shape)
    with torch.random.fork_rng():
        x = law.sample((3,))
    # a float32 draw may underflow to the edge of the support, where torch refuses its own draw
    assume(bool(law.support.check(x).all()))
    # summed in the order of other strides: equal but for rounding
    torch.testing.assert_close(loaded.log_prob(x), law.log_prob(x))


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (pyro_dist.Normal(0.1, 0.3), dist.Normal),
        (pyro_dist.InverseGamma(2.1, 0.3), dist.InverseGamma),
        (pyro_dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), dist.MultivariateNormal),
        (pyro_dist.HalfCauchy(torch.ones(3)).to_event(1), dist.Independent),
    ],
)
def test_a_law_of_pyro_comes_back_as_that_of_torch(law: dist.Distribution, expected: type) -> None:
    loaded = again(law)
    assert type(loaded) is expected
    x = law.sample((5,))
    torch.testing.assert_close(loaded.log_prob(x), law.log_prob(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "value", [None, 3, 0.1, torch.tensor(0.1), torch.tensor([0.1, 0.2], dtype=F64), torch.tensor([[1, 2]])]
)
def test_a_value_survives_bit_for_bit(value: float | torch.Tensor | None) -> None:
    loaded = decode(json.loads(json.dumps(encode(value))))
    if isinstance(value, torch.Tensor):
        assert loaded.dtype == value.dtype
        assert torch.equal(loaded, value)
    else:
        assert loaded == value


def test_laws_that_cannot_be_written_down() -> None:
    class Normal(dist.Normal):
        """A user's law with a known name."""

    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0))
    transformed = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.ExpTransform()])
    for law in (mixture, transformed, Normal(0.0, 1.0), pyro_dist.Delta(torch.ones(1)), dist.Independent(mixture, 0)):
        with pytest.raises(SpecError, match="cannot save a law of class"):
            encode(law)


@pytest.mark.parametrize("name", ["os.system", "Transform", "kl_divergence", ["Normal"], None])
def test_a_file_names_no_other_class(name: object) -> None:
    with pytest.raises(SpecError, match="expected a law of torch"):
        decode({"law": name, "parameters": {}})


def test_number_formats() -> None:
    with pytest.raises(SpecError, match="number format"):
        decode({"tensor": [1.0], "dtype": "load"})


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        (dist.LogNormal(0.0, 1.0), True),
        (dist.Uniform(torch.tensor([0.0, 0.1]), 2.0), True),
        (dist.Uniform(torch.tensor([-0.1, 0.1]), 2.0), False),
        (dist.Independent(dist.HalfNormal(torch.ones(3)), 1), True),
        (dist.Dirichlet(torch.ones(3)), True),
        (dist.Normal(100.0, 0.1), False),
        (dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.ExpTransform()]), True),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.LogNormal(torch.zeros(2), 1.0)), True),
        (dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)), False),
        (dist.Distribution(validate_args=False), False),
    ],
)
def test_laws_of_numbers_that_are_not_below_0(law: dist.Distribution, expected: bool) -> None:
    assert positive(law) is expected
