"""What a picture of one forecast needs of a batch: its row, its record and its start."""

from __future__ import annotations

from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.predictive import Predictive


def chosen_row(predictive: Predictive, row: int | None) -> int | None:
    """Return which entry of the batch to draw; None for a single predictive.

    Raises
    ------
    SpecError
        If that is unclear.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> chosen_row(model.predictive(torch.zeros(1, 2), torch.zeros(1, 1)), None)
    0
    """
    batch = predictive.batch_shape
    if len(batch) == 0:
        if row is not None:
            raise SpecError(f"expected no row for a single predictive, got row={row}")
        return None
    if len(batch) > 1:
        raise SpecError(f"expected at most one batch axis, got batch shape {batch}; index the predictive first")
    (count,) = batch
    if row is None:
        if count != 1:
            raise SpecError(f"expected row= to choose one of {count} forecasts, got none")
        row = 0
    if not -count <= row < count:
        raise SpecError(f"expected a row below {count}, got {row}")
    return row


def one_record(predictive: Predictive, observed: Tensor, row: int | None) -> Tensor:
    """Return what came in one row, shape (H, S) or (H + 1, S).

    Raises
    ------
    DataError
        If the shape does not fit.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> p = model.predictive(torch.zeros(3, 2), torch.zeros(3, 1))
    >>> one_record(p, torch.zeros(3, 1, 2), 2).shape
    torch.Size([1, 2])
    """
    batch, h, s = predictive.batch_shape, predictive.horizon, predictive.variables.size
    if observed.ndim == 3 and len(batch) == 1 and len(observed) == batch[0]:
        observed = observed[0 if row is None else row]
    if tuple(observed.shape) not in ((h, s), (h + 1, s)):
        raise DataError(
            f"expected observed of shape ({h}, {s}), or ({h + 1}, {s}) with the start, got {tuple(observed.shape)}"
        )
    return observed


def common_start(predictive: Predictive, column: int) -> float | None:
    """Return where all particles start, or None where that is not one point.

    Examples
    --------
    >>> import bayeswm as bwm, torch
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    >>> p = bwm.rollout(model, torch.ones(2), torch.zeros(9, 1), generator=torch.Generator().manual_seed(0))
    >>> common_start(p, 0)
    1.0
    """
    if predictive.initial is None:
        return None
    at = predictive.initial[..., column].detach().double()
    return float(at.mean()) if float(at.max() - at.min()) == 0 else None
