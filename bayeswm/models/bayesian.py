"""Bayesian dynamics: a structure whose parameters have laws, and the posterior of these given data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayeswm.base.arrays import bounds_were_checked
from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.priors import decode, encode, positive
from bayeswm.base.random import make_generator, permutation
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.inference.conjugate import Conjugate
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.filtering import Filter
from bayeswm.inference.hmc import HMC
from bayeswm.inference.joint import Inference, Inferred
from bayeswm.inference.likelihoods import GaussianLikelihood, Likelihood
from bayeswm.models.pyro_specification import PyroModel, PyroSpecification
from bayeswm.models.sensing import Sensing
from bayeswm.models.specification import NoiseLaw, Specification, schema_of, specify

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class PosteriorDiagnostics:
    """Whether a posterior held as draws can be trusted.

    Attributes
    ----------
    r_hat, ess_bulk : mapping of str to Tensor
        Split rank-normalised R-hat and effective draws of each inferred parameter, in the parameter's shape.
    divergences : int
        Divergent steps of a sampler after its warm-up.
    statistics : mapping of str to float
        Figures of the way of inference: a sampler's ``step_size``, ``acceptance``, ...; ``log_evidence`` of those that
        know it; after ``condition`` by tempering the number of ``stages``, the smallest effective sample size as a
        share of the draws (``weight_share``) and the largest ``pareto_k``.
    """

    r_hat: Mapping[str, Tensor]
    ess_bulk: Mapping[str, Tensor]
    divergences: int
    statistics: Mapping[str, float]


class BayesianDynamics(DynamicsModel):
    """A structure with a posterior over its parameters: each world is one posterior draw.

    Parameters of the structure that are laws have these as priors; the others are known. The likelihood is that of one
    step, with independent noise on each column of the state. The noise's standard deviation of a column has
    by default the prior 1e-5 s + HalfNormal(s), where s is the root mean square change of that column in one step of
    the training data (1 where it never changes): noise as large as the motion itself is about the largest that is
    believed, and where data are free of noise it stays above 0.

    Parameters
    ----------
    structure : Structure
        With at least one parameter that is a law. One without a schema takes the variables of the data.
    inference : Inference, optional
        From the joint density to the posterior; ``HMC()`` by default.
    noise : float, Distribution, or mapping of str to float or Distribution, optional
        Standard deviation of the process noise in the variables' units, known (a number above 0) or with a prior of
        your own, for all columns of the state or by column; columns that are not named keep the default prior. A
        structure that predicts its noise itself keeps doing so unless this is given.
    likelihood : Likelihood, optional
        How the next state scatters around the structure's mean; ``GaussianLikelihood()`` by default.
    window : int, optional
        Steps over which the likelihood runs; by default one, or with sensors the whole episode. Without sensors,
        states are forecast over a window from its first one and scored without correction, so that errors of the mean
        add up as they do in use: more robust than one step where the structure is not the whole truth.
    sensor_noise : float, Distribution, or mapping of str to float or Distribution, optional
        Standard deviation of the sensors' noise, known or with a law: recorded values are then measurements, and the
        state is hidden, inferred along each window. By name, columns that are left out are not measured at all.
        Process noise may then be 0.
    belief : mapping of str to Normal, optional
        With sensors: what is known of the state at the start of a window, by column. Needed for columns that are not
        measured; the others start at their first measurement.
    filtering : bayeswm.inference.Unscented, LinearGaussian or ParticleFilter, optional
        With sensors: how beliefs are moved; exact for a linear structure, unscented for others.
    pyro_model : callable, optional
        A Pyro model of your own, which then is all that is said of laws and likelihood: it takes the data's
        :class:`~bayeswm.Transitions`, and its sites have the names and shapes of the structure's uncertain parameters,
        and ``process_noise`` (S,) unless ``noise`` is known. Further sites are in the posterior, but not in worlds.

    Raises
    ------
    SpecError, UnknownVariableError
        If nothing is uncertain, a law of a positive parameter reaches below 0, or the noise makes no sense.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from torch.distributions import LogNormal
    >>> g = torch.Generator().manual_seed(0)
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=1.2), noise=0.02)
    >>> start, torque = torch.zeros(4, 2), 4 * torch.rand(4, 25, 1, generator=g) - 2
    >>> paths = bwm.rollout(truth, start, torque, particles=1, generator=g).particles[0, 0]
    >>> data = bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=torque)
    >>> model = BayesianDynamics(structure=bwm.structures.Pendulum(mass=LogNormal(0.0, 0.5)))
    >>> mass = model.fit(data, seed=0, progress=False).posterior["mass"]
    >>> mass.shape, bool((mass.mean() - 1.2).abs() < 3 * mass.std())
    (torch.Size([64, 400]), True)
    """

    def __init__(
        self,
        *,
        structure: Structure,
        inference: Inference | None = None,
        noise: NoiseLaw | Mapping[str, NoiseLaw] | None = None,
        likelihood: Likelihood | None = None,
        window: int | None = None,
        sensor_noise: NoiseLaw | Mapping[str, NoiseLaw] | None = None,
        belief: Mapping[str, Normal] | None = None,
        filtering: Filter | None = None,
        pyro_model: PyroModel | None = None,
    ) -> None:
        self.structure = structure
        self.inference = HMC() if inference is None else inference
        self.likelihood = GaussianLikelihood() if likelihood is None else likelihood
        for name, value, kind in (
            ("inference", self.inference, Inference),
            ("likelihood", self.likelihood, Likelihood),
        ):
            if not isinstance(value, kind):
                example = "HMC()" if kind is Inference else "GaussianLikelihood()"
                raise SpecError(
                    f"expected {name} to be an object such as {example} of bayeswm.inference, got {value!r}"
                )
        self.noise = dict(noise) if isinstance(noise, Mapping) else noise
        self.window, self.belief, self.filtering = window, belief, filtering
        self.sensor_noise = dict(sensor_noise) if isinstance(sensor_noise, Mapping) else sensor_noise
        if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
            raise SpecError(f"expected window >= 1 in steps, got {window!r}")
        if sensor_noise is None and (belief is not None or filtering is not None):
            raise SpecError("expected belief= and filtering= together with sensor_noise=, got them alone")
        self.pyro_model = pyro_model
        if pyro_model is not None and (likelihood, window, sensor_noise) != (None, None, None):
            raise SpecError("expected pyro_model= without likelihood=, window= and sensor_noise=: it says these itself")
        several = sensor_noise is not None or window not in (None, 1)
        if several and not isinstance(self.likelihood, GaussianLikelihood):
            raise SpecError(f"expected a Gaussian likelihood over windows, got {type(self.likelihood).__name__}")
        if structure.schema is not None:
            _check(structure)
            self._read(structure)
        self._seed = 0
        self._data: Trajectories | None = None
        self._specification: Specification | None = None
        self._inferred: Inferred | None = None
        self._diagnostics: PosteriorDiagnostics | None = None

    # --- what was learned -----------------------------------------------------------------------------------------

    @property
    @override
    def schema(self) -> Schema:
        return schema_of(self.structure) if self._specification is None else self._specification.schema

    @property
    def _fitted(self) -> tuple[Specification, Inferred, Trajectories]:
        if self._specification is None or self._inferred is None or self._data is None:
            raise SpecError("expected a fitted model: call .fit(trajectories, seed=0) first")
        return self._specification, self._inferred, self._data

    @property
    def posterior(self) -> dict[str, Tensor]:
        """Draws of what was inferred, by name.

        Each uncertain parameter (chains, draws, ...), one value an episode of those that differ between episodes, with
        ``<name>.location`` and ``<name>.scale`` of their population; ``process_noise`` (chains, draws, S) and
        ``sensor_noise`` (chains, draws, M) where they were not known.
        """
        specification, inferred, _ = self._fitted
        given = specification.named({k: v.flatten(0, 1) for k, v in inferred.values.items()})
        chains, draws = next(iter(inferred.values.values())).shape[:2]
        return {k: v.unflatten(0, (chains, draws)) for k, v in given.items()}

    @property
    def diagnostics(self) -> PosteriorDiagnostics:
        """R-hat, effective sample sizes, divergences and the figures of the way of inference."""
        _, inferred, _ = self._fitted
        if self._diagnostics is None:
            named = Inferred(self.posterior)
            divergences = int(inferred.statistics.get("divergences", 0))
            self._diagnostics = PosteriorDiagnostics(named.r_hat, named.ess_bulk, divergences, inferred.statistics)
        return self._diagnostics

    # --- learning -------------------------------------------------------------------------------------------------

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Infer the parameters given all steps of the trajectories.

        Parameters
        ----------
        trajectories : Trajectories
            Recorded states and actions.
        seed : int
            Decides the chains' starts and moves.
        progress : bool
            Show a progress bar.

        Returns
        -------
        BayesianDynamics
            The model itself.

        Raises
        ------
        SpecError, DataError, FitError
            Without a seed; for data that do not fit; if the sampler finds no start or every trajectory diverges.

        Warns
        -----
        FitWarning
            If R-hat is above 1.01, an effective sample size below 400, or more than one step in 1,000 diverged.
        """
        if seed is None:
            raise SpecError("expected seed= (an integer), got none; the same seed gives the same model")
        with torch.inference_mode(False), torch.no_grad():
            structure = self.structure.bind(trajectories.schema)
            if structure is not self.structure:
                _check(structure)
            data = trajectories.to(torch.device("cpu")).to(torch.float64)
            specification = self._specify(structure, data)
            if self.pyro_model is not None:
                specification = PyroSpecification.of(self.pyro_model, specification, data)
            joint = specification.joint(data)
            inferred = self.inference.infer(joint, generator=make_generator(seed), progress=progress)
        self.structure, self._seed, self._data = structure, seed, data
        self._specification, self._inferred, self._diagnostics = specification, inferred, None
        return self

    def _specify(self, structure: Structure, data: Trajectories | None) -> Specification:
        noise, sensor_noise, sensing = self._read(structure)
        return specify(
            structure,
            data,
            noise=noise,
            sensor_noise=sensor_noise,
            likelihood=self.likelihood,
            sensing=sensing,
            window=self.window,
        )

    def _read(self, structure: Structure) -> tuple[dict[str, NoiseLaw], dict[str, NoiseLaw], Sensing | None]:
        """Return what was said of the process noise and of the sensors, by column, checked against the variables."""
        schema = schema_of(structure)
        if not schema.state.flat:
            raise SpecError("expected real variables and angles in the state: the likelihood is one of columns")
        noise = by_column("noise", self.noise, schema.state.columns, least=None if self.sensor_noise is None else 0.0)
        if self.sensor_noise is None:
            return noise, {}, None
        sensors = by_column("sensor_noise", self.sensor_noise, schema.measured.columns)
        scales = {k: float(v.mean) if isinstance(v, Distribution) else float(v) for k, v in sensors.items()}
        return noise, sensors, Sensing.of(structure, scales, belief=self.belief, filtering=self.filtering)

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        """Return posterior draws picked at random: each at most once while there are enough."""
        specification, inferred, _ = self._fitted
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since worlds are drawn from the posterior, got none")
        count = inferred.draws
        rounds = [permutation(count, generator, device="cpu") for _ in range(-(-worlds // count))]
        picked = torch.cat(rounds)[:worlds]
        return specification.worlds({k: v.flatten(0, 1)[picked] for k, v in inferred.values.items()})

    def nodes(self, order: int = 20) -> Worlds:
        """Return a normal posterior as worlds at the nodes of a Gauss-Hermite rule, with its weights, and not as draws.

        What is asked of these worlds has no sampling error over worlds: means and variances of answers that are
        polynomials of the parameters, such as one step of a linear system, are exact. They are the whole posterior,
        which with many parameters are too many worlds.

        Parameters
        ----------
        order : int
            Nodes along each direction in which the posterior is uncertain.

        Raises
        ------
        SpecError
            If the inference is not :class:`bayeswm.inference.Conjugate`, the noise is not known, or there are more than
            10,000 nodes.

        Examples
        --------
        s1 = theta a + w with theta ~ N(1, 1) and w ~ N(0, 1), of which a = 1, s1 = 2 was seen. Under a = 3 it would
        have been 2 + 2 theta, theta ~ N(1.5, 0.5):

        >>> import bayeswm as bwm
        >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
        >>> structure = bwm.structures.Linear(schema, A=0.0, B=torch.distributions.Normal(1.0, 1.0))
        >>> model = BayesianDynamics(structure=structure, noise=1.0, inference=bwm.inference.Conjugate())
        >>> seen = bwm.Trajectories(schema, state=[[[0.0], [2.0]]], action=[[[1.0]]])
        >>> nodes = model.fit(seen, seed=0, progress=False).nodes()
        >>> found = bwm.causal.counterfactual(nodes, seen, bwm.do(a=3.0), in_training=True)
        >>> round(found.mean.item(), 6), round(found.variance.item(), 6)
        (5.0, 2.0)
        """
        specification, _, data = self._fitted
        if not isinstance(self.inference, Conjugate):
            raise SpecError(f"expected inference=Conjugate() for nodes of a posterior, got {self.inference!r}")
        with torch.no_grad():
            values, log_weight = self.inference.nodes(specification.joint(data), order=order)
            return specification.worlds(values).reweight(log_weight, exhaustive=True)

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> Worlds:
        """Draw worlds from the laws of the parameters and the noise.

        Where these take their scales from data (the default prior of the noise, an ``MLP``), they are those of a fitted
        model, and an unfitted one has no prior yet.
        """
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        if self.pyro_model is not None:
            raise SpecError("expected laws of the structure to draw from, got a Pyro model, which needs data to run")
        specification = self._specify(self.structure, None) if self._specification is None else self._specification
        space = Unconstrained(specification.laws)
        with torch.no_grad():
            return specification.worlds(space.constrain(space.sample(worlds, generator))[0])

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return a new model whose posterior is given new trajectories too.

        What the way of inference does: those in closed form are exact, Markov chains take the new data in by tempered
        importance resampling and rejuvenation (see :func:`bayeswm.inference.temper`), the others infer afresh from all
        data. Scales of noise and inputs stay those of the first training data.

        Parameters
        ----------
        trajectories : Trajectories
            New data.
        in_training : bool
            The data were in the training set: they count already, and the model comes back as it is.

        Raises
        ------
        DataError, SpecError
            For data that do not fit.
        FitError
            If the draws cannot take the new data in: fit again on all of them.
        """
        specification, inferred, data = self._fitted
        if in_training:
            return self
        self.structure.bind(trajectories.schema)
        new = copy.copy(self)
        with torch.inference_mode(False), torch.no_grad():
            more = trajectories.to(torch.device("cpu")).to(torch.float64)
            both, generator = Trajectories.concatenate([data, more]), make_generator(self._seed + 1)
            if specification.levels:  # new episodes have parameters of their own
                specification = replace(specification, episodes=tuple(both.episode.unique().tolist()))
                new._specification = specification
                new._inferred = self.inference.infer(specification.joint(both), generator=generator)
            else:
                joint, since = specification.joint(both), specification.joint(data).terms
                if since < joint.terms:
                    new._inferred = self.inference.update(joint, since, inferred, generator=generator)
                else:  # a Pyro model without a plate over the rows
                    new._inferred = self.inference.infer(joint, generator=generator)
        new._data, new._seed, new._diagnostics = both, self._seed + 1, None
        return new

    @override
    def to_datatree(
        self,
        trajectories: Trajectories | None = None,
        *,
        prior: bool = False,
        draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> xarray.DataTree:
        """Return the posterior as an ArviZ tree, chains as they were sampled.

        Parameters
        ----------
        trajectories : Trajectories, optional
            Other data than those that the posterior is given, which the model keeps; ``az.loo`` needs the latter.
        prior : bool
            Add ``prior`` and ``prior_predictive``, one chain of as many draws as a chain of the posterior.
        draws : int, optional
            Draws of each chain to keep, evenly spaced; all by default.
        generator : torch.Generator, optional
            Draws process noise and the prior. By default one of seed 0, so that the same model gives the same tree.

        Returns
        -------
        xarray.DataTree
            As :meth:`bayeswm.base.DynamicsModel.to_datatree` says, with ``sample_stats`` and ``log_prior`` too. Where
            the likelihood is of windows, ``log_likelihood`` has one value ``window`` for each; where there are sensors,
            ``observed_data`` are the measurements and nothing is predicted.

        Raises
        ------
        SpecError
            If the model is not fitted, the data have episodes whose own parameters are not known, or the tree would not
            fit into memory.
        """
        from bayeswm.models.labelled_draws import inferred_to_datatree

        specification, inferred, data = self._fitted
        if draws is not None and draws < 1:
            raise SpecError(f"expected draws >= 1, got {draws}")
        if trajectories is not None:
            self.structure.bind(trajectories.schema)
            unknown = sorted({*trajectories.episode.tolist()} - {*specification.episodes})
            if specification.levels and unknown:
                raise SpecError(
                    f"expected episodes that the model was fitted to, got {unknown}; condition on them first"
                )
        return inferred_to_datatree(
            specification,
            inferred,
            data if trajectories is None else trajectories,
            prior=prior,
            draws=draws,
            generator=make_generator(0 if generator is None else generator),
        )

    # --- files ----------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        specification, inferred, data = self._fitted
        if self.pyro_model is not None:
            raise SpecError(
                "cannot save a Pyro model of your own: keep model.posterior, or fit with the structure's laws"
            )
        config = {
            "inference": {"name": type(self.inference).__name__, "config": self.inference.config()},
            "likelihood": {"name": type(self.likelihood).__name__, "config": self.likelihood.config()},
            "noise": _encoded(self.noise),
            "sensor_noise": _encoded(self.sensor_noise),
            "window": self.window,
            "sensing": None if specification.sensing is None else specification.sensing.config(),
            "columns": {k: [encode(law), floor] for k, (law, floor) in specification.noise.items()},
            "added": {k: encode(law) for k, law in specification.added.items()},
            "episodes": list(specification.episodes),
            "statistics": dict(inferred.statistics),
            "schema": data.schema.to_dict(),
            "seed": self._seed,
        }
        tensors = {f"value.{k}": v for k, v in inferred.values.items()}
        tensors |= {f"stat.{k}": v for k, v in inferred.sample_stats.items()}
        tensors |= {f"known.{k}": v for k, v in specification.known.items()}
        return plain(config), tensors | {f"data.{k}": v for k, v in data.arrays().items() if v is not None}

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> BayesianDynamics:
        if structure is None:
            raise SpecError("expected a structure in the file, got none")
        way, scatter = config["inference"], config["likelihood"]
        inference = Inference.registry[way["name"]].from_config(way["config"])
        likelihood = Likelihood.registry[scatter["name"]].from_config(scatter["config"])
        sensing = None if config["sensing"] is None else Sensing.from_config(structure, config["sensing"])
        model = cls(
            structure=structure,
            inference=inference,
            noise=_decoded(config["noise"]),
            likelihood=likelihood,
            window=config["window"],
            sensor_noise=_decoded(config["sensor_noise"]),
            belief=None if sensing is None else sensing.named_belief(),
            filtering=None if sensing is None else sensing.method,
        )

        def group(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v.clone() for k, v in tensors.items() if k.startswith(f"{name}.")}

        with bounds_were_checked():
            model._data = Trajectories(Schema.from_dict(config["schema"]), **group("data"), allow_missing=True)
        model._specification = Specification(
            structure,
            likelihood,
            {k: (decode(law), float(floor)) for k, (law, floor) in config["columns"].items()},
            {k: (v, 0.0) for k, v in model._read(structure)[1].items()} if sensing is not None else {},
            group("known"),
            tuple(config["episodes"]),
            {k: decode(v) for k, v in config["added"].items()},
            sensing,
            config["window"],
        )
        model._inferred = Inferred(group("value"), group("stat"), dict(config["statistics"]))
        model._seed = int(config["seed"])
        return model


def _check(structure: Structure) -> None:
    """Refuse a structure without laws, or with a law that leaves what a parameter may be."""
    parameters = structure.parameters()
    if not any(p.uncertain for p in parameters.values()):
        raise SpecError(
            f"expected at least one parameter of {structure.name} to be a law, got none among "
            f"({', '.join(parameters)}); give one a torch.distributions law, or use KnownDynamics"
        )
    structure.check_parameters()


def by_column(
    what: str, given: NoiseLaw | Mapping[str, NoiseLaw] | None, columns: tuple[str, ...], *, least: float | None = None
) -> dict[str, NoiseLaw]:
    """Return what the caller said of the noise, by column; a known one is above 0, or at least ``least``."""
    if given is None:
        return {}
    named = given if isinstance(given, Mapping) else dict.fromkeys(columns, given)
    for name, value in named.items():
        if name not in columns:
            raise UnknownVariableError.of(name, columns)
        if isinstance(value, Distribution):
            right = positive(value) and not value.batch_shape + value.event_shape
        else:
            right = (float(value) > 0 if least is None else least <= float(value)) and float(value) < float("inf")
        if not right:
            raise SpecError(f"{what} of {name}: expected a number > 0 or a law of one such number, got {value!r}")
    return dict(named)


def _encoded(noise: NoiseLaw | Mapping[str, NoiseLaw] | None) -> dict[str, Any]:
    if isinstance(noise, Mapping):
        return {"by_name": True, "value": {k: encode(v) for k, v in noise.items()}}
    return {"by_name": False, "value": encode(noise)}


def _decoded(saved: Mapping[str, Any]) -> Any:
    value = saved["value"]
    return {k: decode(v) for k, v in value.items()} if saved["by_name"] else decode(value)
