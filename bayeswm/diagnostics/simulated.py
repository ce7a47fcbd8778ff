"""Simulation-based calibration: whether the truth behind simulated data is a typical draw of the posterior."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import BayeswmWarning, DataError, EstimateWarning, FitError, SpecError
from bayeswm.base.random import make_generator, uniform
from bayeswm.diagnostics.levels import check_level
from bayeswm.diagnostics.summary import as_numpy
from bayeswm.diagnostics.uniformity import rank_among, uniformity

Values = Mapping[str, Tensor]
Quantity = Callable[[Values, Any], Tensor]


def simulation_based_calibration(
    prior: Callable[[torch.Generator], Values],
    simulate: Callable[[Values, torch.Generator], Any],
    posterior: Callable[[Any, torch.Generator], Values],
    *,
    repetitions: int,
    draws: int = 63,
    quantities: Mapping[str, Quantity] | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Draw a truth, simulate data, infer, and rank the truth among the posterior's draws, many times.

    Ranks are uniform where data are simulated and inferred under the same model and the inference is exact; the shape
    of their histogram tells what is wrong (a bowl: too narrow; a hill: too wide; a slope: shifted). A posterior that
    ignores part of the data still passes with its parameters alone: quantities that look at the data too, above all the
    log likelihood, see it (Modrak et al. 2023). With a ``prior`` that draws from the posterior given observed data, and
    a ``posterior`` that is given these and the simulated ones, it is posterior SBC, the check at the place where the
    inference is used (Saeilynoja et al. 2025).

    Parameters
    ----------
    prior : callable
        Takes a generator and returns one true value of each parameter, of any shapes.
    simulate : callable
        Takes the truth and a generator and returns data of any kind.
    posterior : callable
        Takes the data and a generator and returns draws (n, ...) of some or all of the parameters, with n >= ``draws``,
        in the order of the chains: those kept are spread evenly, which makes them nearly independent where n is many
        times larger. Ranks are uniform only for draws that are worth as many as there are of them.
    repetitions : int
        How often.
    draws : int
        Draws to rank among.
    quantities : mapping of str to callable, optional
        Further quantities to rank: each takes parameters (n, ...) and the data and returns n numbers.
    levels : sequence of float
        Of the central intervals whose coverage is reported.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        ``rank`` (repetition, quantity) from 0 to ``draws``, its p-values under uniformity by quantity (``p_value``,
        which combines ``p_chi_square``, ``p_shift`` and ``p_spread``, and ``p_ecdf``: see
        :class:`~bayeswm.diagnostics.Uniformity`), and ``coverage`` (quantity, level) of central intervals with its
        standard error. Attribute ``p_value`` is the smallest of the quantities' times their number. Entries of
        parameters that are vectors are named ``name[i]``; those that are the same in truth and all draws are left out.

    Raises
    ------
    SpecError, DataError
        If there are too few repetitions or draws, nothing to rank, or every repetition failed.

    Warns
    -----
    EstimateWarning
        If repetitions failed with a FitError or DataError and were left out. Where that depends on the data alone, as
        it should, the ranks of the others are still uniform.

    References
    ----------
    Talts et al. (2018), Validating Bayesian inference algorithms with simulation-based calibration; Modrak et al.
    (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
    sensitivity; Saeilynoja, Schmitt, Buerkner and Vehtari (2025), Posterior SBC.

    Examples
    --------
    A normal mean with the prior N(0, 1), seen once with noise 1: the posterior is N(y / 2, 1 / 2).

    >>> def normal(*shape, g):
    ...     return torch.randn(shape, generator=g, dtype=torch.float64)
    >>> found = simulation_based_calibration(
    ...     lambda g: {"mean": normal(g=g)},
    ...     lambda truth, g: truth["mean"] + normal(g=g),
    ...     lambda y, g: {"mean": y / 2 + 0.5**0.5 * normal(63, g=g)},
    ...     repetitions=200,
    ... )
    >>> found["rank"].dims, bool(found.attrs["p_value"] > 0.01)
    (('repetition', 'quantity'), True)
    """
    if repetitions < 2 or draws < 2:
        raise SpecError(f"expected repetitions >= 2 and draws >= 2, got {repetitions} and {draws}")
    for level in levels:
        check_level(level)
    generator = make_generator(seed)
    rows: dict[int, dict[str, Tensor]] = {}
    fixed: dict[str, bool] = {}
    notes, failures = list[str](), list[Exception]()
    for repetition in range(repetitions):
        truth = prior(generator)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", BayeswmWarning)
                data = simulate(truth, generator)
                drawn = {k: _thinned(k, v, draws) for k, v in posterior(data, generator).items()}
        except (FitError, DataError) as error:
            failures.append(error)
            continue
        notes += [str(caught[0].message)] if caught else []
        row: dict[str, Tensor] = {}
        single = {k: torch.as_tensor(v)[None] for k, v in truth.items()}
        for name, values, true in _compared(drawn, single, quantities=quantities or {}, data=data):
            fixed[name] = fixed.get(name, True) and bool((values == true).all())
            row[name] = rank_among(values, true, generator=generator)
        rows[repetition] = row
    if failures:
        if len(rows) < 2:
            raise failures[-1]
        text = f"{len(failures)} of {repetitions} repetitions failed and are left out, the last with: {failures[-1]}"
        warnings.warn(text, EstimateWarning, stacklevel=2)
    names = [name for name in next(iter(rows.values())) if not fixed[name]]
    if not names:
        raise DataError("expected a parameter that differs between draws, all are constant")
    ranks = torch.stack([torch.stack([row[name] for name in names]).cpu() for row in rows.values()])
    found = _dataset(ranks, names, draws=draws, levels=levels, generator=generator)
    return found.assign_coords(repetition=list(rows)).assign_attrs(
        repetitions=repetitions,
        failed=len(failures),
        fits_that_warned=len(notes),
        first_warning=notes[0] if notes else "",
    )


def _thinned(name: str, values: Tensor, draws: int) -> Tensor:
    if len(values) < draws:
        raise SpecError(f"{name}: expected at least {draws} draws of the posterior, got {len(values)}")
    return values[(torch.arange(draws, device=values.device) * len(values)) // draws]


def _compared(
    drawn: Values, truth: Values, *, quantities: Mapping[str, Quantity], data: Any
) -> list[tuple[str, Tensor, Tensor]]:
    """Return each number that is ranked: its name, the draws (n,) and the truth."""
    found: list[tuple[str, Tensor, Tensor]] = []
    for name, values in drawn.items():
        if name not in truth:
            raise SpecError(f"expected a true value of {name!r} from the prior, got ({', '.join(truth)})")
        if values.shape[1:] != truth[name].shape[1:]:
            got = tuple(values.shape)
            raise DataError(f"{name}: expected draws of shape (n, *{tuple(truth[name].shape[1:])}), got {got}")
        flat, true = values.reshape(len(values), -1), truth[name].reshape(-1)
        labels = [name] if values.ndim == 1 else [f"{name}[{i}]" for i in range(flat.shape[1])]
        found += zip(labels, flat.unbind(1), true, strict=True)
    own = {k: truth[k] for k in drawn}
    for name, quantity in quantities.items():
        values, true = quantity(drawn, data), quantity(own, data)
        if values.ndim != 1 or true.shape != (1,):
            raise SpecError(
                f"{name}: expected a quantity that gives one number a draw, got shapes {tuple(values.shape)} and "
                f"{tuple(true.shape)} of several draws and of one"
            )
        found.append((name, values, true[0]))
    return found


def _dataset(
    ranks: Tensor, names: Sequence[str], *, draws: int, levels: Sequence[float], generator: torch.Generator
) -> xr.Dataset:
    # a rank with uniform noise added is uniform on (0, 1): the coverage of intervals of any level is exact
    u = (ranks + uniform(tuple(ranks.shape), generator, dtype=torch.float64).cpu()) / (draws + 1)
    held = torch.stack([((u - 0.5).abs() <= level / 2).double() for level in levels], -1)
    n, half = len(ranks), torch.tensor(list(levels), dtype=torch.float64)
    p = uniformity(ranks, draws=draws)
    by_quantity = {f"p_{k}": ("quantity", as_numpy(v)) for k, v in p._asdict().items() if k != "combined"}
    smallest = float((len(names) * p.combined.amin()).clamp(max=1.0))
    return xr.Dataset(
        {
            "rank": (("repetition", "quantity"), as_numpy(ranks), {"long_name": "draws below the truth"}),
            "p_value": ("quantity", as_numpy(p.combined), {"long_name": "p-value of uniform ranks"}),
            **by_quantity,
            "coverage": (
                ("quantity", "level"),
                as_numpy(held.mean(0)),
                {"long_name": "share of central intervals that hold the truth"},
            ),
            "coverage_se": ("level", np.sqrt(as_numpy(half * (1 - half)) / n), {"long_name": "under calibration"}),
        },
        coords={"quantity": list(names), "level": list(levels)},
        attrs={"draws": draws, "p_value": smallest, "test": "uniform ranks; Bonferroni over quantities"},
    )
