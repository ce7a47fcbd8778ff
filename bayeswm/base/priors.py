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
        return value.tolist()
    name = type(value).__name__
    if name not in _KNOWN:
        raise SpecError(f"cannot save a law of class {name}; use one of {', '.join(sorted(_KNOWN))}")
    # a law may keep its parameters in a base law (LogNormal does): its constraints name them all
    names = [n for n in type(value).arg_constraints if n in _KNOWN[name].__init__.__code__.co_varnames]  # pyright: ignore
    return {"law": name, "parameters": {n: torch.as_tensor(getattr(value, n)).tolist() for n in names}}


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
    if isinstance(value, dict):
        if value.get("law") not in _KNOWN:
            raise SpecError(f"expected a law among {', '.join(sorted(_KNOWN))}, got {value.get('law')!r}")
        return _KNOWN[value["law"]](**{k: torch.as_tensor(v) for k, v in value["parameters"].items()})
    return torch.tensor(value) if isinstance(value, list) else value
