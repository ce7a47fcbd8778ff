"""Training of all members of an ensemble in one batched program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.base.objective import Objective
from bayeswm.base.random import make_generator, uniform


@dataclass(frozen=True)
class EpochReport:
    """What a callback sees after an epoch; losses have shape (members,), the validation loss is NaN without one.

    The losses are mean negative log likelihoods in nats: lower is better.
    """

    epoch: int
    train_loss: Tensor
    validation_loss: Tensor
    learning_rate: float


Callback = Callable[[EpochReport], bool | None]


@dataclass
class TrainingState:
    """All that a training needs to go on where it stopped, bit for bit."""

    parameters: dict[str, Tensor]
    generator: Tensor
    epoch: int = 0
    first_moment: dict[str, Tensor] = field(default_factory=dict)
    second_moment: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: Tensor | None = None
    best_epoch: int = 0
    failed: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as named tensors, for a file."""
        out = {"generator": self.generator, "counts": torch.tensor([self.epoch, self.steps, self.best_epoch])}
        for group in ("parameters", "first_moment", "second_moment", "best"):
            out |= {f"{group}.{k}": v for k, v in getattr(self, group).items()}
        for name in ("best_loss", "failed"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value
        return out

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> TrainingState:
        """Rebuild the state from :meth:`tensors`."""

        def group(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}

        epoch, steps, best_epoch = tensors["counts"].tolist()
        return cls(
            group("parameters"),
            tensors["generator"],
            epoch=epoch,
            first_moment=group("first_moment"),
            second_moment=group("second_moment"),
            steps=steps,
            best=group("best"),
            best_loss=tensors.get("best_loss"),
            best_epoch=best_epoch,
            failed=tensors.get("failed"),
        )


def train_ensemble(
    objective: Objective,
    state: TrainingState,
    train_rows: Tensor,
    *,
    validation_rows: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    patience: int,
    bootstrap: Tensor | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> TrainingState:
    """Train every member on its own shuffled rows with Adam and a cosine schedule; keep each member's best state.

    Parameters
    ----------
    objective : Objective
        Loss and gradient; it trains ``state.parameters`` in place.
    state : TrainingState
        Where to begin; it is updated and returned.
    train_rows, validation_rows : Tensor, shape (n,), int64
        Rows of the objective's data. Without validation rows the last state is the best.
    epochs, batch_size, patience : int
        Passes over the data; rows a member and step; epochs without improvement of any member before stopping.
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov & Hutter 2019); the rate falls to 0 along a cosine.
    bootstrap : Tensor, shape (members, n), int64, optional
        Each member's own resampled rows.
    callbacks : sequence of callable
        Called with an :class:`EpochReport` after each epoch; one that returns True stops the training.
    progress : bool
        Show a progress bar.

    Returns
    -------
    TrainingState

    Raises
    ------
    FitError
        If the loss of every member is no longer finite.

    Warns
    -----
    FitWarning
        If single members failed, or the training was interrupted from the keyboard: the best state so far is kept.
    """
    trained = objective.trained
    if not all(t.is_contiguous() for t in trained.values()):
        raise SpecError("expected trained tensors with contiguous memory; call .contiguous() on them")
    members = len(next(iter(trained.values())))
    generator = make_generator(0)
    generator.set_state(state.generator)
    optimiser = _optimiser(trained, state, weight_decay)
    if state.best_loss is None:
        state.best = {k: v.clone() for k, v in trained.items()}
        state.best_loss = torch.full((members,), float("inf"), dtype=torch.float32)
        state.failed = torch.zeros(members, dtype=torch.bool)
    bar = tqdm(total=epochs, initial=state.epoch, disable=not progress, desc="deep ensemble", unit="epoch")
    try:
        while state.epoch < epochs and state.epoch - state.best_epoch < patience:
            rate = 0.5 * learning_rate * (1 + math.cos(math.pi * state.epoch / epochs))
            loss = _epoch(
                objective,
                optimiser,
                _shuffle(train_rows, bootstrap, members, generator=generator),
                batch_size=batch_size,
                rate=rate,
            )
            held_out = torch.full((members,), float("nan"), dtype=torch.float32)
            if len(validation_rows):
                held_out = -objective.log_prob(validation_rows).double().mean(-1).float().cpu()
            _keep_best(
                state, trained, loss if not len(validation_rows) else held_out, keep_last=not len(validation_rows)
            )
            state.epoch += 1
            state.generator = generator.get_state()
            bar.update()
            shown = held_out if len(validation_rows) else loss
            bar.set_postfix(loss=f"{float(shown[~_failed(state)].mean()):.3f}", refresh=False)
            report = EpochReport(state.epoch, loss, held_out, rate)
            stop = [bool(call(report)) for call in callbacks]
            if any(stop):
                break
    except KeyboardInterrupt:
        if state.epoch == 0:
            raise  # nothing was learned that could be kept
        warnings.warn(f"interrupted after epoch {state.epoch}: the best state so far is kept", FitWarning, stacklevel=2)
    finally:
        bar.close()
        _store_moments(optimiser, trained, state)
    failed = int(_failed(state).sum())
    if failed:
        warnings.warn(
            f"{members - failed} of {members} members were fitted; the rest diverged", FitWarning, stacklevel=2
        )
    return state


def _epoch(
    objective: Objective, optimiser: torch.optim.Optimizer, rows: Tensor, *, batch_size: int, rate: float
) -> Tensor:
    members, n = rows.shape
    size = min(batch_size, n)
    total = torch.zeros(members, dtype=torch.float32)
    for group in optimiser.param_groups:
        group["lr"] = rate
    starts = range(0, n, size)
    for start in starts:
        # the last batch is filled up from the front, so that each step has the same size
        batch = rows[:, start : start + size]
        if batch.shape[1] < size:
            batch = torch.cat((batch, rows[:, : size - batch.shape[1]]), 1)
        loss, gradients = objective.gradient(batch)
        total += loss.detach().float().cpu()
        for name, tensor in objective.trained.items():
            tensor.grad = gradients[name].contiguous()  # the fused optimiser ignores strides
        optimiser.step()
    return total / len(starts)


def _keep_best(state: TrainingState, trained: dict[str, Tensor], loss: Tensor, *, keep_last: bool) -> None:
    finite = loss.isfinite()
    for tensor in trained.values():
        finite &= tensor.detach().reshape(len(tensor), -1).isfinite().all(1).cpu()
    state.failed = _failed(state) | ~finite
    if bool(state.failed.all()):
        name = next((k for k, v in trained.items() if not bool(v.isfinite().all())), next(iter(trained)))
        raise FitError(
            f"the loss of every member is not finite in epoch {state.epoch + 1} (parameter {name!r}): "
            "lower the learning rate, or look for extreme values in the data"
        )
    if state.best_loss is None:
        raise FitError("training state without a best loss")
    # a change below the noise of the estimate does not count as progress
    better = ~state.failed & (finite if keep_last else loss < state.best_loss - 1e-4)
    for name, tensor in trained.items():
        chosen = better.to(tensor.device)
        state.best[name][chosen] = tensor.detach()[chosen]
    state.best_loss = torch.where(better, loss, state.best_loss)
    if bool(better.any()):
        state.best_epoch = state.epoch + 1


def _failed(state: TrainingState) -> Tensor:
    return torch.zeros(1, dtype=torch.bool) if state.failed is None else state.failed


def _shuffle(rows: Tensor, bootstrap: Tensor | None, members: int, *, generator: torch.Generator) -> Tensor:
    order = uniform((members, len(rows)), generator, dtype=torch.float64).argsort(1).to(rows.device)
    return rows[order] if bootstrap is None else bootstrap.gather(1, order)


def _optimiser(trained: dict[str, Tensor], state: TrainingState, weight_decay: float) -> torch.optim.Optimizer:
    tensors = list(trained.values())
    optimiser = torch.optim.AdamW(tensors, lr=0.0, weight_decay=weight_decay, fused=True)
    if state.steps:
        for name, tensor in trained.items():
            optimiser.state[tensor] = {
                "step": torch.tensor(float(state.steps)),
                "exp_avg": state.first_moment[name].clone(),
                "exp_avg_sq": state.second_moment[name].clone(),
            }
    return optimiser


def _store_moments(optimiser: torch.optim.Optimizer, trained: dict[str, Tensor], state: TrainingState) -> None:
    for name, tensor in trained.items():
        found = optimiser.state.get(tensor)
        if found:
            state.first_moment[name], state.second_moment[name] = found["exp_avg"], found["exp_avg_sq"]
            state.steps = int(found["step"])
        tensor.grad = None
