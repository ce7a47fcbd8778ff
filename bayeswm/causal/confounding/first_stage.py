"""Hidden causes from what was recorded: what an instrument leaves of an action, what measurements say of a cause.

A first stage makes a column of the log by a linear map that is itself learned. Were it taken for known, effects would
look more certain than they are: for an instrument the error of the effect is mostly that of the first stage. As
features, actions, instrument and the column determine each other, a step's outcome in a world with another first stage
is the one learned, at another value of the column, so that no further fit is needed (:func:`instrument_control`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import FitError, SpecError
from bayeswm.causal.confounding.regression import LinearMap, LinearRegression


class FirstStage(NamedTuple):
    """A learned first stage.

    ``control``, shape (C, D + A + X), maps features, actions and extra columns to the causes. ``regression`` is what it
    was learned by. ``weights``, shape (X, R), make the extra columns; None where they are those recorded. ``inverse``,
    shape (X, D + C), says the extra columns from features and what the first stage says of the action.
    """

    control: Tensor
    regression: LinearRegression
    weights: Tensor | None = None
    inverse: Tensor | None = None


class Rows(NamedTuple):
    """Steps of a log: features (n, D), actions (n, A) and recorded columns (n, R)."""

    phi: Tensor
    action: Tensor
    recorded: Tensor


def instrument_stage(rows: Rows, index: list[int]) -> FirstStage:
    """Regress the confounded actions, at some columns, on features and instruments; causes are the residuals."""
    phi, treated = torch.cat((rows.phi, rows.recorded), -1), rows.action[:, index]
    found = LinearRegression.fit(phi, treated)
    weight = found.centre().weight[0]
    size = rows.phi.shape[-1]
    chosen = torch.eye(rows.action.shape[-1], dtype=weight.dtype, device=weight.device)[index]
    control = torch.cat((-weight[:, :size], chosen, -weight[:, size:]), -1)
    said = torch.cat((rows.phi, phi @ weight.mT), -1)
    inverse = torch.linalg.lstsq(said, rows.recorded).solution.mT
    return FirstStage(control, found, inverse=inverse)


def strength(rows: Rows, index: list[int]) -> list[float]:
    """Return the F statistic of the instruments in the first stage of each action; below 10 they are weak.

    References
    ----------
    Staiger and Stock (1997), Instrumental variables regression with weak instruments.
    """
    treated = rows.action[:, index]
    both = torch.cat((rows.phi, rows.recorded), -1)

    def left(phi: Tensor) -> Tensor:
        return (treated - phi @ torch.linalg.lstsq(phi, treated).solution).square().sum(0)

    more, free = rows.recorded.shape[-1], len(treated) - both.shape[-1]
    short, full = left(rows.phi), left(both)
    return ((short - full) / more / (full / free).clamp(min=1e-300)).tolist()


def instrument_control(stage: FirstStage, drawn: LinearMap, index: list[int], *, actions: int) -> Tensor:
    """Return in each world the cause that outcomes were learned with, from the cause there, features and actions.

    With residuals r = a - B x in a world and r' = a - B' x as learned with, r = r' + (B' - B) x, where the instruments
    in x follow from features and B' x = a - r': exactly where there are as many as confounded actions, by least squares
    where there are more.

    Returns
    -------
    Tensor, shape (worlds, C, C + D + A)
    """
    if stage.inverse is None:
        raise SpecError("expected the first stage of an instrument")
    size = drawn.weight.shape[-1] - len(stage.inverse)
    change = stage.regression.centre().weight - drawn.weight
    by_phi, by_extra = change[..., :size], change[..., size:]
    from_phi, from_said = stage.inverse[:, :size].to(change), stage.inverse[:, size:].to(change)
    by_said = by_extra @ from_said
    count = by_said.shape[-1]
    solve = torch.linalg.inv(torch.eye(count, dtype=change.dtype, device=change.device) - by_said)
    chosen = torch.eye(actions, dtype=change.dtype, device=change.device)[index]
    offset = torch.cat((by_phi + by_extra @ from_phi, by_said @ chosen), -1)
    return torch.cat((solve, -solve @ offset), -1)


def proxy_stage(rows: Rows, errors: Tensor | None) -> FirstStage:
    """Regress measurements and actions on features; the cause is its conditional mean given all of them.

    Parameters
    ----------
    rows : Rows
        With measurements as recorded columns.
    errors : Tensor, shape (R,), optional
        Standard deviations of the measurements' errors; by default told from two or more measurements.

    Raises
    ------
    FitError
        If the errors leave no variance to the cause.
    """
    found = LinearRegression.fit(rows.phi, torch.cat((rows.recorded, rows.action), -1))
    centre, count = found.centre(), rows.recorded.shape[-1]
    _, noise = _spread(centre.covariance, count, errors)
    if not bool((noise > 0).all()):
        raise FitError(
            "expected measurements of one cause that agree less than they would without error, got more agreement; "
            "give their errors as proxy_error="
        )
    weights = noise.reciprocal() / noise.reciprocal().sum(-1, keepdim=True)
    return FirstStage(_calibration(centre, weights, errors)[0], found, weights=weights)


def proxy_control(stage: FirstStage, drawn: LinearMap, errors: Tensor | None) -> Tensor:
    """Return what :func:`instrument_control` does, for measurements: the mean of these follows from the cause."""
    if stage.weights is None:
        raise SpecError("expected the first stage of measurements")
    there, here = _calibration(drawn, stage.weights, errors), stage.control
    ratio = here[..., -1:] / there[..., -1:]
    return torch.cat((ratio, here[..., :-1] - ratio * there[..., :-1]), -1)


def _spread(covariance: Tensor, count: int, errors: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the cause's variance given the features (worlds,), and the errors' variances (worlds, R)."""
    own = covariance[..., :count, :count]
    if errors is not None:
        noise = errors.to(own).square().expand(len(own), -1)
        weights = noise.reciprocal() / noise.reciprocal().sum(-1, keepdim=True)
        total = torch.einsum("wi,wij,wj->w", weights, own, weights)
        return total - (weights.square() * noise).sum(-1), noise
    if count < 2:
        raise SpecError("expected proxy_error= for a single measurement: its error cannot be told from the cause")
    diagonal = own.diagonal(dim1=-2, dim2=-1)
    cause = (own.sum((-2, -1)) - diagonal.sum(-1)) / (count * (count - 1))
    return cause, diagonal - cause[:, None]


def _calibration(law: LinearMap, weights: Tensor, errors: Tensor | None) -> Tensor:
    """Return the cause's conditional mean as a map of features, actions and weighed measurements, (worlds, 1, ...)."""
    count = weights.shape[-1]
    cause, _ = _spread(law.covariance, count, errors)
    actions = law.weight.shape[-2] - count
    pick = torch.block_diag(weights.to(law.weight), torch.eye(actions).to(law.weight))
    weight, covariance = pick @ law.weight, pick @ law.covariance @ pick.mT
    if not bool((cause > 0).all()):
        raise FitError(
            "expected measurements that vary by more than their errors, got less: the cause would have no variance; "
            "check proxy_error="
        )
    joint = covariance[:, 0].clone()
    joint[:, 0] = cause
    gain = torch.linalg.solve(covariance, joint[..., None])[..., 0]
    phi = weight[:, 0] - torch.einsum("wi,wid->wd", gain, weight)
    return torch.cat((phi, gain[:, 1:], gain[:, :1]), -1)[:, None]


def errors_of(given: Mapping[str, float] | None, names: tuple[str, ...]) -> Tensor | None:
    """Return the errors of measurements in order; None where they are to be told from several.

    Raises
    ------
    SpecError
        If some only are given, or one is not above 0.
    """
    known = {} if given is None else {k: v for k, v in given.items() if k in names}
    if not known and len(names) > 1:
        return None
    missing = [name for name in names if name not in known]
    if missing or not all(v > 0 for v in known.values()):
        raise SpecError(
            f"expected proxy_error= with a standard deviation > 0 for each of ({', '.join(names)}), got {dict(known)}; "
            "without any, two measurements or more tell it"
        )
    return torch.tensor([float(known[name]) for name in names], dtype=torch.float64)
