"""Bayesian dynamics: a structure whose parameters have laws, and the posterior of these given data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.priors import decode, encode
from bayeswm.base.random import make_generator, permutation
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import StructureWorlds
from bayeswm.inference.hmc import HMC
from bayeswm.inference.joint import Inference, Inferred
from bayeswm.inference.likelihoods import GaussianLikelihood, Likelihood
from bayeswm.models.specification import NoiseLaw, Specification, schema_of, transitions

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
    ) -> None:
        self.structure = structure
        self.inference = HMC() if inference is None else inference
        self.likelihood = GaussianLikelihood() if likelihood is None else likelihood
        self.noise = dict(noise) if isinstance(noise, Mapping) else noise
        if structure.schema is not None:
            _check(structure)
            _named_noise(structure.schema, self.noise)
        self._seed = 0
        self._data: Trajectories | None = None
        self._specification: Specification | None = None
        self._inferred: Inferred | None = None
        self._diagnostics: PosteriorDiagnostics | None = None

    # --- what was learned -----------------------------------------------------------------------------------------

    @property
    @override
    def schema(self) -> Schema:
        return schema_of(self.structure)

    @property
    def _fitted(self) -> tuple[Specification, Inferred, Trajectories]:
        if self._specification is None or self._inferred is None or self._data is None:
            raise SpecError("expected a fitted model: call .fit(trajectories, seed=0) first")
        return self._specification, self._inferred, self._data

    @property
    def posterior(self) -> dict[str, Tensor]:
        """Draws of each uncertain parameter (chains, draws, ...), and of ``process_noise`` (chains, draws, S)."""
        specification, inferred, _ = self._fitted
        flat = {k: v.flatten(0, 1) for k, v in inferred.values.items()}
        given = {k: v for k, v in specification.parameters(flat).items() if k not in specification.known}
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
            noise = _named_noise(schema_of(structure), self.noise)
            specification = Specification.of(structure, transitions(data), noise=noise, likelihood=self.likelihood)
            joint = specification.joint(data)
            inferred = self.inference.infer(joint, generator=make_generator(seed), progress=progress)
        self.structure, self._seed, self._data = structure, seed, data
        self._specification, self._inferred, self._diagnostics = specification, inferred, None
        return self

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructureWorlds:
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
            both = Trajectories.concatenate([data, more])
            joint, since = specification.joint(both), specification.joint(data).terms
            generator = make_generator(self._seed + 1)
            new._inferred = self.inference.update(joint, since, inferred, generator=generator)
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
            Groups ``posterior``, ``sample_stats``, ``log_likelihood``, ``log_prior``, ``posterior_predictive`` and
            ``observed_data``: see :meth:`DynamicsModel.to_datatree`.

        Raises
        ------
        SpecError
            If the model is not fitted, or the tree would not fit into memory.
        """
        from bayeswm.models.labelled_draws import inferred_to_datatree

        specification, inferred, data = self._fitted
        if draws is not None and draws < 1:
            raise SpecError(f"expected draws >= 1, got {draws}")
        if trajectories is not None:
            self.structure.bind(trajectories.schema)
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
        noise = {k: encode(v) for k, v in self.noise.items()} if isinstance(self.noise, Mapping) else encode(self.noise)
        config = {
            "inference": {"name": type(self.inference).__name__, "config": self.inference.config()},
            "likelihood": {"name": type(self.likelihood).__name__, "config": self.likelihood.config()},
            "noise": {"by_name": isinstance(self.noise, Mapping), "value": noise},
            "columns": {k: [encode(law), floor] for k, (law, floor) in specification.noise.items()},
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
        saved = config["noise"]
        noise = {k: decode(v) for k, v in saved["value"].items()} if saved["by_name"] else decode(saved["value"])
        way, scatter = config["inference"], config["likelihood"]
        inference = Inference.registry[way["name"]].from_config(way["config"])
        likelihood = Likelihood.registry[scatter["name"]].from_config(scatter["config"])
        model = cls(structure=structure, inference=inference, noise=noise, likelihood=likelihood)

        def group(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v.clone() for k, v in tensors.items() if k.startswith(f"{name}.")}

        model._data = Trajectories(Schema.from_dict(config["schema"]), **group("data"), allow_missing=True)
        model._specification = Specification.restored(
            structure,
            transitions(model._data),
            columns={k: (decode(law), float(floor)) for k, (law, floor) in config["columns"].items()},
            likelihood=likelihood,
            known=group("known"),
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
    for name, p in parameters.items():
        if p.positive and isinstance(p.value, Distribution) and not _positive(p.value):
            raise SpecError(f"{name}: expected a law of numbers > 0, got {type(p.value).__name__}; try LogNormal")


def _named_noise(schema: Schema, noise: NoiseLaw | Mapping[str, NoiseLaw] | None) -> dict[str, NoiseLaw]:
    """Return what the caller said of the noise, by column."""
    if not schema.state.flat:
        raise SpecError("expected real variables and angles in the state: the likelihood is one of columns")
    columns = schema.state.columns
    if noise is None:
        return {}
    given = noise if isinstance(noise, Mapping) else dict.fromkeys(columns, noise)
    for name, value in given.items():
        if name not in columns:
            raise UnknownVariableError.of(name, columns)
        right = _positive(value) if isinstance(value, Distribution) else 0 < float(value) < float("inf")
        if not right or (isinstance(value, Distribution) and value.batch_shape + value.event_shape):
            raise SpecError(f"noise of {name}: expected a number > 0 or a law of one such number, got {value!r}")
    return dict(given)


def _positive(law: Distribution) -> bool:
    support = law.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lower = getattr(support, "lower_bound", None)
    return lower is not None and bool((torch.as_tensor(lower) >= 0).all())
