"""The statistical model of Bayesian dynamics: which parameters have which laws, and how data depend on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, HalfNormal

from bayeswm.base.errors import DataWarning, SpecError
from bayeswm.base.hierarchy import Hierarchical
from bayeswm.base.laws import Law
from bayeswm.base.one_step import log_prob_by_column
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import StructureWorlds, Worlds
from bayeswm.inference.filtering import window_log_likelihood
from bayeswm.inference.gaussian_belief import Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented
from bayeswm.inference.joint import Joint
from bayeswm.inference.likelihoods import GaussianLikelihood, Likelihood
from bayeswm.models.episode_worlds import EpisodeWorlds
from bayeswm.models.levels import EPISODE, SCALE, in_episodes, levels_of, sites, step_in_lanes
from bayeswm.models.sensing import Sensing
from bayeswm.models.window_likelihood import Windows, open_loop_log_likelihood
from bayeswm.structures.linear import Linear

NoiseLaw = float | Distribution
Columns = Mapping[str, tuple[NoiseLaw, float]]
NOISE, SENSORS = "process_noise", "sensor_noise"

# the noise never falls below this share of the data's own steps: where they are noise-free the density has no bound
_NOISE_FLOOR = 1e-5


@dataclass(frozen=True)
class Specification:
    """Laws of what is inferred, values of what is known, and the likelihood that joins them to data.

    Attributes
    ----------
    structure : Structure
        Bound to variables.
    likelihood : Likelihood
        Of one step around the structure's mean.
    noise, sensor_noise : mapping of str to tuple of (float or Distribution, float)
        Of each column of the state, and of each sensor: the standard deviation of its noise or its law, and what is
        added to it. No process noise where the structure predicts its own, no sensor noise where the state is measured.
    known : mapping of str to Tensor
        Values of parameters that are not inferred, without an axis for worlds.
    episodes : tuple of int
        Numbers of the recordings, for parameters that differ between them.
    added : mapping of str to Distribution
        Laws that the likelihood adds.
    sensing : Sensing, optional
        What sensors report.
    window : int, optional
        Steps of the windows that the likelihood runs over; by default one step, or with sensors whole episodes.
    """

    structure: Structure
    likelihood: Likelihood = field(default_factory=GaussianLikelihood)
    noise: Columns = field(default_factory=dict)
    sensor_noise: Columns = field(default_factory=dict)
    known: Mapping[str, Tensor] = field(default_factory=dict)
    episodes: tuple[int, ...] = ()
    added: Mapping[str, Distribution] = field(default_factory=dict)
    sensing: Sensing | None = None
    window: int | None = None

    @property
    def schema(self) -> Schema:
        """Variables, the measured ones among them."""
        return schema_of(self.structure) if self.sensing is None else self.sensing.schema

    @property
    def levels(self) -> dict[str, Hierarchical]:
        """Parameters that differ between episodes."""
        return levels_of(self.structure)

    @property
    def laws(self) -> dict[str, Distribution]:
        """Law of every number that is inferred; noise of a column is ``process_noise.<column>``."""
        own = {k: p.value for k, p in self.structure.parameters().items() if k not in self.levels}
        every: dict[str, Any] = {**own, **sites(self.levels, len(self.episodes)), **self.added}
        for name, columns in ((NOISE, self.noise), (SENSORS, self.sensor_noise)):
            every |= {f"{name}.{k}": law for k, (law, _) in columns.items()}
        return {k: v for k, v in every.items() if isinstance(v, Distribution)}

    def parameters(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what worlds need, (W, ...), from what is inferred: columns' noise as one, known values beside."""
        first = next(iter(values.values()))
        found = {k: v for k, v in values.items() if not k.startswith((f"{NOISE}.", f"{SENSORS}."))}
        for name, columns in ((NOISE, self.noise), (SENSORS, self.sensor_noise)):
            each = [
                values[f"{name}.{k}"] + floor if isinstance(law, Distribution) else first.new_full((len(first),), law)
                for k, (law, floor) in columns.items()
            ]
            if each:
                found[name] = torch.stack(each, -1)
        return {k: v.expand(len(first), *v.shape) for k, v in self.known.items()} | found

    def named(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what is inferred (W, ...) as a user thinks of it: values of episodes instead of their z."""
        every = self.parameters(values)
        found = {k: v for k, v in every.items() if k not in self.known}
        for name, value in in_episodes(self.levels, every).items():
            found[name] = value
            del found[f"{name}.{EPISODE}"]
        if self.noise and not any(isinstance(law, Distribution) for law, _ in self.noise.values()):
            found.pop(NOISE, None)
        if not any(isinstance(law, Distribution) for law, _ in self.sensor_noise.values()):
            found.pop(SENSORS, None)
        return found

    def worlds(self, values: Mapping[str, Tensor]) -> Worlds:
        """Return worlds of inferred parameters (W, ...); episodes to come are drawn from the population."""
        parameters = {k: v for k, v in self.parameters(values).items() if not k.endswith(f".{EPISODE}")}
        if self.levels:
            return EpisodeWorlds(self.structure, parameters, sensing=self.sensing)
        sensors = parameters.pop(SENSORS, None)
        law = None if isinstance(self.likelihood, GaussianLikelihood) else self._law
        worlds = StructureWorlds(self.structure, schema_of(self.structure), parameters, exhaustive=False, law=law)
        return worlds if self.sensing is None else self.sensing.worlds(worlds, sensors)

    def joint(self, trajectories: Trajectories) -> Joint:
        """Return the joint density of the parameters and the trajectories.

        A row is one transition where the likelihood is of one step, else a window.
        """
        if self.sensing is None and self.window in (None, 1):
            return self._one_step(transitions(trajectories), trajectories.episode)
        return self._windowed(trajectories)

    def _one_step(self, data: Transitions, recording: Tensor) -> Joint:
        episode = self._index(recording)[data.episode]

        def predict(values: Mapping[str, Tensor], rows: Tensor | None) -> tuple[Tensor, Tensor]:
            mean, scale, *_ = self._transitions(values, data, episode, rows)
            return mean[:, 0], scale.expand(mean.shape)[:, 0]

        def log_likelihood(values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
            law = self._transition_law(values, data, episode, rows)
            return law.log_prob(data.next_state if rows is None else data.next_state[rows])[:, 0]

        exact = isinstance(self.likelihood, GaussianLikelihood)
        columns = list(self.noise)
        return Joint(
            self.laws,
            log_likelihood,
            terms=len(data.state),
            predict=predict if exact else None,
            target=data.next_state if exact else None,
            noise={f"{NOISE}.{k}": (columns.index(k), self.noise[k][1]) for k in columns},
            scaled_by=self._centred(),
            layers={k: v for k, v in self.structure.layers().items() if k in self.laws},
        )

    def _windowed(self, trajectories: Trajectories) -> Joint:
        schema, sensing = self.schema, self.sensing
        measured = trajectories.measured_as(schema) if sensing is not None else trajectories.states()
        windows = Windows.of(trajectories, measured, self.window)
        episode = self._index(windows.episode)
        method = sensing.method if sensing is not None else _method(self.structure)
        belief = None if sensing is None else (sensing.belief.mean, sensing.belief.spread)

        def log_likelihood(values: Mapping[str, Tensor], rows: Tensor | None) -> Tensor:
            part, where = windows.rows(rows), episode if rows is None else episode[rows]
            parameters = self.parameters(values)
            own = self._own(parameters, where)

            def transition(  # noqa: PLR0917 (hot path)
                state: Tensor, action: Tensor, context: Tensor, t: int
            ) -> tuple[Tensor, Tensor | None]:
                return self._step(parameters, own, state, action, context, part.start + t)

            noise = parameters.get(NOISE)
            if belief is None or sensing is None:
                if not isinstance(method, Unscented | LinearGaussian):  # made above
                    raise SpecError(f"expected a Gaussian way to carry a covariance along, got {method!r}")
                return open_loop_log_likelihood(method, transition, part, process_noise=noise)
            mean, scale = (v.to(noise if noise is not None else v) for v in belief)
            columns = tuple(schema.state.column(k) for k in schema.measured.columns)
            return window_log_likelihood(
                method,
                transition,
                initial_mean=mean,
                initial_scale=scale,
                measurements=part.measured,
                actions=part.action,
                context=part.context,
                process_noise=noise,
                sensors=Sensors(columns, parameters[SENSORS]),
            )

        return Joint(self.laws, log_likelihood, terms=len(windows.start), scaled_by=self._centred())

    def _transitions(  # noqa: PLR0917 (hot path)
        self, values: Mapping[str, Tensor], data: Transitions, episode: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Any]:
        """Return mean and noise of recorded transitions, with the parameters and inputs that they come from."""
        part = data if rows is None else Transitions(*(v[rows] for v in data))
        parameters = self.parameters(values)
        inputs = (part.state[None, None], part.action, part.context)
        where = episode if rows is None else episode[rows]
        mean, scale = self._step(parameters, self._own(parameters, where), *inputs, part.step)
        if NOISE in parameters:
            scale = parameters[NOISE][:, None, None]
        if scale is None:  # noise is given wherever the structure has none
            raise SpecError(f"expected noise from {self.structure.name} or the model, got none")
        return mean, scale, parameters, inputs

    def _transition_law(  # noqa: PLR0917 (hot path)
        self, values: Mapping[str, Tensor], data: Transitions, episode: Tensor, rows: Tensor | None
    ) -> Law:
        mean, scale, parameters, inputs = self._transitions(values, data, episode, rows)
        return self.likelihood.law(mean, scale, schema=self.schema, parameters=parameters, inputs=inputs)

    def _own(self, parameters: Mapping[str, Tensor], episode: Tensor) -> dict[str, Tensor]:
        """Return what differs between episodes for rows (n,) of the data from these episodes, shape (W, n)."""
        return {k: v[:, episode] for k, v in in_episodes(self.levels, parameters).items()}

    def _step(  # noqa: PLR0917 (hot path)
        self,
        parameters: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        state: Tensor,
        action: Tensor,
        context: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the structure's step; the last axis of the batch are rows of the data, with numbers of their own."""
        shared = {k: parameters[k] for k in self.structure.parameters() if k not in self.levels}
        if not self.levels:
            return self.structure.batched(shared, state, action, context, step)
        between = (1,) * (state.ndim - 3)
        each = {k: v.view(len(v), *between, -1) for k, v in own.items()}
        return step_in_lanes(self.structure, shared, each, state, action, context, step)

    def _centred(self) -> dict[str, str]:
        """Return in units of which parameters episodes have their coordinates: data usually say much of each."""
        uncertain = [k for k, law in self.levels.items() if isinstance(law.scale, Distribution)]
        return {f"{k}.{EPISODE}": f"{k}.{SCALE}" for k in uncertain}

    def _index(self, recording: Tensor) -> Tensor:
        """Return where each recording stands among the episodes."""
        if not self.levels:
            return torch.zeros_like(recording)
        return torch.searchsorted(torch.tensor(self.episodes), recording.contiguous())

    def _law(self, mean: Tensor, scale: Tensor, **given: Any) -> Any:
        return self.likelihood.law(mean, scale, schema=self.schema, **given)

    def transition_law(self, values: Mapping[str, Tensor], trajectories: Trajectories) -> Law:
        """Return the law of what followed each recorded transition, its episode's own parameters given."""
        data = transitions(trajectories)
        return self._transition_law(values, data, self._index(trajectories.episode)[data.episode], None)

    def pointwise(self, values: Mapping[str, Tensor], trajectories: Trajectories) -> dict[str, Tensor]:
        """Return the log likelihood of each part of the data, (W, n) by name.

        Parts are the columns of transitions, as of :func:`bayeswm.base.one_step.log_prob_by_column`, or each
        ``window``.
        """
        if self.sensing is not None or self.window not in (None, 1):
            return {"window": self.joint(trajectories).log_likelihood(values, None)}
        columns = self.schema.state.columns
        return log_prob_by_column(self.transition_law(values, trajectories), transitions(trajectories), columns)


def specify(
    structure: Structure,
    trajectories: Trajectories | None,
    *,
    noise: Mapping[str, NoiseLaw],
    sensor_noise: Mapping[str, NoiseLaw],
    likelihood: Likelihood,
    sensing: Sensing | None,
    window: int | None,
) -> Specification:
    """Return the specification of a model, with scales taken from training data.

    Parameters
    ----------
    structure : Structure
        Bound to the data's variables.
    trajectories : Trajectories, optional
        In float64. Without them it is the specification of the prior, with one episode to come.
    noise, sensor_noise : mapping of str to float or Distribution
        What is said of the noise of some columns, and of all sensors.
    likelihood, sensing, window
        As of :class:`Specification`.

    Raises
    ------
    SpecError
        If scales are needed of columns that were not measured, or parameters of episodes meet other noise than Gaussian
        of constant size.

    Warns
    -----
    DataWarning
        For a column that never changes.
    """
    schema = schema_of(structure)
    data = None if trajectories is None else _steps(trajectories, schema, sensing)
    parameters = structure.parameters()
    values = {k: _central(p.value)[None] for k, p in parameters.items()}
    if data is not None:
        values = structure.standardise(values, data)
    elif type(structure).standardise is not Structure.standardise or not isinstance(likelihood, GaussianLikelihood):
        why = "data to fit to" if trajectories is None else "all of the state to be measured"
        raise SpecError(f"expected {why}, which {structure.name} or the likelihood takes its scales from")
    values = {k: v[0] for k, v in values.items()}
    columns = {} if not noise and _own_noise(structure, values) else _columns(schema, data, noise)
    episodes = (0,) if trajectories is None else tuple(trajectories.episode.unique().tolist())
    levels = ", ".join(levels_of(structure))
    if levels and not (columns and isinstance(likelihood, GaussianLikelihood)):
        got = type(likelihood).__name__ if columns else f"the noise of {structure.name}"
        raise SpecError(
            f"expected Gaussian noise of constant size with parameters of episodes ({levels}), got {got}; "
            "give noise=, or one value for all episodes"
        )
    known = {k: v for k, v in values.items() if not parameters[k].uncertain}
    known |= {k: v for k, v in sites(levels_of(structure), 0).items() if isinstance(v, Tensor)}
    added = {} if data is None else likelihood.parameters(schema, data)
    return Specification(
        structure,
        likelihood,
        columns,
        {k: (v, 0.0) for k, v in sensor_noise.items()},
        {k: v for k, v in added.items() if isinstance(v, Tensor)} | known,
        episodes if levels_of(structure) else (),
        {k: v for k, v in added.items() if isinstance(v, Distribution)},
        sensing,
        window,
    )


def schema_of(structure: Structure) -> Schema:
    """Return the variables of a bound structure.

    Raises
    ------
    SpecError
        If it takes those of the data and has not seen any.
    """
    if structure.schema is None:
        raise SpecError(f"expected a structure with a schema, got {structure.name}, which learns its variables: fit it")
    return structure.schema


def transitions(trajectories: Trajectories) -> Transitions:
    """Return all steps in float64 on the CPU."""
    on_cpu = trajectories.to(torch.device("cpu"))
    return Transitions(*(v.double() if v.is_floating_point() else v for v in on_cpu.transitions()))


def _steps(trajectories: Trajectories, schema: Schema, sensing: Sensing | None) -> Transitions | None:
    """Return recorded steps for scales: measured states stand for the states; None where some are never measured."""
    if sensing is None:
        return transitions(trajectories)
    if sensing.schema.measured.columns != schema.state.columns:
        return None
    measured = trajectories.measured_as(sensing.schema)
    return transitions(trajectories._like(replace_state(trajectories.schema), state=measured))


def replace_state(schema: Schema) -> Schema:
    """Return the schema without its observation: what was measured counts as the state."""
    return Schema(state=schema.state, action=schema.action, context=schema.context, time_step=schema.time_step)


def _method(structure: Structure) -> Unscented | LinearGaussian:
    return LinearGaussian() if isinstance(structure, Linear) else Unscented()


def _central(value: float | Tensor | Distribution) -> Tensor:
    """Return a value, or of a law its mean or, where it has none, its value at 0 in unconstrained coordinates."""
    if not isinstance(value, Distribution):
        return torch.as_tensor(value, dtype=torch.float64)
    try:
        mean = value.mean.double()
    except NotImplementedError:
        mean = torch.full(value.batch_shape + value.event_shape, torch.nan)
    if bool(mean.isfinite().all()):
        return mean
    return torch.distributions.biject_to(value.support)(torch.zeros(mean.shape, dtype=torch.float64))


def _own_noise(structure: Structure, values: Mapping[str, Tensor]) -> bool:
    """Whether the structure predicts its noise itself."""
    schema = schema_of(structure)
    groups = (schema.state, schema.action, schema.context)
    state, action, context = (torch.zeros(g.size, dtype=torch.float64) for g in groups)
    return structure.transition(values, state, action, context, 0)[1] is not None


def _columns(schema: Schema, data: Transitions | None, named: Mapping[str, NoiseLaw]) -> Columns:
    size = None if data is None else (data.next_state - data.state).square().mean(0).sqrt().tolist()
    found: dict[str, tuple[NoiseLaw, float]] = {}
    for i, name in enumerate(schema.state.columns):
        if name in named:
            found[name] = (named[name], 0.0)
            continue
        if size is None:
            raise SpecError(f"expected noise= of {name!r}, whose size no data tell, got none")
        if size[i] == 0:
            warnings.warn(f"{name} never changes: its noise has the prior of scale 1", DataWarning, stacklevel=4)
        s = size[i] or 1.0
        found[name] = (HalfNormal(torch.tensor(s, dtype=torch.float64)), _NOISE_FLOOR * s)
    return found
