import json

import pytest
import torch
from torch import distributions as dist

from bayeswm.base import SpecError
from bayeswm.base.priors import decode, encode

LAWS = [
    dist.Normal(0.1, 0.3),
    dist.LogNormal(torch.tensor(0.1, dtype=torch.float64), 0.3),
    dist.HalfNormal(torch.tensor([0.1, 0.7], dtype=torch.float64)),
    dist.StudentT(3.3, 0.1, 2.0),
    dist.Uniform(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)),
    dist.Gamma(2.1, 0.3),
    dist.InverseGamma(2.1, 0.3),
    dist.Beta(0.4, 1.7),
    dist.Exponential(0.3),
    dist.HalfCauchy(0.3),
    dist.Laplace(0.1, 0.3),
    dist.Cauchy(0.1, 0.3),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_a_law_survives_bit_for_bit(law: dist.Distribution) -> None:
    again = decode(json.loads(json.dumps(encode(law))))
    assert type(again) is type(law)
    draws = []
    for one in (law, again):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            draws.append(one.sample((5,)))
    assert draws[0].dtype == draws[1].dtype
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    "value", [None, 3, 0.1, torch.tensor(0.1), torch.tensor([0.1, 0.2], dtype=torch.float64), torch.tensor([[1, 2]])]
)
def test_a_value_survives_bit_for_bit(value: float | torch.Tensor | None) -> None:
    again = decode(json.loads(json.dumps(encode(value))))
    if isinstance(value, torch.Tensor):
        assert again.dtype == value.dtype
        assert torch.equal(again, value)
    else:
        assert again == value


def test_unknown_laws() -> None:
    class Normal(dist.Normal):
        """A user's law with a known name."""

    for law in (dist.Weibull(1.0, 1.0), Normal(0.0, 1.0)):
        with pytest.raises(SpecError, match="cannot save a law of class"):
            encode(law)
    with pytest.raises(SpecError, match=r"got 'os\.system'"):
        decode({"law": "os.system", "parameters": {}})
    with pytest.raises(SpecError, match="number format"):
        decode({"tensor": [1.0], "dtype": "load"})
