import pytest
import torch
from torch.distributions import LogNormal, Normal

from bayeswm.base import SpecError
from bayeswm.inference import HMC, Inference, Inferred, Joint

F64 = torch.float64
SEEN = torch.tensor([0.5, 1.0, 2.5, 3.0], dtype=F64)


def joint() -> Joint:
    def log_likelihood(values, rows):
        seen = SEEN if rows is None else SEEN[rows]
        return Normal(values["level"][:, None], values["spread"][:, None]).log_prob(seen)

    return Joint({"level": Normal(0.0, 2.0), "spread": LogNormal(0.0, 1.0)}, log_likelihood, terms=4)


def test_density_is_prior_times_likelihood_with_the_volume_of_the_map() -> None:
    x = torch.tensor([[0.3, -0.4], [1.0, 0.7]], dtype=F64)
    level, log_spread = x.unbind(-1)
    spread = log_spread.exp()
    # the density of log spread is that of the spread times the spread: a normal one in log spread
    zero = torch.zeros((), dtype=F64)
    wanted = Normal(zero, zero + 2).log_prob(level) + Normal(zero, zero + 1).log_prob(log_spread)
    wanted = wanted + Normal(level[:, None], spread[:, None]).log_prob(SEEN).sum(-1)
    torch.testing.assert_close(joint().log_density(x), wanted, rtol=1e-12, atol=0)


def test_rows_stand_for_all() -> None:
    x = torch.tensor([[0.3, -0.4]], dtype=F64)
    whole = joint().log_density(x)
    parts = [joint().log_density(x, torch.tensor([i])) for i in range(4)]
    torch.testing.assert_close(sum(parts) / 4, whole, rtol=1e-12, atol=0)


def test_ways_of_inference_are_found_by_name_and_rebuilt() -> None:
    settings = HMC(chains=8, draws=50)
    assert Inference.registry["HMC"] is HMC
    assert HMC.from_config(settings.config()) == settings


def test_a_way_without_plain_settings_says_so() -> None:
    class Own(Inference):
        def infer(self, joint, *, generator, progress=False):
            return Inferred({"level": torch.zeros(1, 10)})

    assert "Own" not in Inference.registry
    with pytest.raises(SpecError, match=r"give it config\(\)"):
        Own().config()
    # by default more data mean inference afresh
    again = Own().update(joint(), 2, Inferred({"level": torch.ones(1, 5)}), generator=torch.Generator())
    assert again.draws == 10


def test_diagnostics_have_the_shape_of_the_parameter() -> None:
    g = torch.Generator().manual_seed(0)
    inferred = Inferred({"a": torch.randn(4, 200, 2, 3, generator=g, dtype=F64), "b": torch.randn(4, 200, generator=g)})
    assert inferred.draws == 800
    assert inferred.r_hat["a"].shape == inferred.ess_bulk["a"].shape == (2, 3)
    assert inferred.r_hat["b"].shape == ()
