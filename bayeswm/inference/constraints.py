"""Named parameters with laws as one flat vector without bounds, which is what samplers move in."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, HalfNormal, Independent, Normal, Transform, biject_to
from torch.distributions.transforms import ComposeTransform, IndependentTransform, _InverseTransform

from bayeswm.base.errors import SpecError
from bayeswm.base.random import global_rng, spawn_seeds


class Unconstrained:
    """The map between named parameters inside the supports of their laws and flat vectors of real numbers.

    Parameters
    ----------
    laws : mapping of str to Distribution
        The law of each parameter before data. Batch and event axes together are the parameter's shape.
    scaled_by : mapping of str to str, optional
        Parameters on the whole line whose coordinate is their value times another, positive parameter that comes before
        them: for values of a population in units of its spread, coordinates in the values' own unit ("centred"), in
        which what data say of each value does not hang on the spread.

    Attributes
    ----------
    size : int
        Length D of the flat vector.
    labels : tuple of str
        A name for each of its entries, such as ``A[0,1]``.

    Raises
    ------
    SpecError
        If there is no law, or one whose support has no smooth map from the real numbers (a discrete one).

    Examples
    --------
    >>> from torch.distributions import LogNormal, Normal
    >>> flat = Unconstrained({"mass": LogNormal(0.0, 1.0), "gain": Normal(torch.zeros(2), 1.0)})
    >>> flat.labels
    ('mass', 'gain[0]', 'gain[1]')
    >>> values, log_det = flat.constrain(torch.zeros(3, dtype=torch.float64))
    >>> values["mass"].item(), log_det.item()
    (1.0, 0.0)
    """

    def __init__(self, laws: Mapping[str, Distribution], *, scaled_by: Mapping[str, str] | None = None) -> None:
        self._scaled_by = dict(scaled_by or {})
        if not laws:
            raise SpecError("expected at least one parameter with a law, got none; give a parameter a distribution")
        self.laws = {name: prepared(law) for name, law in laws.items()}
        self._maps: dict[str, Transform] = {}
        # what has a shorter way: parameters without bounds, and normal laws by location and inverse scale
        self._free: set[str] = set()
        self._normal: dict[str, tuple[Tensor, Tensor]] = {}
        self._constant = 0.0
        self._shapes: dict[str, torch.Size] = {}
        self._slices: dict[str, slice] = {}
        labels: list[str] = []
        for name, law in self.laws.items():
            try:
                self._maps[name] = biject_to(law.support)
            except NotImplementedError:
                raise SpecError(
                    f"{name}: expected a law on a continuous support, got {type(laws[name]).__name__}; "
                    "samplers that use gradients need one"
                ) from None
            if _identity(self._maps[name]):
                self._free.add(name)
            if isinstance(base := _base(law), Normal | HalfNormal):
                # made outside inference mode: gradients run through them, wherever the fit was called
                with torch.inference_mode(False):
                    loc = base.loc.clone() if isinstance(base, Normal) else torch.zeros_like(base.scale)
                    self._normal[name] = loc, 1 / base.scale
                self._constant += float(base.log_prob(loc).sum())
            shape = self._maps[name].inverse_shape(law.batch_shape + law.event_shape)
            self._shapes[name] = torch.Size(shape)
            count = math.prod(shape)
            self._slices[name] = slice(len(labels), len(labels) + count)
            indices = [",".join(map(str, index)) for index in torch.ones(tuple(shape)).nonzero().tolist()]
            labels += [f"{name}[{i}]" for i in indices] if len(shape) else [name]
        self.labels = tuple(labels)
        self.size = len(labels)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each parameter stands in the flat vector."""
        return dict(self._slices)

    def constrain(self, flat: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parameters at flat vectors, and the log volume change.

        Parameters
        ----------
        flat : Tensor, shape (*batch, D)
            Real numbers.

        Returns
        -------
        tuple of dict of Tensor, shape (*batch, ...), and Tensor, shape (*batch,)
            The second is the log of the absolute determinant of the map's derivative.
        """
        batch = flat.shape[:-1]
        values: dict[str, Tensor] = {}
        log_det = flat.new_zeros(batch)
        for name, where in self._slices.items():
            raw = flat[..., where].reshape((*batch, *self._shapes[name]))
            if name in self._scaled_by:
                scale = values[self._scaled_by[name]]
                raw = raw / scale.reshape((*batch, *(1,) * len(self._shapes[name])))
                log_det = log_det - (where.stop - where.start) * scale.log()
            if name in self._free:
                values[name] = raw
                continue
            values[name] = value = torch.as_tensor(self._maps[name](raw))
            volume = self._maps[name].log_abs_det_jacobian(raw, value)
            log_det = log_det + volume.reshape((*batch, -1)).sum(-1)
        return values, log_det

    def unconstrain(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return flat vectors (*batch, D): the inverse of :meth:`constrain`."""
        parts: list[Tensor] = []
        for name, shape in self._shapes.items():
            raw = torch.as_tensor(self._maps[name].inv(values[name].double()))
            if name in self._scaled_by:
                scale = values[self._scaled_by[name]].double()
                raw = raw * scale.reshape((*scale.shape, *(1,) * len(shape)))
            parts.append(raw.reshape((*raw.shape[: raw.ndim - len(shape)], -1)))
        return torch.cat(parts, -1)

    def log_prior(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the log density of parameters (*batch, ...) under their laws, shape (*batch,)."""
        total = torch.tensor(self._constant, dtype=torch.float64)
        for name, law in self.laws.items():
            if name in self._normal:
                loc, inverse = self._normal[name]
                each = ((values[name] - loc) * inverse).square()
                total = total - 0.5 * each.reshape((*each.shape[: each.ndim - loc.ndim], -1)).sum(-1)
                continue
            each = law.log_prob(values[name])
            total = total + each.reshape((*each.shape[: each.ndim - len(law.batch_shape)], -1)).sum(-1)
        return total

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw flat vectors (n, D) from the laws."""
        with global_rng(spawn_seeds(generator, 1)[0]), torch.no_grad():
            drawn = {name: law.sample((n,)) for name, law in self.laws.items()}
        return self.unconstrain(drawn)


def _identity(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return isinstance(transform, ComposeTransform) and not transform.parts


def _base(law: Any) -> Any:
    while isinstance(law, Independent):
        law = law.base_dist
    return law


def prepared[Kept](given: Kept, dtype: torch.dtype = torch.float64) -> Kept:
    """Return a copy of a law in a number format and without value checks.

    Some laws cast values to the format of their own parameters, and the checks raise at the first chain that leaves
    the finite numbers, which a sampler must see as a rejected step instead.
    """
    made = copy.copy(given)
    for name, value in vars(given).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            made.__dict__[name] = value.detach().to(dtype)
        elif name == "_inv" and not isinstance(given, _InverseTransform):
            made.__dict__[name] = None  # the inverse of a transform that was used, which points back at it
        elif isinstance(value, Distribution | Transform):
            made.__dict__[name] = prepared(value, dtype)
        elif name in ("transforms", "parts") and isinstance(value, list):
            made.__dict__[name] = [prepared(part, dtype) for part in value]
    if isinstance(made, Distribution):
        made.__dict__["_validate_args"] = False
    return made
