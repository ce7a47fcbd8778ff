import warnings

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import HalfCauchy, HalfNormal, Independent, LogNormal, MultivariateNormal, Normal

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import HMC, Conjugate, Inference, Joint, NormalInverseGamma
from tests.inference.joints import F64, by_column, gaussian_joint, randn
from tests.statistical.checks import BUDGET, gaussian_p

PHI = torch.cat((torch.ones(30, 1, dtype=F64), randn(30, 2, seed=0)), -1)
TRUE = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=F64)
NOISE = torch.tensor([0.3, 2.0], dtype=F64)
Y = PHI @ TRUE.mT + NOISE * randn(30, 2, seed=1)
PRIOR = Normal(torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.2, 0.0]]).double(), torch.tensor([1.0, 2.0, 3.0]).double())


def unknown(floor: float = 0.0, rows: slice = slice(None)) -> Joint:
    laws = {"w": PRIOR, "a": HalfNormal(torch.tensor(0.5).double()), "b": HalfNormal(torch.tensor(4.0).double())}
    return gaussian_joint(by_column(PHI[rows]), Y[rows], laws=laws, noise={"a": floor, "b": floor})


def closed_form(column: int, unit: float, settings: Conjugate) -> NormalInverseGamma:
    shape, scale = torch.tensor([settings.shape, settings.scale * unit**2], dtype=F64)
    precision = torch.diag(PRIOR.scale[column] ** -2) * scale / shape
    return NormalInverseGamma(PRIOR.loc[column], precision, shape=shape, scale=scale)


@pytest.mark.statistical
def test_unknown_noise_is_normal_inverse_gamma_by_column() -> None:
    settings = Conjugate(shape=1.5, scale=0.02, draws=20_000)
    found = settings.infer(unknown(), generator=make_generator(0))
    evidence = 0.0
    for column, (site, unit) in enumerate({"a": 0.5, "b": 4.0}.items()):
        before = closed_form(column, unit, settings)
        exact = before.update(PHI, Y[:, column])
        evidence += float(before.log_evidence(PHI, Y[:, column]))
        assert found.values[site].shape == (1, 20_000)
        variance = found.values[site][0].square()
        law = stats.invgamma(float(exact.shape), scale=float(exact.scale))
        assert stats.kstest(variance, law.cdf).pvalue > BUDGET
        white = (found.values["w"][0, :, column] - exact.mean) / variance.sqrt()[:, None]
        assert min(gaussian_p(white, torch.zeros(3), torch.linalg.inv(exact.precision))) > BUDGET
    assert found.statistics["log_evidence"] == pytest.approx(evidence, rel=1e-10)


def test_prior_by_itself_keeps_mean_and_scale() -> None:
    # Student-t with 2 shape degrees of freedom and the coefficients' own mean and scale
    before = closed_form(0, 0.5, Conjugate())
    torch.testing.assert_close(before.predictive(torch.zeros(1, 3)).df, torch.tensor([2.0], dtype=F64))
    spread = before.scale / before.shape * torch.linalg.inv(before.precision)
    torch.testing.assert_close(spread.diagonal().sqrt(), PRIOR.scale[0])


def test_noise_is_drawn_above_its_floor() -> None:
    plain = Conjugate().infer(unknown(), generator=make_generator(2)).values
    raised = Conjugate().infer(unknown(floor=0.1), generator=make_generator(2)).values
    # the same standard deviation: site + floor
    torch.testing.assert_close(raised["a"] + 0.1, plain["a"], rtol=1e-12, atol=1e-12)
    buried = Conjugate().infer(unknown(floor=50.0), generator=make_generator(2)).values
    assert bool((buried["a"] == 0.05).all())


@pytest.mark.statistical
def test_known_noise_serves_columns_that_share_coefficients() -> None:
    correlated = MultivariateNormal(torch.ones(2).double(), torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double())
    laws = {"gain": correlated, "offset": Independent(Normal(torch.zeros(2).double(), 3.0), 1)}

    def mean(values: dict[str, Tensor]) -> Tensor:
        gain, offset = values["gain"][:, None], values["offset"][:, None]
        one = gain[..., 0] * PHI[:, 1] + offset[..., 0]
        two = gain[..., 1] * PHI[:, 2] - 2 * gain[..., 0] + offset[..., 1]
        return torch.stack((one, two), -1)

    joint = gaussian_joint(mean, Y, laws=laws, noise={"x": 0.3, "y": 2.0})
    # dense algebra over all 60 numbers
    zero, one = torch.zeros(30, dtype=F64), torch.ones(30, dtype=F64)
    design = torch.cat(
        (torch.stack((PHI[:, 1], zero, one, zero), -1), torch.stack((-2 * one, PHI[:, 2], zero, one), -1))
    )
    variance = torch.cat((0.09 * one, 4.0 * one))
    centre = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=F64)
    covariance = torch.block_diag(correlated.covariance_matrix, 9 * torch.eye(2, dtype=F64))
    marginal = MultivariateNormal(design @ centre, design @ covariance @ design.mT + torch.diag(variance))
    y = torch.cat((Y[:, 0], Y[:, 1]))
    gain = covariance @ design.mT @ torch.linalg.inv(marginal.covariance_matrix)
    after = covariance - gain @ design @ covariance
    found = Conjugate(draws=20_000).infer(joint, generator=make_generator(0))
    assert found.statistics["log_evidence"] == pytest.approx(float(marginal.log_prob(y)), rel=1e-10)
    drawn = torch.cat((found.values["gain"][0], found.values["offset"][0]), -1)
    assert min(gaussian_p(drawn, centre + gain @ (y - design @ centre), after)) > BUDGET
    # and as weighted points
    values, log_weight = Conjugate().nodes(joint, order=4)
    points, weight = torch.cat((values["gain"], values["offset"]), -1), log_weight.exp()
    mean_of = weight @ points
    torch.testing.assert_close(mean_of, centre + gain @ (y - design @ centre))
    torch.testing.assert_close(torch.einsum("n,ni,nj->ij", weight, points - mean_of, points - mean_of), after)
    fourth = weight @ (points[:, 0] - mean_of[0]) ** 4
    torch.testing.assert_close(fourth, 3 * after[0, 0] ** 2)


def test_nodes_that_there_cannot_be() -> None:
    with pytest.raises(SpecError, match="known noise for nodes"):
        Conjugate().nodes(unknown(), order=3)
    joint = gaussian_joint(by_column(PHI), Y, laws={"w": PRIOR}, noise={"x": 0.3, "y": 2.0})
    with pytest.raises(SpecError, match="got order 5 in 6 directions"):
        Conjugate().nodes(joint, order=5)


@pytest.mark.statistical
def test_known_noise_agrees_with_sampling() -> None:
    joint = gaussian_joint(by_column(PHI), Y, laws={"w": PRIOR}, noise={"x": 0.3, "y": 2.0})
    exact = Conjugate(draws=4000).infer(joint, generator=make_generator(1)).values["w"][0].flatten(1)
    drawn = HMC(chains=32).infer(joint, generator=make_generator(1)).values["w"][:, ::8].flatten(0, 1).flatten(1)
    for one, other in zip(exact.mT, drawn.mT, strict=True):
        assert stats.ks_2samp(one, other).pvalue > BUDGET


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Conjugate().infer(unknown(), generator=make_generator(3))
    monkeypatch.setattr("bayeswm.inference.affine._BLOCK", 64)
    parts = Conjugate().infer(unknown(), generator=make_generator(3))
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-10, atol=1e-10)
    assert parts.statistics["log_evidence"] == pytest.approx(whole.statistics["log_evidence"], rel=1e-12)


def test_update_is_the_posterior_of_all_rows() -> None:
    first = Conjugate().infer(unknown(rows=slice(12)), generator=make_generator(4))
    updated = Conjugate().update(unknown(), 12, first, generator=make_generator(5))
    torch.testing.assert_close(updated.values, Conjugate().infer(unknown(), generator=make_generator(5)).values)


@pytest.mark.statistical
def test_a_coefficient_that_nothing_depends_on_keeps_its_prior() -> None:
    laws = {"w": PRIOR, "idle": Normal(torch.tensor(5.0).double(), 2.0)}
    joint = gaussian_joint(by_column(PHI), Y, laws=laws, noise={"x": 0.3, "y": 2.0})
    idle = Conjugate(draws=4000).infer(joint, generator=make_generator(0)).values["idle"][0]
    assert stats.kstest(idle, stats.norm(5, 2).cdf).pvalue > BUDGET


def test_a_column_without_coefficients_has_its_noise_learned() -> None:
    laws = {"a": HalfNormal(torch.tensor(0.5).double())}
    joint = gaussian_joint(
        lambda values: torch.zeros(len(values["a"]), 30, 1, dtype=F64), Y[:, :1], laws=laws, noise={"a": 0.0}
    )
    found = Conjugate().infer(joint, generator=make_generator(0))
    before = NormalInverseGamma(
        torch.zeros(0), torch.zeros(0, 0), shape=torch.tensor(1.0), scale=torch.tensor(0.0025, dtype=F64)
    )
    exact = float(before.log_evidence(torch.zeros(30, 0), Y[:, 0]))
    assert found.statistics["log_evidence"] == pytest.approx(exact, rel=1e-10)


def test_noise_free_rows_are_recovered() -> None:
    laws = {"w": PRIOR, "a": HalfNormal(torch.tensor(0.5).double()), "b": HalfNormal(torch.tensor(4.0).double())}
    joint = gaussian_joint(by_column(PHI), PHI @ TRUE.mT, laws=laws, noise={"a": 1e-5, "b": 1e-5})
    found = Conjugate().infer(joint, generator=make_generator(0))
    # noise variance: at least shape + n / 2 = 16 against the prior's scale and the pull of the prior mean
    for column, (site, unit) in enumerate({"a": 0.5, "b": 4.0}.items()):
        exact = closed_form(column, unit, Conjugate()).update(PHI, PHI @ TRUE[column])
        typical = float((exact.scale / exact.shape).sqrt())
        assert float(found.values[site].median()) == pytest.approx(typical, rel=0.1)  # 0.5 / sqrt(16) = 12 % spread
        error = found.values["w"].mean((0, 1))[column] - TRUE[column]
        assert float(error.abs().max()) < typical


# --- refusals ---------------------------------------------------------------------------------------------------------


def one_column(mean, laws, noise=None) -> Joint:
    return gaussian_joint(mean, Y[:, :1], laws=laws, noise=noise or {"x": 0.3})


def test_a_bent_mean_is_refused_by_name() -> None:
    laws = {"w": Normal(0.0, 1.0), "k": Normal(0.0, 1.0)}
    joint = one_column(lambda v: (v["w"][:, None] * PHI[:, 1] + (v["k"][:, None] * PHI[:, 2]).sin())[..., None], laws)
    with pytest.raises(SpecError, match="it is not in k: use HMC"):
        Conjugate().infer(joint, generator=make_generator(0))


def test_a_product_of_parameters_is_refused() -> None:
    laws = {"w": Normal(0.0, 1.0), "k": Normal(1.0, 1.0)}
    joint = one_column(lambda v: ((v["w"] * v["k"])[:, None] * PHI[:, 1])[..., None], laws)
    with pytest.raises(SpecError, match=r"product of some of \(w, k\)"):
        Conjugate().infer(joint, generator=make_generator(0))


def test_another_law_is_refused_by_name() -> None:
    joint = one_column(lambda v: (v["mass"][:, None] * PHI[:, 1])[..., None], {"mass": LogNormal(0.0, 1.0)})
    with pytest.raises(SpecError, match="mass: expected a Normal or MultivariateNormal law, got LogNormal"):
        Conjugate().infer(joint, generator=make_generator(0))


def test_shared_coefficients_with_unknown_noise_are_refused_by_name() -> None:
    laws = {"w": Normal(0.0, 1.0), "a": HalfNormal(1.0)}
    joint = gaussian_joint(
        lambda v: (v["w"][:, None] * PHI[:, 1])[..., None].expand(-1, -1, 2), Y, laws=laws, noise={"a": 0.0, "y": 2.0}
    )
    with pytest.raises(SpecError, match=r"2 that share \(w\)"):
        Conjugate().infer(joint, generator=make_generator(0))


def test_noise_that_depends_on_coefficients_is_refused() -> None:
    def predict(values, rows):
        mean = (values["w"][:, None] * PHI[:, 1])[..., None]
        mean = mean if rows is None else mean[:, rows]
        return mean, 0.1 + mean.square()

    joint = Joint({"w": Normal(0.0, 1.0)}, lambda v, r: v["w"], terms=30, predict=predict, target=Y[:, :1])
    with pytest.raises(SpecError, match="noise that does not depend on the coefficients"):
        Conjugate().infer(joint, generator=make_generator(0))


def test_a_density_without_a_mean_is_refused() -> None:
    with pytest.raises(SpecError, match="Gaussian likelihood"):
        Conjugate().infer(Joint({"w": Normal(0.0, 1.0)}, lambda v, r: v["w"], terms=1), generator=make_generator(0))


def test_a_noise_law_without_a_mean_square_is_refused() -> None:
    laws = {"w": Normal(0.0, 1.0), "a": HalfCauchy(1.0)}
    joint = one_column(lambda v: (v["w"][:, None] * PHI[:, 1])[..., None], laws, {"a": 0.0})
    with warnings.catch_warnings(), pytest.raises(SpecError, match="a: expected a law with a finite mean square"):
        Conjugate().infer(joint, generator=make_generator(0))


@pytest.mark.parametrize("change", [{"shape": 0.0}, {"scale": float("nan")}, {"draws": 1.5}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(change))):
        Conjugate(**change)  # type: ignore[arg-type]


def test_settings_are_saved() -> None:
    settings = Conjugate(shape=2.0, draws=50)
    assert Inference.registry["Conjugate"].from_config(settings.config()) == settings


@pytest.mark.statistical
def test_ranks_of_the_truth_are_uniform() -> None:
    """Simulation-based calibration (Talts et al. 2018) of coefficients and noise."""
    g, settings, sims = make_generator(11), Conjugate(shape=2.0, scale=0.3, draws=99), 400
    phi = torch.cat((torch.ones(8, 1, dtype=F64), randn(8, 1, seed=12)), -1)
    unit = torch.tensor(2.0, dtype=F64)
    scale = 0.3 * unit**2
    before = NormalInverseGamma(
        torch.zeros(2), torch.eye(2, dtype=F64) * scale / 2 / 9, shape=torch.tensor(2.0), scale=scale
    )
    true, variance = before.draw(sims, g)
    ranks = torch.zeros(sims, 3)
    for k in range(sims):
        y = phi @ true[k] + variance[k].sqrt() * torch.randn(8, generator=g, dtype=F64)
        laws = {"w": Normal(torch.zeros(1, 2, dtype=F64), 3.0), "a": HalfNormal(unit)}
        joint = gaussian_joint(by_column(phi), y[:, None], laws=laws, noise={"a": 1e-5})
        found = settings.infer(joint, generator=g).values
        ranks[k, :2] = (found["w"][0, :, 0] < true[k]).sum(0)
        ranks[k, 2] = (found["a"][0] + 1e-5 < variance[k].sqrt()).sum()
    for quantity in ranks.mT:
        # 100 possible ranks in 20 classes
        counts = torch.histc(quantity, bins=20, min=-0.5, max=99.5)
        assert stats.chisquare(counts).pvalue > BUDGET
