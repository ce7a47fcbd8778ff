import pytest
import torch
from torch import Tensor
from torch import distributions as d

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import Unconstrained

F64 = torch.float64
LAWS = {
    "half_cauchy": d.HalfCauchy(2.5),
    "matrix": d.Normal(torch.zeros(2, 3), 1.0),
    "interval": d.Uniform(torch.tensor([0.1, 0.2]), 1.0),
    "simplex": d.Dirichlet(torch.ones(3)),
    "joint": d.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])),
    "log_normal": d.LogNormal(0.0, 0.5),
    "gamma": d.Gamma(2.0, 3.0),
    "student": d.StudentT(3.0, 0.0, 1.0),
    "independent": d.Independent(d.HalfNormal(torch.ones(2)), 1),
}


def test_there_and_back() -> None:
    flat = Unconstrained(LAWS)
    x = flat.sample(7, make_generator(0))
    assert x.shape == (7, flat.size)
    assert x.dtype == F64
    values, log_det = flat.constrain(x)
    assert {k: tuple(v.shape[1:]) for k, v in values.items()} == {
        k: tuple(law.batch_shape + law.event_shape) for k, law in LAWS.items()
    }
    assert log_det.shape == flat.log_prior(values).shape == (7,)
    torch.testing.assert_close(flat.unconstrain(values), x, rtol=1e-9, atol=1e-9)
    more, _ = flat.constrain(x.view(7, 1, -1).expand(7, 2, -1))
    torch.testing.assert_close(more["matrix"][:, 1], values["matrix"])


@pytest.mark.parametrize("name", [k for k in LAWS if k != "simplex"])
def test_volume_change_is_the_jacobian(name: str) -> None:
    flat = Unconstrained({name: LAWS[name]})
    x = flat.sample(1, make_generator(1))[0]

    def values(z: Tensor) -> Tensor:
        return flat.constrain(z)[0][name].flatten()

    jacobian = torch.func.jacrev(values)(x)
    torch.testing.assert_close(flat.constrain(x)[1], jacobian.slogdet()[1])


def test_densities_are_those_of_the_laws_in_float64() -> None:
    flat = Unconstrained(LAWS)
    values = flat.constrain(flat.sample(5, make_generator(2)))[0]
    total = sum(law.log_prob(values[k]).reshape(5, -1).sum(-1) for k, law in LAWS.items())
    torch.testing.assert_close(flat.log_prior(values), torch.as_tensor(total), rtol=1e-5, atol=1e-5)
    # torch's own half-Cauchy casts to the format of its scale
    tiny = {"half_cauchy": torch.tensor([1.0, 1.0 + 1e-12], dtype=F64)}
    difference = Unconstrained({"half_cauchy": LAWS["half_cauchy"]}).log_prior(tiny).diff()
    assert float(difference) == pytest.approx(-1e-12 * 2 / 7.25, rel=1e-3)


def test_labels_follow_the_flat_vector() -> None:
    flat = Unconstrained(
        {"a": d.Normal(torch.zeros(1, 2), 1.0), "b": d.HalfNormal(1.0), "c": d.Dirichlet(torch.ones(3))}
    )
    assert flat.labels == ("a[0,0]", "a[0,1]", "b", "c[0]", "c[1]")


def test_values_outside_are_no_error_but_no_number() -> None:
    flat = Unconstrained({"b": d.HalfNormal(1.0)})
    values, log_det = flat.constrain(torch.tensor([[float("nan")], [1e6]], dtype=F64))
    assert not bool((flat.log_prior(values) + log_det).isfinite().any())


def test_the_laws_and_the_global_random_state_are_left_alone() -> None:
    before, law = torch.get_rng_state(), d.LogNormal(0.0, 0.5)
    Unconstrained({"m": law}).sample(3, make_generator(0))
    assert torch.equal(before, torch.get_rng_state())
    assert law.base_dist.loc.dtype == torch.float32
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.tensor(-1.0))


def test_laws_that_have_been_used_serve_as_well() -> None:
    # a transform remembers its inverse from then on, which remembers the transform
    law = d.LogNormal(0.0, 0.5)
    kept = law.transforms[0].inv
    law.log_prob(torch.tensor(2.0))
    flat = Unconstrained({"m": law, "n": d.TransformedDistribution(d.Uniform(1.0, 2.0), kept)})
    again = Unconstrained(flat.laws)
    x = again.sample(3, make_generator(0))
    assert torch.equal(x, flat.sample(3, make_generator(0)))
    assert again.laws["n"].transforms[0].inv is not None


def test_laws_without_a_smooth_map_are_refused() -> None:
    with pytest.raises(SpecError, match="count: expected a law on a continuous support, got Poisson"):
        Unconstrained({"count": d.Poisson(3.0)})
    with pytest.raises(SpecError, match="at least one"):
        Unconstrained({})


def test_coordinates_in_units_of_another_parameter() -> None:
    flat = Unconstrained(
        {"spread": d.LogNormal(0.0, 1.0), "z": d.Normal(torch.zeros(3), 1.0)}, scaled_by={"z": "spread"}
    )
    x = torch.tensor([[0.7, 1.0, -2.0, 0.5], [-1.0, 0.1, 0.2, 0.3]], dtype=torch.float64)
    values, log_det = flat.constrain(x)
    torch.testing.assert_close(values["z"], x[:, 1:] / x[:, :1].exp())
    torch.testing.assert_close(flat.unconstrain(values), x)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda at: torch.cat([v.flatten() for v in flat.constrain(at)[0].values()]), x[i]
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])


def test_the_shorter_way_for_normal_laws_gives_their_density() -> None:
    laws = {
        "a": d.Normal(2.0, 0.5),
        "b": d.Independent(d.Normal(torch.tensor([1.0, -1.0]), torch.tensor([0.1, 3.0])), 1),
        "c": d.HalfNormal(torch.tensor([[0.2], [4.0]])),
        "e": d.Independent(d.HalfNormal(torch.tensor([2.0])), 1),
    }
    flat = Unconstrained(laws)
    x = torch.randn(3, flat.size, generator=make_generator(0), dtype=F64)
    values, log_det = flat.constrain(x)
    wanted = sum(flat.laws[k].log_prob(v).reshape(3, -1).sum(-1) for k, v in values.items())
    torch.testing.assert_close(flat.log_prior(values), wanted, rtol=1e-12, atol=1e-12)
    # the map of c and e is the exponential; a and b have none
    torch.testing.assert_close(log_det, x[:, 3:].sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat((values["a"][:, None], values["b"]), -1), x[:, :3], rtol=0, atol=0)
