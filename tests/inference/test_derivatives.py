import pytest
import torch
from torch.distributions import Dirichlet, HalfNormal, Independent, LogNormal, MultivariateNormal, Normal

from bayeswm.base import SpecError
from bayeswm.inference import Joint
from bayeswm.inference.derivatives import hessian, prior_precision, slopes
from tests.inference.joints import F64, WAVE, X, network_joint, randn

NET = {"net": Normal(torch.zeros(10, dtype=F64), 1.0), "s": HalfNormal(torch.tensor(1.0, dtype=F64))}


def test_hessian_is_that_of_autograd_in_any_coordinates() -> None:
    joint, x = network_joint((1, 3, 1), X, WAVE, laws=NET, noise={"s": 0.01}), randn(11, seed=0)
    exact = torch.autograd.functional.hessian(lambda at: joint.log_density(at[None])[0], x)
    torch.testing.assert_close(hessian(joint.log_density, x), exact, rtol=1e-10, atol=1e-9)
    some = torch.tensor([9, 2, 10])
    torch.testing.assert_close(hessian(joint.log_density, x, some), exact[some][:, some], rtol=1e-10, atol=1e-9)


def test_hessian_of_straight_lines_is_zero() -> None:
    assert torch.equal(hessian(lambda x: 3 * x.sum(-1), torch.ones(2)), torch.zeros(2, 2))
    assert hessian(lambda x: x.sum(-1), torch.ones(0)).shape == (0, 0)


def test_slopes_are_the_jacobian_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    joint, x = network_joint((1, 3, 1), X, WAVE, laws=NET, noise={"s": 0.01}), randn(11, seed=0)
    assert joint.predict is not None

    def mean_and_log_sd(at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, sd = joint.predict(joint.values(at[None]), None)
        return mean[0], sd[0].log()

    exact = torch.autograd.functional.jacobian(mean_and_log_sd, x)
    index = torch.tensor([0, 4, 10])
    monkeypatch.setattr("bayeswm.inference.derivatives._BLOCK", 30)
    blocks = list(slopes(joint, x, index))
    assert len(blocks) == 5
    for k, wanted in enumerate(exact):
        torch.testing.assert_close(torch.cat([b[k] for b in blocks]), wanted[..., index], rtol=1e-12, atol=1e-12)


def test_slopes_need_a_mean() -> None:
    joint = Joint({"w": Normal(0.0, 1.0)}, lambda v, r: v["w"], terms=1)
    with pytest.raises(SpecError, match="use FullHessian"):
        next(slopes(joint, torch.zeros(1), torch.tensor([0])))


@pytest.mark.parametrize("whole", [False, True])
def test_prior_precision_is_the_second_derivative_before_data(whole: bool) -> None:
    laws = {
        "w": Independent(Normal(torch.zeros(2, dtype=F64), 3.0), 1),
        "m": LogNormal(torch.tensor(0.3, dtype=F64), 0.5),
        "s": HalfNormal(torch.tensor(2.0, dtype=F64)),
    }
    if whole:
        laws["g"] = MultivariateNormal(torch.zeros(2, dtype=F64), torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=F64))
        laws["d"] = Dirichlet(torch.tensor([1.0, 2.0, 3.0], dtype=F64))
    joint = Joint(laws, lambda v, r: v["m"], terms=1)
    x = randn(joint.flat.size, seed=1)

    def log_prior(at: torch.Tensor) -> torch.Tensor:
        values, log_det = joint.flat.constrain(at[None])
        return (joint.flat.log_prior(values) + log_det)[0]

    index = torch.tensor([3, 0])
    exact = -torch.autograd.functional.hessian(log_prior, x)[index][:, index]
    found = prior_precision(joint, x, index)
    assert found.ndim == (2 if whole else 1)
    torch.testing.assert_close(found if whole else torch.diag(found), exact, rtol=1e-10, atol=1e-12)
