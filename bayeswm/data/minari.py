"""Minari's offline data sets, in and out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.kinds import Categorical
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.data.optional import need
from bayeswm.data.spaces import check_fits, flat_space


def from_minari(
    dataset: Any,
    *,
    schema: Schema,
    state: Callable[[Any], Any] | None = None,
    download: bool = False,
    allow_missing: bool = False,
) -> Trajectories:
    """Return the episodes of a Minari data set.

    Parameters
    ----------
    dataset : str or minari.MinariDataset
        A data set or its id.
    schema : Schema
        What the columns are. Its ``time_step`` must be the environment's.
    state : callable, optional
        Computes the true states of an episode from Minari's ``EpisodeData``, shape (T + 1, S). Without it the
        observations are the schema's observations or, where it has none, the states; states and contexts that
        :func:`to_minari` stored beside the observations are read too.
    download : bool
        Fetch the data set where it is not on this machine.
    allow_missing : bool
        Take NaN in states and observations as "not recorded" instead of an error.

    Raises
    ------
    SpecError
        If the sizes of data set and schema differ (saying both).
    DataError
        If an episode goes on after its end, or holds what cannot be data.
    ImportError
        If Minari is missing.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x")], time_step=1.0)
    >>> from_minari("no/such-data-v0", schema=schema)
    Traceback (most recent call last):
        ...
    bayeswm.base.errors.DataError: expected a Minari data set on this machine, got none with the id 'no/such-data-v0'; \
pass download=True
    """
    minari = need("minari", "io")
    if isinstance(dataset, str):
        try:
            dataset = minari.load_dataset(dataset, download=download)
        except FileNotFoundError:
            raise DataError(
                f"expected a Minari data set on this machine, got none with the id {dataset!r}; pass download=True"
            ) from None
    action = flat_space(dataset.action_space, "action")
    check_fits(action, schema.action, "action") if schema.action else None
    observed = None
    if schema.observation is not None or state is None:
        observed = flat_space(dataset.observation_space, "observation")
        check_fits(observed, schema.measured, "state" if schema.observation is None else "observation")
    arrays: dict[str, list[Any]] = {}
    for episode in dataset.iterate_episodes():
        flags = np.asarray(episode.terminations, dtype=bool), np.asarray(episode.truncations, dtype=bool)
        if any(f[:-1].any() for f in flags):
            raise DataError(f"expected an end at the last step only, got an earlier one in episode {episode.id}")
        _append(arrays, terminated=flags[0][-1], truncated=flags[1][-1])
        if schema.action:
            _append(arrays, action=action.rows(episode.actions))
        if schema.reward:
            _append(arrays, reward=np.asarray(episode.rewards, dtype=np.float64))
        if observed is not None:
            name = "state" if schema.observation is None else "observation"
            _append(arrays, **{name: observed.rows(episode.observations)})
        infos = episode.infos or {}
        if state is not None:
            _append(arrays, state=np.asarray(state(episode)))
        elif schema.observation is not None and "state" in infos:
            _append(arrays, state=np.asarray(infos["state"]))
        if schema.context:
            if "context" not in infos:
                raise DataError(f"expected a context in the infos of episode {episode.id}, got {sorted(infos)}")
            _append(arrays, context=np.asarray(infos["context"])[:-1])
    if not arrays:
        raise DataError("expected at least one episode, got an empty Minari data set")
    if "context" in arrays and all((c == c[:1]).all() for c in arrays["context"]):
        arrays["context"] = [c[0] for c in arrays["context"]]
    given: dict[str, Any] = {**arrays}
    return Trajectories(schema, **given, allow_missing=allow_missing)


def to_minari(trajectories: Trajectories, dataset_id: str, *, env: Any = None, description: str | None = None) -> Any:
    """Write the trajectories as a Minari data set on this machine.

    The observations are what was measured; true states beside them and contexts go into the infos. Rewards are zero
    where there are none. Episode numbers and starts are not kept. The schema is put in the description.

    Parameters
    ----------
    trajectories : Trajectories
        What to write.
    dataset_id : str
        Minari's name for it, as ``"pendulum/random-v0"``.
    env : str or gymnasium.Env, optional
        Where the data come from, for those who want to recover it.
    description : str, optional
        A text for readers, instead of the schema.

    Returns
    -------
    minari.MinariDataset

    Raises
    ------
    SpecError
        If there is no action: Minari has no data set without one.
    ImportError
        If Minari is missing.

    Examples
    --------
    >>> import os, tempfile
    >>> from unittest.mock import patch
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)
    >>> data = Trajectories(schema, state=[[[0.0], [1.0], [2.0]]], action=[[[1.0], [1.0]]])
    >>> with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, MINARI_DATASETS_PATH=folder):
    ...     to_minari(data, "line-v0").total_steps
    2
    """
    minari, spaces = need("minari", "io"), need("gymnasium", "rl").spaces
    collector = need("minari.data_collector.episode_buffer", "io")
    schema = trajectories.schema
    if not schema.action:
        raise SpecError("expected a schema with an action, which Minari's data sets must have, got none")
    dtype = np.float32 if trajectories.dtype == torch.float32 else np.float64
    action_space = _space(spaces, schema.action, dtype)
    observation_space = _space(spaces, schema.measured, dtype)
    action, measured = flat_space(action_space, "action"), flat_space(observation_space, "observation")
    buffers = []
    for i in range(len(trajectories)):
        steps = int(trajectories.lengths[i])
        infos: dict[str, np.ndarray] = {}
        if schema.observation is not None and trajectories.state is not None:
            infos["state"] = _rows(trajectories.state[i, : steps + 1])
        if schema.context:
            rows = _rows(trajectories.step_context()[i, :steps])
            infos["context"] = np.concatenate((rows, rows[-1:]))  # infos have one entry more than there are steps
        ended = np.zeros((2, steps), dtype=bool)
        ended[:, -1] = bool(trajectories.terminated[i]), bool(trajectories.truncated[i])
        reward = np.zeros(steps) if trajectories.reward is None else _rows(trajectories.reward[i, :steps])
        buffers.append(
            collector.EpisodeBuffer(
                id=i,
                observations=measured.values(_rows(trajectories.measurement[i, : steps + 1])),
                actions=action.values(_rows(trajectories.action[i, :steps])),
                rewards=reward,
                terminations=ended[0],
                truncations=ended[1],
                infos=infos or None,
            )
        )
    with warnings.catch_warnings():
        # Minari wants authors, links and so on; the caller can add them to the data set's metadata
        warnings.filterwarnings("ignore", message=r"`\w+` is set to None|env_spec is None", category=UserWarning)
        return minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=env,
            action_space=action_space,
            observation_space=observation_space,
            description=description or json.dumps(schema.to_dict()),
        )


def _append(arrays: dict[str, list[Any]], **values: Any) -> None:
    for name, value in values.items():
        arrays.setdefault(name, []).append(value)


def _rows(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()


def _space(spaces: Any, variables: Variables, dtype: Any) -> Any:
    if len(variables) == 1 and isinstance(variables[0].kind, Categorical):
        return spaces.Discrete(variables[0].kind.n)
    if variables and all(isinstance(v.kind, Categorical) for v in variables):
        return spaces.MultiDiscrete([v.kind.n for v in variables])  # pyright: ignore[reportAttributeAccessIssue]
    # no bounds: recorded values may lie outside those of the schema
    return spaces.Box(-np.inf, np.inf, shape=(variables.size,), dtype=dtype)
