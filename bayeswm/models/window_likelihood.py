"""Likelihoods over windows of several steps: of what sensors reported, and of states forecast without correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.trajectories import Trajectories
from bayeswm.inference.filtering import Transition
from bayeswm.inference.gaussian_belief import GaussianBelief, Sensors
from bayeswm.inference.gaussian_filter import LinearGaussian, Unscented


class Windows(NamedTuple):
    """Recorded windows in float64: ``measured`` (n, H + 1, M), ``action`` (n, H, A), ``context`` (n, H, C).

    ``start`` (n,) is the step of the recording at which each begins, ``episode`` (n,) the recording.
    """

    measured: Tensor
    action: Tensor
    context: Tensor
    start: Tensor
    episode: Tensor

    @classmethod
    def of(cls, trajectories: Trajectories, measured: Tensor, length: int | None) -> Windows:
        """Cut recordings into windows that share their ends, the rest of each one as a shorter one; None: no cut.

        Parameters
        ----------
        trajectories : Trajectories
            Recordings.
        measured : Tensor, shape (N, T + 1, M)
            What was recorded of the measured columns.
        length : int, optional
            Steps of a window.
        """
        whole = trajectories._like(trajectories.schema, observation=measured)
        cut = whole if length is None else whole.windows(length, rest=True)
        if cut.observation is None:  # set above
            raise AssertionError
        return cls(cut.observation, cut.action, cut.step_context(), cut.start, cut.episode)

    def rows(self, index: Tensor | None) -> Windows:
        """Return some windows."""
        return self if index is None else Windows(*(v[index] for v in self))


def open_loop_log_likelihood(
    method: Unscented | LinearGaussian, transition: Transition, windows: Windows, *, process_noise: Tensor | None
) -> Tensor:
    """Return the log density of each window's states as forecast from its first one, shape (W, n).

    The forecast is not corrected on the way, so that errors of the mean add up as they do in use; its covariance is
    that of the process noise, carried along. Each recorded state is scored once, as if its error were independent of
    the other ones in the window: the likelihood of models that are judged by what they say several steps ahead.

    Parameters
    ----------
    method : Unscented or LinearGaussian
        How the covariance is carried along.
    transition : callable
        As of :func:`bayeswm.inference.window_log_likelihood`.
    windows : Windows
        Fully recorded states; NaN after a window's end.
    process_noise : Tensor, shape (W, S), optional
        Standard deviations; the transition's own by default.
    """
    states = windows.measured
    inside = ~states[:, 1:].isnan().any(-1)
    states = torch.where(states.isnan(), 0.0, states)
    actions, context = (torch.where(inside[..., None], v, 0.0) for v in (windows.action, windows.context))
    belief = method.begin(states[:, 0][None, None], states.new_zeros(1, 1, len(states), *(states.shape[-1],) * 2))
    worlds = 1 if process_noise is None else len(process_noise)
    exact = Sensors(tuple(range(states.shape[-1])), states.new_zeros(worlds, states.shape[-1]))
    total: Tensor = states.new_zeros(())
    for t in range(actions.shape[1]):
        passage = method.passage(belief, moving(transition, actions[:, t], context[:, t], step=t, noise=process_noise))
        belief = passage.predicted()
        total = total + torch.where(inside[:, t], _density(belief, states[:, t + 1], exact), 0.0)
    return total[:, 0]


def moving(
    transition: Transition, action: Tensor, context: Tensor, *, step: int, noise: Tensor | None
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """Return one step of a transition as a function of the state, with this process noise (W, S) if there is any."""

    def move(states: Tensor) -> tuple[Tensor, Tensor | None]:
        mean, own = transition(states, action, context, step)
        return mean, own if noise is None else noise.view(len(noise), *(1,) * (mean.ndim - 2), -1)

    return move


def _density(belief: GaussianBelief, state: Tensor, exact: Sensors) -> Tensor:
    return belief.update(state, None, exact)[1]
