"""Laws of parameters as plain values, so that a model with a prior can be saved without pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError

_KNOWN: dict[str, type[Distribution]] = {
    c.__name__: c
    for c in (
        *(distributions.Normal, distributions.LogNormal, distributions.HalfNormal, distributions.StudentT),
        *(distributions.Uniform, distributions.Gamma, distributions.InverseGamma, distributions.Beta),
        *(distributions.Exponential, distributions.HalfCauchy, distributions.Laplace, distributions.Cauchy),
    )
}


def encode(value: float | Tensor | Distribution | None) -> Any:
    """Return a number, tensor or law as plain values for JSON.

    Raises
    ------
    SpecError
        For a law that is not in the list of known ones.

    Examples
    --------
    >>> encode(torch.distributions.Normal(1.0, 0.1))["law"]
    'Normal'
    """
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Tensor):
        # the number format belongs to the value: 0.1 in float32 is another number
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    name = type(value).__name__
    if _KNOWN.get(name) is not type(value):
        raise SpecError(f"cannot save a law of class {name}; use one of {', '.join(sorted(_KNOWN))}")
    # a law may keep its parameters in a base law (LogNormal does): its constraints name them all
    names = [n for n in value.arg_constraints if n in _KNOWN[name].__init__.__code__.co_varnames]
    return {"law": name, "parameters": {n: encode(torch.as_tensor(getattr(value, n))) for n in names}}


def decode(value: Any) -> Any:
    """Return what :func:`encode` was given.

    Raises
    ------
    SpecError
        For an unknown law.

    Examples
    --------
    >>> decode(encode(torch.distributions.LogNormal(0.0, 0.5)))
    LogNormal()
    """
    if isinstance(value, dict) and "tensor" in value:
        dtype = getattr(torch, str(value["dtype"]), None)
        if not isinstance(dtype, torch.dtype):
            raise SpecError(f"expected the name of a number format, got {value['dtype']!r}")
        return torch.tensor(value["tensor"], dtype=dtype)
    if isinstance(value, dict):
        if value.get("law") not in _KNOWN:
            raise SpecError(f"expected a law among {', '.join(sorted(_KNOWN))}, got {value.get('law')!r}")
        return _KNOWN[value["law"]](**{k: decode(v) for k, v in value["parameters"].items()})
    return value
