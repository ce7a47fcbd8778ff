"""What Pyro inferred, as an ArviZ tree: ArviZ 1.x reads NumPyro, but no longer Pyro."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import global_rng, spawn_seeds

if TYPE_CHECKING:
    import xarray
    from pyro.infer import MCMC


def from_pyro(
    posterior: MCMC | Callable[..., Any] | None = None,
    *,
    model: Callable[..., Any] | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    posterior_predictive: Mapping[str, Tensor] | None = None,
    prior_predictive: Mapping[str, Tensor] | None = None,
    draws: int = 1000,
    generator: torch.Generator | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> xarray.DataTree:
    """Return results of Pyro as an ArviZ tree.

    Parameters
    ----------
    posterior : MCMC or callable, optional
        A finished run of chains, or the trained guide of an ``SVI``, from which ``draws`` are taken (chain = 1).
    model : callable, optional
        The model with its data, ``model(*args, **kwargs)``: adds ``log_likelihood`` and ``observed_data``.
    args, kwargs
        Arguments of the model, and of a guide.
    posterior_predictive, prior_predictive : mapping of str to Tensor, shape (samples, ...), optional
        What a ``pyro.infer.Predictive`` returned. Of the latter, sites that the posterior or the model has as latent
        ones become the group ``prior``.
    draws : int
        From a guide.
    generator : torch.Generator, optional
        Draws from a guide; needed for one.
    coords, dims : mapping, optional
        Names of what stands along each dimension, and of the dimensions of each variable, as in ``arviz.from_dict``.

    Returns
    -------
    xarray.DataTree
        With the groups that the arguments allow. Of chains, ``sample_stats`` has ``diverging`` and, since Pyro keeps
        only the mean of a chain, that mean as ``acceptance_rate`` of each of its draws.

    Raises
    ------
    SpecError
        If there is nothing to convert, chains have not run, a guide comes without a generator, or predictions do not
        fit the posterior.

    Examples
    --------
    >>> import pyro
    >>> from pyro.infer.autoguide import AutoNormal
    >>> def model(seen):
    ...     level = pyro.sample("level", pyro.distributions.Normal(0.0, 1.0))
    ...     with pyro.plate("days", len(seen)):
    ...         pyro.sample("rain", pyro.distributions.Normal(level, 1.0), obs=seen)
    >>> seen, guide, g = torch.tensor([0.5, 1.0]), AutoNormal(model), torch.Generator()
    >>> tree = from_pyro(guide, model=model, args=(seen,), draws=20, generator=g, dims={"rain": ["day"]})
    >>> dict(tree["log_likelihood"].sizes)
    {'chain': 1, 'draw': 20, 'day': 2}
    """
    import arviz_base
    from pyro.infer import MCMC

    if posterior is None and posterior_predictive is None and prior_predictive is None:
        raise SpecError("expected a posterior, posterior_predictive= or prior_predictive=, got none")
    given = dict(kwargs or {})
    groups: dict[str, dict[str, Tensor]] = {}
    values: dict[str, Tensor] = {}
    if isinstance(posterior, MCMC):
        values, groups["sample_stats"] = _chains(posterior)
    elif posterior is not None:
        values = _from_guide(partial(posterior, *args, **given), draws, generator)
    groups["posterior"] = values
    if posterior_predictive is not None:
        shape = next(iter(values.values())).shape[:2] if values else None
        groups["posterior_predictive"] = {k: _as_chains(k, v, shape) for k, v in posterior_predictive.items()}
    latent = set(values)
    if model is not None:
        run = partial(model, *args, **given)
        with global_rng(0):
            nodes = _trace(run)
        latent |= {k for k, site in nodes.items() if _latent(site)}
        groups["observed_data"] = {k: site["value"] for k, site in nodes.items() if _observed(site)}
        if values:
            groups["log_likelihood"] = _log_likelihood(run, values)
    for name, value in (prior_predictive or {}).items():
        groups.setdefault("prior" if name in latent else "prior_predictive", {})[name] = value[None]
    arrays = {group: {k: v.detach().cpu().numpy() for k, v in found.items()} for group, found in groups.items()}
    return arviz_base.from_dict({k: v for k, v in arrays.items() if v}, coords=coords, dims=dims)


def _chains(mcmc: MCMC) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return draws (chains, draws, ...) and what is known of each."""
    # Pyro fills it in run() and says nothing where that is missing
    if not getattr(mcmc, "_samples", None):
        raise SpecError("expected chains that have run, got none: call .run(...) first")
    values = mcmc.get_samples(group_by_chain=True)
    shape = next(iter(values.values())).shape[:2]
    known: Mapping[str, Any] = mcmc.diagnostics()
    stats: dict[str, Tensor] = {}
    if "divergences" in known:
        stats["diverging"] = torch.zeros(shape, dtype=torch.bool)
        for i, where in enumerate(known["divergences"].values()):
            stats["diverging"][i, where] = True
    if "acceptance rate" in known:
        rate = torch.tensor([float(v) for v in known["acceptance rate"].values()])
        stats["acceptance_rate"] = rate[:, None].expand(shape)
    return dict(values), stats


def _from_guide(run: Callable[[], Any], draws: int, generator: torch.Generator | None) -> dict[str, Tensor]:
    """Return draws (1, draws, ...) of the guide's sites, its auxiliary ones left out."""
    if generator is None:
        raise SpecError("expected generator=torch.Generator, since a guide is drawn from, got none")
    if draws < 1:
        raise SpecError(f"expected draws >= 1, got {draws}")
    found: dict[str, list[Tensor]] = {}
    with global_rng(spawn_seeds(generator, 1)[0]):
        for _ in range(draws):
            for name, site in _trace(run).items():
                if _latent(site) and not site["infer"].get("is_auxiliary"):
                    found.setdefault(name, []).append(site["value"])
    return {name: torch.stack(each)[None] for name, each in found.items()}


def _log_likelihood(run: Callable[[], Any], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the log density of each observation, (chains, draws, ...), without a subsample's scale.

    Draw by draw, since only a run of the model tells the shapes of a user's code.
    """
    from pyro import poutine
    from pyro.distributions.util import scale_and_mask

    chains, draws = next(iter(values.values())).shape[:2]
    found: dict[str, list[Tensor]] = {}
    with global_rng(0):
        for chain in range(chains):
            for draw in range(draws):
                nodes = _trace(poutine.condition(run, {k: v[chain, draw] for k, v in values.items()}))
                for name, site in nodes.items():
                    if _observed(site) and name not in values:
                        each = site["fn"].log_prob(site["value"])
                        found.setdefault(name, []).append(torch.as_tensor(scale_and_mask(each, 1.0, site["mask"])))
    return {name: torch.stack(each).unflatten(0, (chains, draws)) for name, each in found.items()}


def _trace(run: Callable[[], Any]) -> dict[str, Any]:
    """Return all sites of one run."""
    from pyro import poutine

    with torch.no_grad():
        return dict(poutine.trace(run).get_trace().nodes)


def _latent(site: Mapping[str, Any]) -> bool:
    from pyro.poutine.subsample_messenger import _Subsample

    return site["type"] == "sample" and not site["is_observed"] and not isinstance(site["fn"], _Subsample)


def _observed(site: Mapping[str, Any]) -> bool:
    # a deterministic site is a sample of a point mass that counts as observed
    return site["type"] == "sample" and site["is_observed"] and not site["infer"].get("_deterministic")


def _as_chains(name: str, samples: Tensor, shape: Sequence[int] | None) -> Tensor:
    chains, draws = (1, len(samples)) if shape is None else shape
    if len(samples) != chains * draws:
        raise SpecError(
            f"expected {chains * draws} samples of {name!r}, one for each draw of the posterior, got {len(samples)}; "
            "give Predictive the posterior's own samples"
        )
    return samples.unflatten(0, (chains, draws))
