"""Tables whose rows have nothing to do with each other: data of a static system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories


def from_rows(table: Any, *, schema: Schema | None = None, allow_missing: bool = False) -> Trajectories:
    """Return the rows of a table as episodes of one step each, for static models.

    A row's variables of the state are the state after the step, its actions and context are those of the step. The
    state before, which a static model does not look at, is 0. For rows that follow each other in time see
    :func:`from_dataframe`.

    Parameters
    ----------
    table : mapping of str to array of shape (n,), or data frame
        One entry, or column, for each variable; others are left out.
    schema : Schema, optional
        Variables to read. By default all columns are real variables of the state, with a time step of 1 s.
    allow_missing : bool
        Take NaN in the state as "not recorded" instead of an error.

    Raises
    ------
    DataError
        For columns that are missing, differ in length or hold no numbers.

    Examples
    --------
    >>> from_rows({"dose": [0.0, 1.0, 2.0], "response": [0.1, 0.9, 2.2]})
    Trajectories(3 episodes, 3 transitions, state=(dose, response), 1 s, float64)
    """
    if isinstance(table, Mapping):
        names = tuple(table)
    elif hasattr(table, "columns"):
        names = tuple(table.columns)
    else:
        raise DataError(f"expected a mapping of names to arrays or a data frame, got {type(table).__name__}")
    if schema is None:
        schema = Schema(state=[Variable(str(name)) for name in names], time_step=1.0)
    groups = {"state": schema.state.columns, "action": schema.action.columns, "context": schema.context.columns}
    missing = [c for columns in groups.values() for c in columns if c not in names]
    if missing:
        raise DataError(f"expected columns {', '.join(missing)}, got ({', '.join(map(str, names))})")
    state, action, context = (_stacked(table, columns) for columns in groups.values())
    sizes = {len(v) for v in (state, action, context) if v is not None}
    if len(sizes) > 1:
        raise DataError(f"expected columns of equal length, got {sorted(sizes)}")
    if state is None or 0 in sizes:
        raise DataError("expected at least one row and one variable of the state, got none")
    return Trajectories(
        schema,
        state=torch.stack((torch.zeros_like(state), state), 1),
        action=None if action is None else action[:, None],
        context=context,
        allow_missing=allow_missing,
    )


def _stacked(table: Any, columns: Sequence[str]) -> Tensor | None:
    """Return columns of a table side by side, shape (n, columns), or None for none."""
    if not columns:
        return None
    found: list[np.ndarray] = []
    for name in columns:
        try:
            values = np.asarray(table[name], dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"expected numbers in column {name!r}, got others") from None
        if values.ndim != 1 or (found and len(values) != len(found[0])):
            wanted = len(found[0]) if found else "n"
            raise DataError(f"expected column {name!r} of shape ({wanted},), got {values.shape}")
        found.append(values)
    return torch.from_numpy(np.stack(found, -1))
