"""Deep ensembles: networks trained from different starts, all of them together the posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, FitError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, permutation
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.base.worlds import StructureWorlds
from bayeswm.inference.ensemble import Callback, EpochReport, TrainingState, train_ensemble
from bayeswm.inference.stacking import stack


class DeepEnsemble(DynamicsModel):
    """Networks that differ in their random start and in the order of the data; each is one world.

    All members are trained in one batched program on the one-step log likelihood with heteroscedastic noise
    (Lakshminarayanan et al. 2017; PETS, Chua et al. 2018). Episodes are held out for early stopping, and each member
    keeps its own best state.

    Parameters
    ----------
    structure : Structure
        One that predicts its noise, such as ``MLP``.
    members : int
        Networks.
    bootstrap : bool
        Give each member its own resample of the training steps.
    stacking : bool
        Weight members by the held-out log score of their mixture instead of equally.
    validation : float
        Share of the episodes that is held out (of the time, for a single recording); 0 holds out nothing.
    epochs, patience : int
        Passes over the data at most, and those without improvement before stopping.
    batch_size : int, optional
        Recorded steps in a batch. By default a fifth of those to train on, at least 16 and at most 256: few data then
        still give several gradient steps a pass, and from 1,280 steps on it is 256.
    learning_rate, weight_decay : float
        Of AdamW.
    minimum_members : int
        A member whose training diverges is left out with a warning; fewer than this many left are an error.
    dtype : torch.dtype
        Number format of the networks.

    Attributes
    ----------
    history : list of EpochReport
        Losses by epoch.

    Notes
    -----
    Training runs where the data are, and so do rollouts. A single member is one draw from a posterior that is not
    known: its epistemic variance is NaN with a warning.

    Raises
    ------
    SpecError
        If a number makes no sense.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.02)
    >>> g = torch.Generator().manual_seed(0)
    >>> actions = 4 * torch.rand(8, 50, 1, generator=g) - 2
    >>> start = torch.tensor([3.14, 0.0]).expand(8, 2)
    >>> paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    >>> states = torch.cat((start[:, None], paths), 1)
    >>> train = bwm.Trajectories(truth.schema, state=states, action=actions)
    >>> model = DeepEnsemble(structure=bwm.structures.MLP(hidden=(32, 32)), members=3, epochs=20)
    >>> model.fit(train, seed=0, progress=False).draw(3)
    StructureWorlds(3 worlds (the posterior), state=(angle, velocity))
    """

    def __init__(
        self,
        *,
        structure: Structure,
        members: int = 5,
        bootstrap: bool = False,
        stacking: bool = False,
        validation: float = 0.2,
        epochs: int = 300,
        batch_size: int | None = None,
        patience: int = 40,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        minimum_members: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        counts = {"members": members, "epochs": epochs, "patience": patience, "minimum_members": minimum_members}
        if batch_size is not None:
            counts["batch_size"] = batch_size
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise SpecError(f"expected {name} >= 1, got {value!r}")
        if not 0 <= validation < 1:
            raise SpecError(f"expected validation in [0, 1), got {validation}")
        if not learning_rate > 0 or not weight_decay >= 0:
            raise SpecError(f"expected learning_rate > 0 and weight_decay >= 0, got {learning_rate} and {weight_decay}")
        if stacking and validation == 0:
            raise SpecError("expected validation > 0 for stacking, got 0: the weights come from held-out episodes")
        if minimum_members > members:
            raise SpecError(f"expected minimum_members <= members, got {minimum_members} and {members}")
        self.structure = self._given = structure
        self.minimum_members = minimum_members
        self.members, self.bootstrap, self.stacking, self.validation = members, bootstrap, stacking, validation
        self.epochs, self.batch_size, self.patience = epochs, batch_size, patience
        self.learning_rate, self.weight_decay, self.dtype = learning_rate, weight_decay, dtype
        self.history: list[EpochReport] = []
        self._parameters: dict[str, Tensor] | None = None
        self._log_weight = torch.zeros(0)
        self._training: TrainingState | None = None

    @property
    @override
    def schema(self) -> Schema:
        schema = self.structure.schema
        if schema is None:
            raise SpecError("expected a fitted model: call .fit(trajectories) first")
        return schema

    @override
    def fit(
        self,
        trajectories: Trajectories,
        *,
        seed: int | None = None,
        progress: bool = True,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
    ) -> Self:
        """Train the ensemble.

        Parameters
        ----------
        trajectories : Trajectories
            Recorded states and actions.
        seed : int
            Decides the starts, the held-out episodes and the order of the data; needed unless resuming.
        progress : bool
            Show a progress bar.
        callbacks : sequence of callable
            Called with an :class:`EpochReport` after each epoch; one that returns True stops the training.
        resume : bool
            Go on where an interrupted training of the same data stopped.

        Returns
        -------
        DeepEnsemble
            The model itself.

        Raises
        ------
        SpecError, DataError, FitError
            Without a seed; for data that do not fit; if every member diverges.
        """
        if resume and self._training is None:
            raise SpecError("expected a training to resume, got none; call .fit(trajectories, seed=0)")
        if not resume and seed is None:
            raise SpecError("expected seed= (an integer), got none; the same seed gives the same model")
        with torch.inference_mode(False), torch.no_grad():
            self._fit(trajectories, seed, progress=progress, callbacks=callbacks, resume=resume)
        return self

    def _fit(
        self,
        trajectories: Trajectories,
        seed: int | None,
        *,
        progress: bool,
        callbacks: Sequence[Callback],
        resume: bool,
    ) -> None:
        structure = (self.structure if resume else self._given).bind(trajectories.schema)
        data = Transitions(*(v.clone() for v in trajectories.transitions()))
        state, fingerprint = (self._training if resume else None), _fingerprint(data)
        if state is not None and not torch.equal(state.parameters["fingerprint"], fingerprint):
            raise SpecError("expected the data that the training was begun with, got others; fit again with seed=")
        split_seed = int(state.parameters["split_seed"]) if state else int(seed or 0)
        held_out = _held_out(data, self.validation, split_seed)
        train_rows, validation_rows = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
        if state is None:
            generator = make_generator(split_seed)
            parameters = structure.initial(self.members, generator, self.dtype)
            parameters = structure.standardise(parameters, Transitions(*(v[train_rows] for v in data)))
            parameters = {k: v.to(data.state.device) for k, v in parameters.items()}
            parameters |= {"split_seed": torch.tensor(split_seed), "fingerprint": fingerprint}
            state = TrainingState(parameters, generator.get_state())
            self.history = []
        own = {k: v for k, v in state.parameters.items() if k not in ("split_seed", "fingerprint")}
        if self.stacking and not len(validation_rows):
            raise DataError("expected enough steps to hold some out for stacking, got too few; set stacking=False")
        resampled = None
        if self.bootstrap:
            draw = make_generator(split_seed + 1)
            picked = torch.randint(len(train_rows), (self.members, len(train_rows)), generator=draw)
            resampled = train_rows[picked.to(train_rows.device)]
        objective = structure.objective(own, data)
        self._training = train_ensemble(
            objective,
            state,
            train_rows,
            validation_rows=validation_rows,
            epochs=self.epochs,
            batch_size=_batch_size(len(train_rows)) if self.batch_size is None else self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            bootstrap=resampled,
            callbacks=(self.history.append, *callbacks),
            progress=progress,
        )
        kept = torch.ones(self.members, dtype=torch.bool) if state.failed is None else ~state.failed
        if int(kept.sum()) < self.minimum_members:
            raise FitError(
                f"expected at least {self.minimum_members} members whose loss stayed finite, got {int(kept.sum())} of "
                f"{self.members}; lower the learning rate, or minimum_members"
            )
        self.structure = structure
        kept = kept.to(data.state.device)
        self._parameters = {k: v[kept].clone() for k, v in {**own, **state.best}.items()}
        self._log_weight = torch.zeros(int(kept.sum()), dtype=torch.float64, device=kept.device)
        if self.stacking:
            best = structure.objective({**own, **state.best}, data)
            self._log_weight = stack(best.log_prob(validation_rows)[kept])

    @override
    def draw(self, worlds: int = 1, *, generator: torch.Generator | None = None) -> StructureWorlds:
        """Return the members, each once, with their weights: they are the whole posterior."""
        if self._parameters is None:
            raise SpecError("expected a fitted model: call .fit(trajectories) first")
        whole = len(self._log_weight) > 1  # a single network is one draw, which cannot tell how sure it is
        return StructureWorlds(
            self.structure, self.schema, self._parameters, log_weight=self._log_weight, exhaustive=whole
        )

    @override
    def __repr__(self) -> str:
        fitted = "not fitted" if self._parameters is None else f"{len(self._log_weight)} of {self.members} members"
        return f"DeepEnsemble(structure={self.structure.name}, {fitted})"

    @override
    def condition(
        self, trajectories: Trajectories, *, in_training: bool = False, reweight: bool = False
    ) -> DynamicsModel:
        """Return the ensemble with its members weighted by how well they explain new trajectories, if asked to.

        Parameters
        ----------
        trajectories : Trajectories
            New data.
        in_training : bool
            The data were in the training set: the model comes back as it is.
        reweight : bool
            Multiply the weights by the likelihoods. A few members are a coarse posterior; refitting is better.

        Raises
        ------
        SpecError
            Without ``reweight``.
        FitError
            If fewer than two members, or less than a tenth of them, keep any weight.
        """
        if in_training:
            return self
        if not reweight:
            raise SpecError(
                "expected reweight=True, since members are not reweighted unless asked; better fit again on "
                "Trajectories.concatenate([old, new]), or say in_training=True of data that it was fitted to"
            )
        worlds = self.draw()
        _, log_prob = worlds.smooth(trajectories)
        log_weight = torch.log_softmax(worlds.log_weight + log_prob[:, 0].double().sum(-1), 0)
        size = float(1 / log_weight.exp().square().sum())
        if size < max(0.1 * len(worlds), min(2, len(worlds)) - 0.9):
            raise FitError(f"reweighting leaves {size:.1f} of {len(worlds)} members; fit again on all data together")
        new = DeepEnsemble.from_state(*self.state_dict(), self.structure)
        new._log_weight = log_weight
        return new

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        if self._parameters is None:
            raise SpecError("expected a fitted model to save: call .fit(trajectories) first")
        names = ("members", "bootstrap", "stacking", "validation", "epochs", "batch_size", "patience")
        config = {n: getattr(self, n) for n in (*names, "learning_rate", "weight_decay", "minimum_members")}
        config["dtype"] = str(self.dtype).removeprefix("torch.")
        tensors = {f"parameters.{k}": v for k, v in self._parameters.items()} | {"log_weight": self._log_weight}
        if self._training is not None:
            tensors |= {f"training.{k}": v for k, v in self._training.tensors().items()}
        return plain(config), tensors

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> DeepEnsemble:
        if structure is None:
            raise SpecError("expected a structure in the file, got none")
        model = cls(structure=structure, **{**config, "dtype": getattr(torch, config["dtype"])})
        groups: dict[str, dict[str, Tensor]] = {"parameters": {}, "training": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            if group in groups:
                groups[group][rest] = tensor.clone()
        model._parameters, model._log_weight = groups["parameters"], tensors["log_weight"]
        if groups["training"]:
            model._training = TrainingState.from_tensors(groups["training"])
        return model


def _fingerprint(data: Transitions) -> Tensor:
    """Return what tells one training set from another: the number of steps and sums of their values."""
    steps = torch.arange(1, len(data.state) + 1, dtype=torch.float64, device=data.state.device)[:, None]
    sums = [(steps * v.double()).sum() for v in (data.state, data.action, data.next_state)]
    return torch.stack((steps.new_tensor(float(len(steps))), *sums)).cpu()


def _batch_size(steps: int) -> int:
    """Return how many of the recorded steps go into a batch where the user does not say."""
    return min(max(steps // 5, 16), 256)


def _held_out(data: Transitions, share: float, seed: int) -> Tensor:
    """Return which steps validate, shape (n,): whole episodes, or the end of a single recording."""
    episodes = data.episode.unique()
    held_out = torch.zeros_like(data.episode, dtype=torch.bool)
    if share == 0:
        return held_out
    if len(episodes) > 1:
        count = min(max(round(share * len(episodes)), 1), len(episodes) - 1)
        chosen = episodes[permutation(len(episodes), make_generator(seed), device=episodes.device)[:count]]
        return torch.isin(data.episode, chosen)
    count = round(share * len(held_out))
    if count:
        held_out[-count:] = True
    return held_out
