"""What every model is: something that learns from trajectories and becomes a posterior over worlds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import Gaussian, Law
from bayeswm.base.moments import Moments, pooled_moments
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Belief, Noise, Worlds

if TYPE_CHECKING:
    import xarray

    from bayeswm.base.structure import Structure


class DynamicsModel(ABC):
    """A model of how a system moves. Hyper-parameters go into the constructor; ``fit`` returns the model itself.

    A leaf implements ``fit``, ``draw`` and, so that it can be saved, ``state_dict`` and ``from_state``.
    """

    registry: ClassVar[dict[str, type[DynamicsModel]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("bayeswm."):
            DynamicsModel.registry[cls.__name__] = cls

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """Variables of the system.

        Raises
        ------
        SpecError
            If the model has not been fitted and takes its variables from the data.
        """

    @abstractmethod
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Learn from trajectories and return the model itself."""

    @abstractmethod
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        """Draw worlds from the posterior; a posterior that is a few worlds gives each of them once, with its weight."""

    def prior(self, worlds: int, *, generator: torch.Generator) -> Worlds:  # noqa: ARG002
        """Draw worlds from what is believed before data.

        Raises
        ------
        SpecError
            If the family has no prior to draw from, or takes parts of it from data.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> belief = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
        >>> model = bwm.BayesianDynamics(structure=belief, noise=0.01)
        >>> len(model.prior(10, generator=torch.Generator().manual_seed(0)))
        10
        """
        raise SpecError(
            f"{type(self).__name__} has no prior over worlds to draw from; BayesianDynamics has, and KnownDynamics of "
            "uncertain parameters"
        )

    def __repr__(self) -> str:
        structure = getattr(self, "structure", None)
        return f"{type(self).__name__}({'' if structure is None else f'structure={structure.name}'})"

    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return a new model whose posterior is given these trajectories too.

        Parameters
        ----------
        trajectories : Trajectories
            New data.
        in_training : bool
            The data were in the training set: they count already, and the model comes back as it is.

        Raises
        ------
        SpecError
            If the family cannot do it.
        """
        if in_training:
            return self
        raise SpecError(
            f"{type(self).__name__} cannot be conditioned on {len(trajectories)} more episode(s); "
            "fit it to all data together instead"
        )

    def predictive(
        self,
        state: Tensor | None,
        action: Tensor,
        *,
        context: Tensor | None = None,
        history: Trajectories | None = None,
        of: str = "state",
        worlds: int = 64,
        particles: int = 100,
        generator: torch.Generator | None = None,
    ) -> Predictive:
        """Return the law of the next state.

        Parameters
        ----------
        state : Tensor, shape (*batch, S)
            Where the system is; None where ``history`` tells.
        action : Tensor, shape (*batch, A)
            What is done.
        context : Tensor, shape (*batch, C), optional
            Environment factors.
        history : Trajectories, optional
            What led here, for systems with a hidden state.
        of : {"state", "measurement", "function"}
            The next state, what the sensors will report of it, or its mean in each world without process noise.
        worlds : int
            How many to draw, where the posterior is not a few worlds.
        particles : int
            Noise draws for a measurement of a noisy state.
        generator : torch.Generator, optional
            Needed where worlds or noise are drawn.

        Returns
        -------
        Predictive
            Over one step: its statistics have shape (*batch, 1, S).

        Raises
        ------
        SpecError, DataError
            For an unknown ``of``, wrong shapes or NaN.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
        >>> model.predictive(torch.tensor([0.1, 0.0]), torch.tensor([0.5])).stddev
        tensor([[0.0100, 0.0100]], dtype=torch.float64)
        """
        if of not in ("state", "measurement", "function"):
            raise SpecError(f"expected of='state', 'measurement' or 'function', got {of!r}")
        drawn = self.draw(worlds, generator=generator)
        schema = drawn.schema
        if (state is None) == (history is None):
            raise SpecError(
                "expected either a state or history=, got " + ("both" if history is not None else "neither")
            )
        action = finite("action", action, schema.action.columns, worlds=drawn)
        belief: Belief
        if history is not None:
            belief, batch = history, (len(history),)
        else:
            belief = finite("state", state, schema.state.columns, worlds=drawn)
            try:
                batch = tuple(torch.broadcast_shapes(belief.shape[:-1], action.shape[:-1]))
            except RuntimeError:
                raise DataError(
                    "expected batch shapes of state and action that fit, "
                    f"got {tuple(belief.shape[:-1])} and {tuple(action.shape[:-1])}"
                ) from None
            belief = belief.expand(*batch, belief.shape[-1])
        if context is not None or schema.context.size:
            context = finite("context", context, schema.context.columns, worlds=drawn).expand(*batch, -1)

        def drawn_noise(size: int) -> Tensor:
            if generator is None:
                raise SpecError("expected generator=torch.Generator, since noise must be drawn, got none")
            shape = (len(drawn), particles, *batch, size)
            return standard_normal(shape, generator, dtype=drawn.dtype, device=drawn.device)

        initial, episode = drawn.initial_noise_size(belief), drawn.episode_noise_size
        noise = Noise(drawn_noise(initial) if initial else None, drawn_noise(episode) if episode else None)
        carry = drawn.start(belief, context, noise)
        law = drawn.transition(carry, action.expand(*batch, action.shape[-1]), context)
        _check_law(law)
        variables, resolved = schema.state, noise.initial is None and noise.episode is None
        view, begin = drawn.state, drawn.state(carry)
        if of == "function":
            law, view = Gaussian(law.mean), None
        elif of == "measurement" and not drawn.state_is_measured:
            pushed = law.push(drawn_noise(drawn.noise_size))
            law, variables, resolved = drawn.measurement(pushed), schema.measured, resolved and not drawn.noise_size
            view, begin = None, drawn.measurement(carry).mean
        return Predictive(
            variables,
            [law],
            drawn.log_weight,
            exhaustive=drawn.exhaustive,
            time_step=schema.time_step,
            initial=begin,
            resolved=[resolved],
            has_density=of != "function",
            view=view,
        )

    def moments(
        self,
        mean: Tensor,
        covariance: Tensor,
        action: Tensor | None = None,
        *,
        context: Tensor | None = None,
        worlds: int = 64,
        generator: torch.Generator | None = None,
    ) -> Moments:
        """Return moments of the next state from a Gaussian belief about where the system is.

        The belief meets a world of the posterior for this step only. By cubature over drawn worlds, unless the family
        has a closed form.

        Parameters
        ----------
        mean : Tensor, shape (*batch, n)
            Mean of the state (n = S), or without ``action`` of state and action together (n = S + A).
        covariance : Tensor, shape (*batch, n, n)
            Its covariance, which may be singular.
        action : Tensor, shape (*batch, A), optional
            A certain action.
        context : Tensor, shape (*batch, C), optional
            Environment factors.
        worlds : int
            How many to draw, where the posterior is not a few worlds and there is no closed form.
        generator : torch.Generator, optional
            Needed where worlds are drawn.

        Returns
        -------
        Moments

        Raises
        ------
        SpecError, DataError
            For a hidden state, wrong shapes, or numbers that are not finite.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
        >>> found = model.moments(torch.zeros(2), torch.diag(torch.tensor([0.04, 0.0])), torch.zeros(1))
        >>> found.covariance.diagonal().sqrt()
        tensor([0.2076, 0.1474], dtype=torch.float64)
        """
        drawn = self.draw(worlds, generator=generator)
        return pooled_moments(drawn, mean, covariance, action, context=context)

    def to_datatree(
        self,
        trajectories: Trajectories | None = None,
        *,
        prior: bool = False,
        draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> xarray.DataTree:
        """Return the posterior as an ArviZ tree.

        Parameters
        ----------
        trajectories : Trajectories, optional
            The training data, for models that do not keep them: what ``log_likelihood``, ``posterior_predictive`` and
            ``observed_data`` refer to. With other data ``az.loo`` means nothing.
        prior : bool
            Add ``prior`` and ``prior_predictive``.
        draws : int, optional
            Draws of each chain to keep, evenly spaced; all by default. Where the posterior is not held as draws, how
            many worlds are drawn: 256 by default.
        generator : torch.Generator, optional
            Draws worlds and process noise. By default one of seed 0, so that the same model gives the same tree.

        Returns
        -------
        xarray.DataTree
            Groups with the dimensions chain and draw; chain is 1 unless a sampler ran several. ``posterior`` holds the
            parameters, ``log_likelihood`` the log density of each transition's next state column by column (where the
            noises of columns depend on each other, jointly as ``state``), ``posterior_predictive`` a next state,
            ``observed_data`` what came; their dimension is transition, with coordinates episode and step. Of a hidden
            state there are only ``posterior`` and the measurements, unless the family says more. Bayesian dynamics
            add ``sample_stats`` and ``log_prior``.

        Raises
        ------
        SpecError
            If the family has no prior to draw from, or the tree would not fit into memory.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.01)
        >>> data = bwm.Trajectories(model.schema, state=torch.zeros(1, 6, 2), action=torch.zeros(1, 5, 1))
        >>> sorted(model.to_datatree(data).children)
        ['log_likelihood', 'observed_data', 'posterior', 'posterior_predictive']
        """
        from bayeswm.base.labelled_posterior import model_to_datatree

        if prior:
            raise SpecError(f"{type(self).__name__} has no prior to draw from: leave prior=False")
        if draws is not None and draws < 1:
            raise SpecError(f"expected draws >= 1, got {draws}")
        generator = make_generator(0 if generator is None else generator)
        return model_to_datatree(self, trajectories, draws=draws or 256, generator=generator)

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what :meth:`from_state` needs: plain values for JSON, and tensors.

        Raises
        ------
        SpecError
            If the family cannot be saved.
        """
        raise SpecError(f"{type(self).__name__} cannot be saved: give it state_dict() and from_state()")

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> DynamicsModel:
        """Rebuild the model from :meth:`state_dict` and its structure, if it has one."""
        given = [*config, *tensors, *([] if structure is None else [structure.name])]
        raise SpecError(f"{cls.__name__} cannot be loaded from ({', '.join(given)}): give it from_state()")

    def save(self, path: str | PathLike[str]) -> None:
        """Write the model to a file; see :func:`bayeswm.base.saving.save`."""
        from bayeswm.base.saving import save

        save(self, path)


def _check_law(law: Law) -> None:
    """Refuse a law that is no answer: a mean or variance that is not finite, or a negative standard deviation."""
    scale = law.scale if isinstance(law, Gaussian) else None
    if scale is not None and bool((scale < 0).any()):
        raise SpecError(f"expected standard deviations >= 0 from the structure, got {float(scale.min()):g}")
    bad = ~(law.mean.isfinite() & law.variance.isfinite())
    if bool(bad.any()):
        first = bad.nonzero()[0].tolist()
        raise DataError(
            f"expected a finite answer, got NaN or infinity in {int(bad.sum())} value(s), first in world {first[0]}, "
            f"batch {tuple(first[2:-1])}, column {first[-1]}: the state or a parameter is beyond the model's range"
        )


def finite(name: str, values: Tensor | None, columns: tuple[str, ...], *, worlds: Worlds) -> Tensor:
    """Return values in the worlds' number format and place, or say what is wrong with them.

    Raises
    ------
    DataError
        If they are absent, of the wrong size, NaN or infinite.
    """
    if values is None:
        raise DataError(f"expected {name} of shape (*batch, {len(columns)}) for {columns}, got none")
    tensor = torch.as_tensor(values).to(worlds.device, worlds.dtype)
    if tensor.ndim < 1 or tensor.shape[-1] != len(columns):
        raise DataError(f"expected {name} of shape (*batch, {len(columns)}) for {columns}, got {tuple(tensor.shape)}")
    if not bool(tensor.isfinite().all()):
        index = (~tensor.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"expected finite values of {name}, got NaN or infinity, first at {tuple(index[:-1])}, "
            f"variable {columns[index[-1]]!r}"
        )
    return tensor


def check_model(model: object) -> None:
    """Refuse what is neither a model nor worlds, such as the structure of one.

    Raises
    ------
    SpecError
        Saying what it is.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> check_model(bwm.KnownDynamics(structure=bwm.structures.Pendulum()))
    """
    if not isinstance(model, DynamicsModel | Worlds):
        raise SpecError(f"expected a model or worlds, got a {type(model).__name__}")
