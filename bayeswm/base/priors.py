"""Laws of parameters: whether they fit a constraint, and as plain values, so that a prior is saved without pickle."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution, Independent, constraints

from bayeswm.base.errors import SpecError
from bayeswm.base.hierarchy import Hierarchical

# what a file may name: nothing outside this table is ever looked up
_LAWS: dict[str, type[Distribution]] = {
    name: found
    for name in distributions.__all__
    if inspect.isclass(found := getattr(distributions, name)) and issubclass(found, Distribution)
}
# of arguments that say the same thing, the one that the density is computed from
_CHOSEN = {"covariance_matrix": "scale_tril", "precision_matrix": "scale_tril", "probs": "logits"}


def positive(law: Distribution) -> bool:
    """Return whether a law is one of numbers that are not below 0, by its support.

    Examples
    --------
    >>> positive(torch.distributions.LogNormal(0.0, 1.0)), positive(torch.distributions.Normal(5.0, 0.1))
    (True, False)
    """
    try:
        support: Any = law.support
    except NotImplementedError:
        return False
    while hasattr(support, "base_constraint"):  # of events, and of mixtures
        support = support.base_constraint
    if support is constraints.simplex:
        return True
    lower = getattr(support, "lower_bound", None)
    return lower is not None and bool((torch.as_tensor(lower) >= 0).all())


def encode(value: float | Tensor | Distribution | None) -> Any:
    """Return a number, tensor or law as plain values for JSON.

    Every law of ``torch.distributions`` that its ``arg_constraints`` describe, and Pyro's law of the same name, which
    comes back as torch's; with any batch shape, and with batch axes made event axes (``to_event``, ``Independent``).

    Raises
    ------
    SpecError
        For another law: a transformed one, a mixture, a user's class.

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
    if isinstance(value, Hierarchical):
        given = {"location": encode(value.location), "scale": encode(value.scale), "relative": value.relative}
        return {"law": "Hierarchical", "parameters": given}
    name = _name(value)
    if isinstance(value, Independent):
        given: dict[str, Any] = {"base_distribution": encode(value.base_dist)}
        given["reinterpreted_batch_ndims"] = value.reinterpreted_batch_ndims
    else:
        given = {n: encode(getattr(value, n)) for n in _arguments(_LAWS[name], value)}
    return {"law": name, "parameters": given}


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
        if value.get("law") == "Hierarchical":
            return Hierarchical(**{k: decode(v) for k, v in value["parameters"].items()})
        if not isinstance(value.get("law"), str) or value["law"] not in _LAWS:
            raise SpecError(f"expected a law of torch.distributions, got {value.get('law')!r}")
        return _LAWS[value["law"]](**{k: decode(v) for k, v in value["parameters"].items()})
    return value


def _name(law: Distribution) -> str:
    """Return the name of torch's class for a law of torch or of Pyro that can be written down."""
    name = type(law).__name__
    ours = _LAWS.get(name)
    described = isinstance(law, Independent) or (ours is not None and bool(law.arg_constraints))
    from_pyro = type(law).__module__.partition(".")[0] == "pyro" and ours is not None and isinstance(law, ours)
    if not described or not (type(law) is ours or from_pyro):
        raise SpecError(
            f"cannot save a law of class {name}; use one of torch.distributions that its arg_constraints describe "
            "(Normal, LogNormal, MultivariateNormal, ...), not a transformed law, a mixture or a class of your own"
        )
    return name


def _arguments(law: type[Distribution], value: Distribution) -> list[str]:
    """Return the constructor's arguments that say which law it is, each thing once."""
    found: list[str] = []
    for name, argument in list(inspect.signature(law.__init__).parameters.items())[1:]:
        chosen = _CHOSEN.get(name, name)
        needed = name in value.arg_constraints or argument.default is inspect.Parameter.empty
        if needed and chosen not in found:
            found.append(chosen)
    return found
