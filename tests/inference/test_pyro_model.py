import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Joint, PyroJoint
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
SEEN = torch.tensor([0.5, 1.0, 2.5, 3.0], dtype=F64)
VALUES = {"level": torch.tensor([0.3, 1.0, -2.0], dtype=F64), "spread": torch.tensor([0.7, 2.0, 1.0], dtype=F64)}


def model(seen: torch.Tensor) -> None:
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(seen)):
        pyro.sample("seen", dist.Normal(level, spread), obs=seen)


def by_hand() -> Joint:
    def log_likelihood(values, rows):
        seen = SEEN if rows is None else SEEN[rows]
        return dist.Normal(values["level"][:, None], values["spread"][:, None]).log_prob(seen)

    return Joint({"level": dist.Normal(0.0, 2.0), "spread": dist.LogNormal(0.0, 1.0)}, log_likelihood, terms=4)


def branching(seen: torch.Tensor) -> None:
    """The same density, in a way that cannot be run for many draws at once."""
    level = pyro.sample("level", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    scale = spread if float(spread.detach()) > 0 else -spread
    with pyro.plate("rows", len(seen)):
        pyro.sample("seen", dist.Normal(level, scale), obs=seen)


@pytest.mark.parametrize(("program", "vectorised"), [(model, True), (branching, False)])
def test_density_rows_and_gradient_are_those_written_by_hand(program, vectorised: bool) -> None:
    joint, wanted = PyroJoint(program, SEEN), by_hand()
    assert joint.vectorised is vectorised
    assert joint.terms == 4
    assert joint.flat.labels == wanted.flat.labels
    x = wanted.flat.unconstrain(VALUES)
    for rows in (None, torch.tensor([2, 0])):
        at, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, exact = joint.log_density(at, rows), wanted.log_density(other, rows)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
        (one,), (two,) = torch.autograd.grad(found.sum(), at), torch.autograd.grad(exact.sum(), other)
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(joint.log_likelihood(VALUES, rows), wanted.log_likelihood(VALUES, rows))
    torch.testing.assert_close(joint.flat.log_prior(VALUES), wanted.flat.log_prior(VALUES), rtol=1e-6, atol=0)


@pytest.mark.statistical
def test_laws_that_depend_on_each_other() -> None:
    # mu ~ N(0, 1), x_i ~ N(mu, 1), y_i ~ N(x_i, 1): given all y, mu ~ N(sum(y) / (n + 2), 2 / (n + 2))
    y = torch.tensor([1.0, 3.0, 2.0, 6.0], dtype=F64)

    def hierarchy() -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        with pyro.plate("groups", 4):
            x = pyro.sample("x", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(x, 1.0), obs=y)

    joint = PyroJoint(hierarchy)
    assert joint.vectorised
    prior = joint.values(joint.flat.sample(2000, make_generator(1)))
    # of the prior: x_i has variance 2, and covariance 1 with mu
    assert (
        mean_p(torch.stack((prior["x"][:, 0].square(), prior["x"][:, 1] * prior["mu"]), -1), torch.tensor([2.0, 1.0]))
        > BUDGET
    )
    found = HMC().infer(joint, generator=make_generator(0)).values["mu"]
    mean, variance = float(y.sum()) / 6, 2 / 6
    assert mean_p(found.mean(1), mean) > BUDGET
    assert mean_p(found.sub(mean).square().mean(1), variance) > BUDGET


def test_factors_and_sites_without_a_plate_are_one_row() -> None:
    def program() -> None:
        a = pyro.sample("a", dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1))
        pyro.deterministic("twice", 2 * a)
        pyro.factor("bonus", -a.square().sum())
        pyro.sample("y", dist.Normal(a, 1.0).to_event(1), obs=torch.ones(2, dtype=F64))

    joint = PyroJoint(program)
    assert joint.terms == 1
    assert set(joint.laws) == {"a"}
    a = torch.tensor([[0.5, -1.0]], dtype=F64)
    wanted = dist.Normal(a, 1.0).log_prob(torch.ones(2, dtype=F64)).sum(-1, keepdim=True) - a.square().sum()
    torch.testing.assert_close(joint.log_likelihood({"a": a}, None), wanted)


def test_programs_that_cannot_serve_say_why() -> None:
    def latent(name: str = "a") -> torch.Tensor:
        return pyro.sample(name, dist.Normal(0.0, 1.0))

    def observe(value: torch.Tensor) -> None:
        pyro.sample("y", dist.Normal(value, 1.0), obs=torch.zeros(()))

    def fails() -> None:
        observe(latent() @ torch.ones(3))

    def nothing_latent() -> None:
        observe(torch.zeros(()))

    def nothing_observed() -> None:
        latent()

    def discrete() -> None:
        observe(pyro.sample("a", dist.Bernoulli(0.5)))

    def with_param() -> None:
        observe(latent() + pyro.param("b", torch.zeros(())))

    names = itertools.cycle("ab")

    def changing() -> None:
        observe(latent(next(names)))

    def bounded() -> None:
        top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
        observe(pyro.sample("a", dist.Uniform(0.0, top)))

    def subsampled() -> None:
        a = latent()
        with pyro.plate("rows", 10, subsample_size=5):
            pyro.sample("y", dist.Normal(a, 1.0), obs=torch.zeros(5))

    cases = {
        fails: "the Pyro model fails cannot be run: RuntimeError",
        nothing_latent: "expected latent sites in the Pyro model nothing_latent, got none",
        nothing_observed: "expected an observed site",
        discrete: "a: expected a law on a continuous support",
        with_param: "expected no pyro.param, got b",
        changing: "the same sites and shapes in every run",
        bounded: "bounded, a: expected a support that is the same in every run",
        subsampled: "expected all rows of plate rows",
    }
    for program, message in cases.items():
        with pytest.raises(SpecError, match=message):
            PyroJoint(program)
    with pytest.raises(SpecError, match="the Pyro model model cannot be run: TypeError"):
        PyroJoint(model)
