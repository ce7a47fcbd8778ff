"""What mechanical structures have in common: parameters, an integrator and a few numbers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.priors import decode as decode_value
from bayeswm.base.priors import encode as encode_value
from bayeswm.structures.integrators import Integrator, decode, encode

Value = float | Tensor | Distribution


def described(values: Mapping[str, Value], integrator: Integrator, **rest: Any) -> dict[str, Any]:
    """Return parameters, integrator and further constructor arguments as plain values for JSON.

    Examples
    --------
    >>> from bayeswm.structures import RK4
    >>> described({"mass": 1.0}, RK4(), time_step=0.1)["integrator"]
    {'method': 'RK4', 'substeps': 1}
    """
    return {"values": {k: encode_value(v) for k, v in values.items()}, "integrator": encode(integrator), **rest}


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments that :func:`described` was given.

    Examples
    --------
    >>> from bayeswm.structures import RK4
    >>> arguments(described({"mass": 1.0}, RK4(), time_step=0.1))
    {'mass': 1.0, 'integrator': RK4(substeps=1), 'time_step': 0.1}
    """
    values = {k: decode_value(v) for k, v in config["values"].items()}
    rest = {k: v for k, v in config.items() if k not in ("values", "integrator")}
    return {**values, "integrator": decode(config["integrator"]), **rest}
