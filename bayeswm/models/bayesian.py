"""Bayesian dynamics: a structure whose parameters have laws, and the posterior of these given data."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution, HalfNormal, constraints

from bayeswm.base.errors import DataWarning, SpecError, UnknownVariableError
from bayeswm.base.laws import Gaussian
from bayeswm.base.model import DynamicsModel
from bayeswm.base.priors import decode, encode
from bayeswm.base.random import make_generator, permutation, systematic
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import StructureWorlds
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.convergence import ess_bulk, r_hat
from bayeswm.inference.hmc import HMC
from bayeswm.inference.importance import smooth_weights

NoiseLaw = float | Distribution
_NOISE = "process_noise"

# the noise never falls below this share of the data's own steps: where they are noise-free the density has no bound
_NOISE_FLOOR = 1e-5
# numbers in one block where many draws meet many rows
_BLOCK = 2**22


@dataclass(frozen=True)
class PosteriorDiagnostics:
    """Whether a drawn posterior can be trusted.

    Attributes
    ----------
    r_hat, ess_bulk : mapping of str to Tensor
        Split rank-normalised R-hat and effective draws of each parameter, in the parameter's shape.
    divergences : int
        Divergent steps after the warm-up.
    acceptance : float
        Mean probability of acceptance.
    step_size, trajectory_length : float
        What the sampler settled on, in its own coordinates.
    evaluations : int
        Batched gradients, warm-up included.
    weight_size, pareto_k : float or None
        Effective number of weighted draws and tail shape of the weights, once the model has been conditioned.
    """

    r_hat: Mapping[str, Tensor]
    ess_bulk: Mapping[str, Tensor]
    divergences: int
    acceptance: float
    step_size: float
    trajectory_length: float
    evaluations: int
    weight_size: float | None = None
    pareto_k: float | None = None


class BayesianDynamics(DynamicsModel):
    """A structure with a posterior over its parameters: each world is one posterior draw.

    Parameters of the structure that are laws have these as priors; the others are known. The likelihood is Gaussian,
    one step ahead, with independent noise on each column of the state. The noise's standard deviation of a column has
    by default the prior 1e-5 s + HalfNormal(s), where s is the root mean square change of that column in one step of
    the training data (1 where it never changes): noise as large as the motion itself is about the largest that is
    believed, and where data are free of noise it stays above 0.

    Parameters
    ----------
    structure : Structure
        With a schema, and at least one parameter that is a law.
    inference : HMC, optional
        The sampler; ``HMC()`` by default.
    noise : float, Distribution, or mapping of str to float or Distribution, optional
        Standard deviation of the process noise in the variables' units, known (a number above 0) or with a prior of
        your own, for all columns of the state or by column; columns that are not named keep the default prior. A
        structure that predicts its noise itself keeps doing so unless this is given.

    Raises
    ------
    SpecError, UnknownVariableError
        If the structure has no schema, nothing is uncertain, a law of a positive parameter reaches below 0, or the
        noise makes no sense.

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
        inference: HMC | None = None,
        noise: NoiseLaw | Mapping[str, NoiseLaw] | None = None,
    ) -> None:
        schema = _schema(structure)
        self.structure = structure
        self.inference = HMC() if inference is None else inference
        self.noise = dict(noise) if isinstance(noise, Mapping) else noise
        parameters = structure.parameters()
        if not any(p.uncertain for p in parameters.values()):
            raise SpecError(
                f"expected at least one parameter of {structure.name} to be a law, got none among "
                f"({', '.join(parameters)}); give one a torch.distributions law, or use KnownDynamics"
            )
        for name, p in parameters.items():
            if p.positive and isinstance(p.value, Distribution) and not _positive(p.value):
                raise SpecError(f"{name}: expected a law of numbers > 0, got {type(p.value).__name__}; try LogNormal")
        self._named_noise(schema)
        self._posterior: dict[str, Tensor] = {}
        self._log_weight = torch.zeros(0, dtype=torch.float64)
        self._sampler: dict[str, Any] = {}
        self._diagnostics: PosteriorDiagnostics | None = None

    # --- what was learned -----------------------------------------------------------------------------------------

    @property
    @override
    def schema(self) -> Schema:
        return _schema(self.structure)

    @property
    def posterior(self) -> dict[str, Tensor]:
        """Draws of each uncertain parameter (chains, draws, ...), and of ``process_noise`` (chains, draws, S)."""
        self._need_fit()
        return dict(self._posterior)

    @property
    def diagnostics(self) -> PosteriorDiagnostics:
        """R-hat, effective sample sizes, divergences and the sampler's own figures."""
        self._need_fit()
        if self._diagnostics is None:
            flat = {k: v.flatten(2) if v.ndim > 2 else v[..., None] for k, v in self._posterior.items()}
            self._diagnostics = PosteriorDiagnostics(
                {k: r_hat(v).view(self._posterior[k].shape[2:]) for k, v in flat.items()},
                {k: ess_bulk(v).view(self._posterior[k].shape[2:]) for k, v in flat.items()},
                **self._sampler,
            )
        return self._diagnostics

    # --- learning -------------------------------------------------------------------------------------------------

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Draw the posterior of the parameters given all steps of the trajectories.

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
            data = _rows(trajectories)
            laws = {k: p.value for k, p in structure.parameters().items() if isinstance(p.value, Distribution)}
            noise = self._noise(structure, data)
            laws |= {f"{_NOISE}.{k}": v[0] for k, v in noise.items() if isinstance(v[0], Distribution)}
            flat = Unconstrained(laws)

            def log_density(x: Tensor) -> Tensor:
                values, log_det = flat.constrain(x)
                return (
                    flat.log_prior(values)
                    + log_det
                    + _log_likelihood(structure, _gather(values, noise, batch=log_det.shape), data)
                )

            generator = make_generator(seed)
            start = flat.sample(4 * self.inference.chains, generator)
            drawn = self.inference.sample(
                log_density, start, generator=generator, labels=flat.labels, progress=progress
            )
            self.structure = structure
            values, log_det = flat.constrain(drawn.positions)
            self._posterior = _gather(values, noise, batch=log_det.shape)
        self._log_weight = torch.zeros(drawn.log_density.numel(), dtype=torch.float64)
        self._sampler = {
            "divergences": drawn.divergences,
            "acceptance": float(drawn.acceptance.mean()),
            "step_size": drawn.step_size,
            "trajectory_length": drawn.trajectory_length,
            "evaluations": drawn.evaluations,
        }
        self._diagnostics = None
        return self

    def _named_noise(self, schema: Schema) -> dict[str, NoiseLaw]:
        """Return what the caller said of the noise, by column."""
        if not schema.state.flat:
            raise SpecError("expected real variables and angles in the state: the likelihood is Gaussian by column")
        columns = schema.state.columns
        if self.noise is None:
            return {}
        given = self.noise if isinstance(self.noise, Mapping) else dict.fromkeys(columns, self.noise)
        for name, value in given.items():
            if name not in columns:
                raise UnknownVariableError.of(name, columns)
            right = _positive(value) if isinstance(value, Distribution) else 0 < float(value) < float("inf")
            if not right or (isinstance(value, Distribution) and value.batch_shape + value.event_shape):
                raise SpecError(f"noise of {name}: expected a number > 0 or a law of one such number, got {value!r}")
        return dict(given)

    def _noise(self, structure: Structure, data: Transitions) -> dict[str, tuple[NoiseLaw, float]]:
        """Return the law or value of each column's noise and what is added to it; nothing if the structure has it."""
        schema = _schema(structure)
        named = self._named_noise(schema)
        if self.noise is None and _own_noise(structure, data):
            return {}
        size = (data.next_state - data.state).square().mean(0).sqrt().tolist()
        found: dict[str, tuple[NoiseLaw, float]] = {}
        for name, s in zip(schema.state.columns, size, strict=True):
            if name in named:
                found[name] = (named[name], 0.0)
                continue
            if s == 0:
                warnings.warn(f"{name} never changes: its noise has the prior of scale 1", DataWarning, stacklevel=3)
            s = s or 1.0
            found[name] = (HalfNormal(torch.tensor(s, dtype=torch.float64)), _NOISE_FLOOR * s)
        return found

    # --- answers --------------------------------------------------------------------------------------------------

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructureWorlds:
        """Return posterior draws picked at random: each at most once while there are enough and none has a weight."""
        self._need_fit()
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        if generator is None:
            raise SpecError("expected generator=torch.Generator, since worlds are drawn from the posterior, got none")
        order = permutation(len(self._log_weight), generator, device="cpu")
        picked = order[systematic(self._log_weight[order], worlds, generator)]
        chosen = {k: v.flatten(0, 1)[picked] for k, v in self._posterior.items()}
        return StructureWorlds(self.structure, self.schema, _complete(self.structure, chosen), exhaustive=False)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return a new model whose posterior is given new trajectories too: the same draws, reweighted.

        The draws get Pareto-smoothed importance weights; none is moved, so this serves small additions only. What the
        weights are worth is in ``diagnostics`` (``weight_size``, ``pareto_k``). ``posterior`` and its R-hat stay those
        of the draws before weighting; :meth:`draw` follows the weights.

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
            If the weights are worth less than a tenth of the draws, or Pareto k is above 0.7: fit again on all data.
        """
        self._need_fit()
        if in_training:
            return self
        self.structure.bind(trajectories.schema)
        data = _rows(trajectories)
        flat = {k: v.flatten(0, 1) for k, v in self._posterior.items()}
        size = max(_BLOCK // data.state.numel(), 1)
        with torch.no_grad():
            blocks = [
                _log_likelihood(self.structure, {k: v[i : i + size] for k, v in flat.items()}, data)
                for i in range(0, len(self._log_weight), size)
            ]
        weights = smooth_weights(self._log_weight + torch.cat(blocks))
        new = copy.copy(self)
        new._log_weight = weights.log_weight
        new._sampler = {**self._sampler, "weight_size": weights.size, "pareto_k": weights.pareto_k}
        new._diagnostics = None
        return new

    def _need_fit(self) -> None:
        if not self._posterior:
            raise SpecError("expected a fitted model: call .fit(trajectories, seed=0) first")

    # --- files ----------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self._need_fit()
        noise = {k: encode(v) for k, v in self.noise.items()} if isinstance(self.noise, Mapping) else encode(self.noise)
        config = {
            "inference": asdict(self.inference),
            "noise": {"by_name": isinstance(self.noise, Mapping), "value": noise},
            "sampler": self._sampler,
        }
        tensors = {f"posterior.{k}": v for k, v in self._posterior.items()}
        return plain(config), tensors | {"log_weight": self._log_weight}

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> BayesianDynamics:
        if structure is None:
            raise SpecError("expected a structure in the file, got none")
        saved = config["noise"]
        noise = {k: decode(v) for k, v in saved["value"].items()} if saved["by_name"] else decode(saved["value"])
        model = cls(structure=structure, inference=HMC(**config["inference"]), noise=noise)
        groups = {k.removeprefix("posterior."): v.clone() for k, v in tensors.items() if k.startswith("posterior.")}
        model._posterior, model._log_weight = groups, tensors["log_weight"].clone()
        model._sampler = dict(config["sampler"])
        return model


def _schema(structure: Structure) -> Schema:
    if structure.schema is None:
        raise SpecError(f"expected a structure with a schema, got {structure.name}, which learns its variables")
    return structure.schema


def _rows(trajectories: Trajectories) -> Transitions:
    return Transitions(
        *(v.double() if v.is_floating_point() else v for v in trajectories.to(torch.device("cpu")).transitions())
    )


def _positive(law: Distribution) -> bool:
    support = law.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lower = getattr(support, "lower_bound", None)
    return lower is not None and bool((torch.as_tensor(lower) >= 0).all())


def _gather(
    values: Mapping[str, Tensor], noise: Mapping[str, tuple[NoiseLaw, float]], *, batch: torch.Size
) -> dict[str, Tensor]:
    """Return the structure's parameters, with the columns' noise as one more of shape (*batch, S)."""
    found = {k: v for k, v in values.items() if not k.startswith(f"{_NOISE}.")}
    columns = [
        values[f"{_NOISE}.{name}"] + floor if isinstance(law, Distribution) else torch.tensor(law, dtype=torch.float64)
        for name, (law, floor) in noise.items()
    ]
    if columns:
        found[_NOISE] = torch.stack([c.expand(batch) for c in columns], -1)
    return found


def _complete(structure: Structure, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the uncertain parameters (W, ...) with the known ones beside them."""
    count = len(next(iter(values.values())))
    known: dict[str, Tensor] = {}
    for name, p in structure.parameters().items():
        if not isinstance(p.value, Distribution):
            value = torch.as_tensor(p.value, dtype=torch.float64)
            known[name] = value.expand(count, *value.shape)
    return {**known, **values}


def _log_likelihood(structure: Structure, values: Mapping[str, Tensor], data: Transitions) -> Tensor:
    """Return the log density of all next states given their steps, shape (W,), for parameters (W, ...)."""
    parameters = _complete(structure, values)
    noise = parameters.pop(_NOISE, None)
    mean, scale = structure.batched(parameters, data.state[None, None], data.action, data.context, data.step)
    if noise is not None:
        scale = noise[:, None, None]
    return Gaussian(mean, scale).log_prob(data.next_state).sum((1, 2))


def _own_noise(structure: Structure, data: Transitions) -> bool:
    """Whether the structure predicts its noise itself."""
    parameters: dict[str, Tensor] = structure.initial(1, make_generator(0), torch.float64)
    state, action, context = (v[:1] for v in data[:3])
    return structure.batched(parameters, state[None, None], action, context, 0)[1] is not None
