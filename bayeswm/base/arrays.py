"""From what users have (lists, NumPy, ragged, padded) to checked, padded tensors of our own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError, DataWarning
from bayeswm.base.kinds import Categorical, Rotation
from bayeswm.base.schema import Schema, Variables

Array = Tensor | np.ndarray | Sequence[Any]


def as_tensor(name: str, values: Array) -> Tensor:
    """Return a floating-point copy that shares nothing with the input.

    Raises
    ------
    DataError
        For objects, strings, complex numbers or ragged lists.

    Examples
    --------
    >>> as_tensor("state", np.arange(3)[::-1])
    tensor([2., 1., 0.], dtype=torch.float64)
    """
    if isinstance(values, Tensor):
        tensor = values.detach().clone()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise DataError(f"{name}: expected numbers in a regular array, got a ragged list ({error})") from None
        if array.dtype.kind not in "fiub":
            raise DataError(f"{name}: expected numbers, got an array of dtype {array.dtype}")
        native = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
        tensor = torch.from_numpy(np.array(array, dtype=native, order="C", copy=True))
    if tensor.is_complex():
        raise DataError(f"{name}: expected real numbers, got {tensor.dtype}")
    return tensor if tensor.is_floating_point() else tensor.double()


def as_episodes(schema: Schema, *, lengths: Array | None, **given: Array | None) -> dict[str, Tensor | None]:
    """Return padded arrays of equal dtype and device with NaN after each episode's end.

    Raises
    ------
    DataError
        If shapes, lengths or devices do not fit together.
    """
    recorded = {"state": schema.state, "observation": schema.observation}
    main = "state" if given["state"] is not None else "observation"
    if given[main] is None or (schema.observation is not None and given["observation"] is None):
        need = "state" if schema.observation is None else "observation"
        raise DataError(f"expected {need}= (N, T + 1, {schema.measured.size}), got none")
    if given["observation"] is not None and schema.observation is None:
        raise DataError("expected no observation, since the schema has none; add observation=[...] to the schema")
    for name, wanted in {"action": schema.action.size, "context": schema.context.size, "reward": schema.reward}.items():
        if wanted and given[name] is None:
            raise DataError(f"expected {name}=, since the schema has it, got none")
        if not wanted and _holds_values(given[name]):
            raise DataError(f"expected no {name}, since the schema has none; add it to the schema")

    ragged = isinstance(given[main], Sequence) and not _is_table(given[main])
    single = not ragged and np.ndim(given[main]) == 2  # pyright: ignore[reportArgumentType]
    rows: dict[str, list[Tensor]] = {}
    for name, values in given.items():
        if values is not None:
            rows[name] = [as_tensor(name, v) for v in values] if ragged else list(_batch(name, values, single))
    n = len(rows[main])
    for i, v in enumerate(rows[main]):
        if v.ndim != 2:
            size = schema.state.size if main == "state" else schema.measured.size
            got = tuple(v.shape) if ragged or single else (n, *v.shape)
            raise DataError(
                f"{main}, episode {i}: expected shape (T + 1, {size}) for each episode, or (N, T + 1, {size}) for all, "
                f"got {got}; reshape it (one column: values[:, None])"
            )
    for name, values in rows.items():
        if len(values) != n:
            raise DataError(f"expected as many episodes in {name} as in {main} ({n}), got {len(values)}")
    devices = {str(v.device) for values in rows.values() for v in values}
    if len(devices) > 1:
        raise DataError(f"expected all arrays on one device, got {sorted(devices)}; move them with .to(device)")
    if n == 0:
        raise DataError("expected at least one episode, got none")
    dtype = rows[main][0].dtype
    for values in rows.values():
        for v in values:
            dtype = torch.promote_types(dtype, v.dtype)
    device = rows[main][0].device

    steps = torch.tensor([len(v) - 1 for v in rows[main]], device=device)
    if int(steps.min()) < 0:
        raise DataError(f"expected at least a start state in every episode, got none in episode {int(steps.argmin())}")
    if lengths is not None:
        wanted = torch.as_tensor(lengths, device=device).long()
        if wanted.shape != (n,) or bool((wanted < 0).any()) or bool((wanted > steps).any()):
            raise DataError(f"expected lengths of shape ({n},) between 0 and {int(steps.max())}, got {wanted.tolist()}")
        steps = wanted
    full = [len(v) - 1 for v in rows[main]]
    out: dict[str, Tensor | None] = {"state": None, "observation": None, "reward": None}
    for name, variables in recorded.items():
        if name in rows and variables is not None:
            points, tail = [t + 1 for t in full], (variables.size,)
            out[name] = _pad(name, rows[name], full=points, keep=steps + 1, tail=tail, dtype=dtype)
    actions = rows.get("action", [torch.empty(t, 0, device=device) for t in full])
    out["action"] = _pad("action", actions, full=full, keep=steps, tail=(schema.action.size,), dtype=dtype)
    if "reward" in rows:
        out["reward"] = _pad("reward", rows["reward"], full=full, keep=steps, tail=(), dtype=dtype)
    out["context"] = _context(rows.get("context"), full=full, keep=steps, size=schema.context.size, dtype=dtype)
    out["lengths"] = steps
    return out


def _is_table(values: Any) -> bool:
    """Whether nested lists hold the rows of one episode: numbers two levels down."""
    first = values[0] if len(values) else None
    return isinstance(first, list | tuple) and len(first) > 0 and all(np.ndim(v) == 0 for v in first)


def _batch(name: str, values: Array, single: bool) -> Tensor:
    tensor = as_tensor(name, values)
    if tensor.ndim == 0:
        raise DataError(f"{name}: expected an array with an axis for time, got the single number {tensor.item():g}")
    return tensor[None] if single else tensor


def _holds_values(values: Array | None) -> bool:
    if values is None:
        return False
    parts = values if isinstance(values, Sequence) else [values]
    return any(np.prod(np.shape(part)) > 0 for part in parts)


def _context(rows: list[Tensor] | None, *, full: list[int], keep: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    if rows is None:
        return torch.empty(len(full), 0, dtype=dtype, device=keep.device)
    if rows[0].ndim == 2:
        return _pad("context", rows, full=full, keep=keep, tail=(size,), dtype=dtype)
    if any(v.shape != (size,) for v in rows):
        raise DataError(f"expected context of {size} values an episode, or (T, {size}), got {tuple(rows[0].shape)}")
    return torch.stack(rows).to(dtype)


def _pad(
    name: str, rows: list[Tensor], *, full: list[int], keep: Tensor, tail: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    for i, (v, t) in enumerate(zip(rows, full, strict=True)):
        if v.shape != (t, *tail):
            hint = ""
            if name in ("action", "reward", "context") and v.shape[:1] == (t + 1,):
                hint = "; an episode has one state more than actions: append the last state or drop the last action"
            elif v.ndim != 1 + len(tail):
                hint = "; reshape it"
            raise DataError(f"{name}, episode {i}: expected shape {(t, *tail)}, got {tuple(v.shape)}{hint}")
    longest = int(keep.max())
    if len({len(v) for v in rows}) == 1:
        out = torch.stack(rows)[:, :longest].to(dtype)
        inside = torch.arange(longest, device=keep.device) < keep[:, None]
        return torch.where(inside.view(*inside.shape, *(1,) * len(tail)), out, float("nan"))
    out = rows[0].new_full((len(rows), longest, *tail), float("nan"), dtype=dtype)
    for i, (v, k) in enumerate(zip(rows, keep.tolist(), strict=True)):
        out[i, :k] = v[:k]
    return out


def check_values(schema: Schema, arrays: Mapping[str, Tensor | None], *, allow_missing: bool) -> None:
    """Refuse what cannot be data: NaN, infinities, numbers whose square overflows, broken quaternions and codes.

    Episodes without a transition are not looked at.

    Raises
    ------
    DataError
        Naming the first offending episode, time and variable, and the count.
    """
    lengths = arrays["lengths"]
    groups = {g: getattr(schema, g) for g in ("state", "observation", "action", "context")}
    for name, variables in [*groups.items(), ("reward", None)]:
        values = arrays[name]
        if values is None or lengths is None or values.numel() == 0:
            continue
        columns = ("reward",) if variables is None else variables.columns
        table = values[:, None] if name == "context" and values.ndim == 2 else values
        table = table[..., None] if variables is None else table
        extra = 1 if name in ("state", "observation") else 0
        steps = torch.arange(table.shape[1], device=values.device)
        inside = (steps < (lengths + extra)[:, None])[..., None].expand_as(table)
        if table.shape[1] == 1 and name == "context":
            inside = torch.ones_like(inside)
        inside = inside & (lengths > 0)[:, None, None]
        if not (allow_missing and name in ("state", "observation")):
            cure = "; drop them, or pass allow_missing=True" if extra else "; drop the episode or fill them"
            _refuse(table.isnan() & inside, name, columns, expected="finite numbers", got="NaN", cure=cure)
        _refuse(table.isinf() & inside, name, columns, expected="finite numbers", got="infinity")
        limit = float(torch.finfo(values.dtype).max) ** 0.5
        small, huge = f"values below {limit:.0e}", (table.abs() > limit) & inside
        _refuse(huge, name, columns, expected=small, got="larger ones", cure="; rescale")
        if variables is not None:
            _check_kinds(variables, table, inside, name=name)
            _count_outside(variables, table, inside, name=name)


@contextmanager
def bounds_were_checked() -> Iterator[None]:
    """Leave out warnings of values outside their bounds: the data were checked when they were made."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".* outside its bounds ", DataWarning)
        yield


def _check_kinds(variables: Variables, table: Tensor, inside: Tensor, *, name: str) -> None:
    for v in variables:
        part, where = table[..., variables.slices[v.name]], inside[..., variables.slices[v.name]]
        if isinstance(v.kind, Rotation):
            bad = ((part.norm(dim=-1, keepdim=True) - 1).abs() > 1e-2) & where
            unit = "unit quaternions (w, x, y, z)"
            _refuse(bad, name, v.columns, expected=unit, got="another norm", cure="; normalise them")
        elif isinstance(v.kind, Categorical):
            bad = ((part != part.round()) | (part < 0) | (part >= v.kind.n)) & where & ~part.isnan()
            _refuse(bad, name, v.columns, expected=f"codes 0..{v.kind.n - 1}", got="others")


def _count_outside(variables: Variables, table: Tensor, inside: Tensor, *, name: str) -> None:
    for v in variables:
        if v.bounds is not None:
            part, where = table[..., variables.slices[v.name]], inside[..., variables.slices[v.name]]
            slack = 0.01 * (v.bounds[1] - v.bounds[0])  # measurement noise at a limit is no violation
            count = int((((part < v.bounds[0] - slack) | (part > v.bounds[1] + slack)) & where).sum())
            if count:
                text = f"{count} recorded value(s) of {name} variable {v.name!r} outside its bounds {v.bounds}"
                warnings.warn(text, DataWarning, stacklevel=4)


def _refuse(bad: Tensor, name: str, columns: tuple[str, ...], *, expected: str, got: str, cure: str = "") -> None:
    if bool(bad.any()):
        episode, time, column = bad.nonzero()[0].tolist()
        raise DataError(
            f"{name}: expected {expected}, got {got}, first at episode {episode}, time {time}, "
            f"variable {columns[column]!r} ({int(bad.sum())} value(s) in all){cure}"
        )
