"""What the dynamics are, apart from how uncertain we are about them: pure functions of named parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.objective import AutogradObjective, Objective
from bayeswm.base.priors import positive
from bayeswm.base.random import global_rng, make_generator, spawn_seeds
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Transitions

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Parameter:
    """One named parameter of a structure.

    Attributes
    ----------
    value : float or Tensor or Distribution
        Its value, or the law that describes what is known of it before data.
    unit : str
        Unit, SI where there is one.
    positive : bool
        Whether only values above 0 make sense.
    trained : bool
        Whether gradient training changes it.
    """

    value: float | Tensor | Distribution
    unit: str = ""
    positive: bool = False
    trained: bool = True

    @property
    def uncertain(self) -> bool:
        """Whether the value is a law."""
        return isinstance(self.value, Distribution)


class Trigonometric(NamedTuple):
    """A step x' = linear z + sine sin(z) + cosine cos(z) + constant, of the n columns z of state, action and context.

    ``linear``, ``sine`` and ``cosine`` have shape (S, n), ``constant`` (S,).
    """

    linear: Tensor
    sine: Tensor
    cosine: Tensor
    constant: Tensor


class Structure(ABC):
    """A transition function written for one world.

    A structure holds no state that changes: its parameters come in as an argument. ``transition`` sees plain
    parameters and states of shape (*batch, S); :meth:`batched` adds the worlds with ``torch.func.vmap``, and a
    structure for which that is slow overrides it.

    Attributes
    ----------
    elementwise : bool
        Whether each parameter is one number and the step is made of operations that broadcast over the axes in front of
        the columns: worlds are then one more such axis, which is several times as fast for small batches.
    """

    registry: ClassVar[dict[str, type[Structure]]] = {}
    elementwise: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("bayeswm."):
            Structure.registry[cls.__name__] = cls

    @property
    def name(self) -> str:
        """Name under which a saved model finds the structure again."""
        return type(self).__name__

    @property
    @abstractmethod
    def schema(self) -> Schema | None:
        """The variables, or None where the structure takes those of the data (see :meth:`bind`)."""

    @abstractmethod
    def parameters(self) -> dict[str, Parameter]:
        """Return the named parameters with their values or laws."""

    @abstractmethod
    def transition(  # noqa: PLR0917 (the hot path names its arguments by position)
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mean of the next state and the standard deviation of the process noise.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            One value for each name of :meth:`parameters`.
        state : Tensor, shape (*batch, S)
            States.
        action : Tensor, broadcastable to (*batch, A)
            Actions.
        context : Tensor, broadcastable to (*batch, C)
            Context.
        step : int or Tensor, broadcastable to (*batch,)
            Index of the step, for dynamics that change with time.

        Returns
        -------
        tuple of Tensor, shape (*batch, S), and Tensor or None
            The second is None where the structure says nothing about noise.
        """

    def bind(self, schema: Schema) -> Structure:
        """Return the structure for these variables: itself where it has a schema that fits.

        Raises
        ------
        SpecError
            If variables, their order or kinds, or the time step differ from the structure's own.
        """
        if self.schema is not None:
            self.schema.check_same(schema, who=self.name)
        return self

    def check_parameters(self) -> None:
        """Refuse values that make no sense and laws that reach beyond a constraint: for the end of a constructor.

        Raises
        ------
        SpecError
            Naming the parameter and its unit.
        """
        for name, p in self.parameters().items():
            if isinstance(p.value, Distribution):
                if p.positive and not positive(p.value):
                    law = type(p.value).__name__
                    raise SpecError(f"{self.name}, {name}: expected a law of numbers > 0, got {law}; try LogNormal")
            else:
                value = torch.as_tensor(p.value)
                if not bool(value.isfinite().all()) or (p.positive and not bool((value > 0).all())):
                    wanted = "> 0" if p.positive else "finite"
                    raise SpecError(f"{self.name}: expected {name} {wanted} {p.unit}, got {p.value}")

    def batched(  # noqa: PLR0917 (hot path)
        self, parameters: Parameters, state: Tensor, action: Tensor, context: Tensor, step: int | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return :meth:`transition` in many worlds: parameters (W, ...), states (W, P, *batch, S).

        Actions and context may lack the world and particle axes.
        """
        worlds = max([state.shape[0], *(v.shape[0] for v in parameters.values())])
        if worlds == 1:  # without the detour: small systems are bound by the number of calls
            action, context = (v.squeeze(0) if v.ndim == state.ndim else v for v in (action, context))
            values = {k: v.squeeze(0) for k, v in parameters.items()}
            mean, scale = self.transition(values, state.squeeze(0), action, context, step)
            return mean.unsqueeze(0), None if scale is None else scale.unsqueeze(0)
        state = state.expand(worlds, *state.shape[1:])
        if self.elementwise:
            behind = (1,) * (state.ndim - 2)
            values = {k: v.view(-1, *behind) for k, v in parameters.items()}
            return self.transition(values, state, action, context, step)

        def one(values: dict[str, Tensor], x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            mean, scale = self.transition(values, x, given[0], given[1], step)
            return (mean,) if scale is None else (mean, scale)

        def axis(values: Tensor) -> int | None:
            return 0 if values.ndim == state.ndim else None

        action, context = (v[0] if v.ndim == state.ndim and v.shape[0] == 1 else v for v in (action, context))
        dims = (dict.fromkeys(parameters, 0), 0, axis(action), axis(context))
        out = torch.func.vmap(one, in_dims=dims)(dict(parameters), state, action, context)
        return (out[0], None) if len(out) == 1 else (out[0], out[1])

    def initial(self, worlds: int, generator: torch.Generator | None, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return parameters to begin a training with, shape (worlds, ...): by default those of :meth:`sample`."""
        return self.sample(worlds, generator, dtype)

    def sample(self, worlds: int, generator: torch.Generator | None, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return parameters of many worlds: fixed values repeated, laws sampled, shape (worlds, ...).

        Raises
        ------
        SpecError
            If a parameter is uncertain and no generator is given.
        """
        out: dict[str, Tensor] = {}
        for name, parameter in self.parameters().items():
            if isinstance(parameter.value, Distribution):
                if generator is None:
                    raise SpecError(f"parameter {name!r} is uncertain: pass generator= to draw it")
                with global_rng(spawn_seeds(make_generator(generator), 1)[0]):
                    out[name] = parameter.value.sample((worlds,)).to(dtype)
            else:
                value = torch.as_tensor(parameter.value, dtype=dtype)
                out[name] = value.expand(worlds, *value.shape).clone()
            if parameter.positive and bool((out[name] <= 0).any()):
                raise SpecError(f"{self.name}: expected {name} > 0, got {float(out[name].min()):g}; use a positive law")
        return out

    def standardise(self, parameters: Parameters, data: Transitions) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the parameters with whatever scales the structure takes from training data; by default none."""
        return dict(parameters)

    def layers(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Return inputs and outputs of each layer for parameters that are the flat weights of a network."""
        return {}

    def lipschitz_bound(self, parameters: Parameters, scale: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return an upper bound of how much a step can stretch the distance of two states.

        Parameters
        ----------
        parameters : mapping of str to Tensor, shape (W, ...)
            Parameters of each world.
        scale : Tensor, shape (S,)
            What distances are measured in, by column.

        Returns
        -------
        Tensor, shape (W,), or None
            None where none is known.
        """
        return None

    def trigonometric(self, parameters: Parameters) -> Trigonometric | None:  # noqa: ARG002
        """Return the step with these parameters as a linear map of its inputs, their sines and cosines.

        Of such a step the moments at a Gaussian input are known in closed form.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            One value for each name of :meth:`parameters`.

        Returns
        -------
        Trigonometric or None
            None, the default, where it is no such map.
        """
        return None

    def objective(self, parameters: Parameters, data: Transitions) -> Objective:
        """Return the loss for gradient training; a structure with a faster gradient brings its own."""
        return AutogradObjective(self, parameters, data)

    def config(self) -> dict[str, Any]:
        """Return what :meth:`from_config` needs: plain values for JSON, and structures that this one is made of.

        Raises
        ------
        SpecError
            If the structure cannot be described by plain values.
        """
        raise SpecError(f"{self.name} cannot be saved: give it config() and from_config()")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Structure:
        """Rebuild the structure from :meth:`config`."""
        return cls(**config)
