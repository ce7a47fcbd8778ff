"""From standardised data to a posterior: exact or sparse, with independent or coregionalised outputs."""

from __future__ import annotations

import dataclasses

import torch

from bayeswm.inference.gp_algebra import Scaled
from bayeswm.inference.gp_coregional import CoregionalHyper, Coregionalised, fit_coregional, rotation
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, check_memory
from bayeswm.inference.gp_fit import fit_hyper
from bayeswm.inference.gp_optimise import OutputFit, evenly_spaced
from bayeswm.inference.gp_priors import HyperPriors
from bayeswm.inference.gp_sparse import SparsePosterior, check_sparse_memory
from bayeswm.inference.gp_sparse_fit import InducingPoints, fit_sparse, spread_points
from bayeswm.models.gp_worlds import Residual


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """What a fit is told; see ``GaussianProcess``."""

    priors: HyperPriors | None
    restarts: int
    noise_floor: float
    constant: bool
    sparse: InducingPoints | None
    outputs: Coregionalised | None

    def sparsely(self, n: int) -> InducingPoints | None:
        """Return the inducing points for so many training steps, or None where the process is exact."""
        return self.sparse if self.sparse is not None and n > self.sparse.above else None

    def check_memory(self, n: int, outputs: int, *, device: torch.device) -> None:
        """Refuse what cannot fit into memory, before anything is allocated.

        Raises
        ------
        SpecError
            With the memory that it needs.
        """
        inducing = self.sparsely(n)
        if inducing is None:
            check_memory(n, outputs, device)
        else:
            check_sparse_memory(n, inducing.count, outputs=outputs, device=device)


def fit_residual(
    blank: Residual, settings: FitSettings, *, seed: int, progress: bool
) -> tuple[Residual, tuple[OutputFit, ...]]:
    """Find hyper-parameters, and return the posterior with how that went.

    Parameters
    ----------
    blank : Residual
        Standardised data in an exact process whose hyper-parameters mean nothing yet.
    settings : FitSettings
        What to do.
    seed : int
        Decides the starts.
    progress : bool
        Show a progress bar.

    Returns
    -------
    tuple of Residual and tuple of OutputFit

    Raises
    ------
    FitError
        If a covariance is not positive definite.
    """
    data = blank.posterior
    if not isinstance(data, ExactPosterior):
        raise TypeError(f"expected data in an exact process, got {type(data).__name__}")
    if settings.outputs is not None:
        return _coregionalised(blank, data, settings, outputs=settings.outputs, seed=seed)
    inducing = settings.sparsely(len(data.x))
    how = {
        "priors": settings.priors,
        "restarts": settings.restarts,
        "noise_floor": settings.noise_floor,
        "constant": settings.constant,
    }
    if inducing is None:
        hyper, fits = fit_hyper(data.kernel, data.x, data.y, **how, seed=seed, progress=progress)
        constant = data.y.new_tensor([f.constant for f in fits])
        posterior = dataclasses.replace(data, y=data.y - constant[:, None], hyper=hyper)
    else:
        hyper, points, fits = fit_sparse(
            data.kernel, data.x, data.y, inducing=inducing, **how, seed=seed, progress=progress
        )
        constant = data.y.new_tensor([f.constant for f in fits])
        posterior = SparsePosterior.prior(data.kernel, points, hyper).condition(data.x, data.y - constant[:, None])
    _ = posterior.alpha  # so that a covariance that cannot be decomposed is found here
    shift = blank.output_shift + constant * blank.output_scale
    return dataclasses.replace(blank, posterior=posterior, output_shift=shift), fits


def _coregionalised(
    blank: Residual, data: ExactPosterior, settings: FitSettings, *, outputs: Coregionalised, seed: int
) -> tuple[Residual, tuple[OutputFit, ...]]:
    inducing, n = settings.sparsely(len(data.x)), len(data.x)
    rows = slice(None) if inducing is None else evenly_spaced(n, min(n, max(inducing.above, inducing.count)))
    shared, fit = fit_coregional(
        data.kernel,
        data.x[rows],
        data.y[:, rows],
        outputs=outputs,
        priors=settings.priors,
        restarts=settings.restarts,
        noise_floor=settings.noise_floor,
        constant=settings.constant,
        seed=seed,
    )
    hyper, mixing = latent(shared)
    kernel, y = Scaled(data.kernel), torch.linalg.solve(mixing, data.y - shared.constant[:, None]).contiguous()
    if inducing is None:
        posterior = ExactPosterior(kernel, data.x, y, hyper)
    else:
        # one kernel but for its size: the same points serve all outputs
        points = spread_points(kernel, data.x, hyper.values[-1], inducing=inducing).expand(len(y), -1, -1)
        posterior = SparsePosterior.prior(kernel, points, hyper).condition(data.x, y)
    _ = posterior.alpha
    shift = blank.output_shift + shared.constant * blank.output_scale
    return dataclasses.replace(blank, posterior=posterior, output_shift=shift, mixing=mixing), (fit,)


def latent(shared: CoregionalHyper) -> tuple[Hyper, torch.Tensor]:
    """Return the hyper-parameters of independent outputs under a scaled kernel, and what mixes them."""
    variance, mixing = rotation(shared.covariance, shared.noise)
    values = torch.cat((shared.values.expand(len(variance), -1), variance.sqrt()[:, None]), 1)
    # in the order of a file: a product of matrices in another one rounds otherwise
    return Hyper(values, torch.ones_like(variance)), mixing.contiguous()
