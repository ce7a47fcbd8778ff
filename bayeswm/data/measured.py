"""Measured data sets as trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bayeswm.base.errors import SpecError
from bayeswm.base.resampling import resample_irregular
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.trajectories import Trajectories
from bayeswm.data.registry import measured_file, source

HALF_WIDTH = 0.0524  # of the cube, in m
SILVERBOX_PARTS = {
    "all": slice(0, 131072),
    "arrow": slice(100, 40575),
    "arrow_inner": slice(100, 32100),
    "multisine": slice(40650, 127400),
    "multisine_train": slice(40650, 40650 + 65062),
    "multisine_test": slice(40650 + 65062, 127400),
}
DELAN_TEST = ("e", "q", "v")
PROTEINS = ("raf", "mek", "plc", "pip2", "pip3", "erk", "akt", "pka", "pkc", "p38", "jnk")
REAGENTS = ("cd3_cd28", "icam2", "aktinhib", "g0076", "u0126", "pma", "b2camp")
SWING_UPS = ["ddp", "direct_collocation", "energy_shaping", "ilqr", "sac"]


def measured(
    name: str,
    *,
    runs: Sequence[str] | None = None,
    part: str | None = None,
    time_step: float | None = None,
) -> Trajectories:
    """Return a measured data set by name.

    ``dfki_simple_pendulum``
        A real pendulum, 0 = hanging: ``position`` (rad, unwrapped), ``velocity`` (rad/s), ``torque`` (N m; the
        builders' limit of 1 N m is the bound, which most runs exceed: a warning counts them). One episode for each of
        ``runs``, by default the swing-ups with the standard payload: ``ddp``, ``direct_collocation``,
        ``energy_shaping``, ``ilqr``, ``sac``. Also ``energy_shaping_1kg`` (another payload),
        ``pd_system_identification`` (velocity and torque very noisy), and ``gravity_compensation`` and
        ``pd_swingup_failure``, in which the pendulum moves without a cause that was recorded. Recorded at 50 Hz to
        1 kHz with stamps that jitter; brought onto ``time_step``, 0.02 s by default: states by interpolation, torque by
        its mean over the step. The recorded velocity is noisier than the position's derivative:
        ``differentiate({"velocity": "position"}, window=5)`` replaces it.
    ``contactnets_cube``
        400 tosses of a cube, 148 Hz: ``x``, ``y``, ``z`` (m; z = 0.0524 is at rest), ``orientation`` (rotation),
        ``vx``, ``vy``, ``vz`` (m/s), ``wx``, ``wy``, ``wz`` (rad/s, in the body frame). No action. Converted to m with
        the half-width 0.0524 m, in which the files count. The tracks were smoothed: residuals are not independent.
    ``silverbox``
        An electronic Duffing oscillator, 610.35 Hz, one recording: state ``output`` (V), action ``input`` (V). The
        output alone does not determine the future: add its rate with ``differentiate``, or use it as an observation.
        ``part``: ``all``, ``arrow`` (amplitude grows), ``arrow_inner`` (its part inside the training range),
        ``multisine``, ``multisine_train`` (the first 75 %), ``multisine_test``.
    ``delan_characters``
        A two-link arm drawing 20 letters, simulated, 25 Hz: ``angle_1``, ``angle_2``, ``velocity_1``, ``velocity_2``,
        action ``torque_1``, ``torque_2``. One episode for each of ``runs`` (letters); ``part``: ``all``, ``train`` or
        ``test`` (e, q, v). Accelerations (``qa``) and the true split of the torque (``m``, ``c``, ``g``) are in the
        file that ``measured_file("delan_characters", "characters.npz")`` names.
    ``sachs``
        5,808 single T cells, each killed when it was measured: the state is the natural logarithm of the intensities
        of 11 proteins (``raf``, ``mek``, ...; none is below 1), the context which of seven reagents a cell was given
        (0 or 1). One episode of one step for each cell; what was before it is not recorded, and is 0. ``runs`` are
        conditions, by default all: ``cd3_cd28`` (stimulation alone, the baseline), ``icam2``, ``aktinhib``, ``g0076``
        and ``u0126`` (each together with ``cd3_cd28``), ``pma`` and ``b2camp`` (without it). Measured targets are akt
        of ``aktinhib``, pkc of ``g0076`` and ``pma``, mek of ``u0126`` and pka of ``b2camp``. The consensus graph is
        in the file that ``measured_file("sachs", "consensus_graph.txt")`` names.

    Parameters
    ----------
    name : str
        One of the above; :func:`~bayeswm.data.registry.source` knows licence and citation.
    runs : sequence of str, optional
        Which recordings.
    part : str, optional
        Which part of them.
    time_step : float, optional
        Seconds between two states, for the pendulum. Others: call ``resample`` on the result.

    Raises
    ------
    SpecError
        For an unknown name, run or part, or an argument that this data set does not have.
    DataError
        If a file is absent or is not the registered one.

    Examples
    --------
    >>> measured("silver_box")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    bayeswm.base.errors.SpecError: expected one of ... got 'silver_box'; did you mean 'silverbox'?
    """
    source(name)
    makers: dict[str, tuple[Callable[..., Trajectories], set[str]]] = {
        "dfki_simple_pendulum": (_pendulum, {"runs", "time_step"}),
        "contactnets_cube": (_cube, set()),
        "silverbox": (_silverbox, {"part"}),
        "delan_characters": (_characters, {"runs", "part"}),
        "sachs": (_cells, {"runs"}),
    }
    make, takes = makers[name]
    given = {k: v for k, v in {"runs": runs, "part": part, "time_step": time_step}.items() if v is not None}
    if extra := set(given) - takes:
        raise SpecError(f"expected for {name!r} {', '.join(sorted(takes)) or 'no arguments'}, got {', '.join(extra)}")
    return make(**given)


def _pendulum(*, runs: Sequence[str] | None = None, time_step: float = 0.02) -> Trajectories:
    known = [f.name.removesuffix(".csv") for f in source("dfki_simple_pendulum").files]
    chosen = _choose(runs, known, default=SWING_UPS)
    schema = Schema(
        state=[Variable("position", unit="rad", kind="angle"), Variable("velocity", unit="rad/s")],
        action=[Variable("torque", unit="N m", bounds=(-1.0, 1.0))],
        time_step=time_step,
    )
    states, actions = [], []
    for run in chosen:
        table = np.loadtxt(measured_file("dfki_simple_pendulum", f"{run}.csv"), delimiter=",", skiprows=1)
        times, values = torch.from_numpy(table[:, 0]), torch.from_numpy(table[:, 1:])
        recorded = float(times.diff().median())
        if schema.time_step < 0.99 * recorded:
            raise SpecError(
                f"expected time_step of at least {recorded:.4g} s for run {run!r}, got {schema.time_step:g}"
            )
        states.append(resample_irregular(times, values[:, :2], variables=schema.state, time_step=schema.time_step))
        actions.append(
            resample_irregular(times, values[:, 2:], variables=schema.action, time_step=schema.time_step, hold=True)
        )
    return Trajectories(schema, state=states, action=actions)


def _cube() -> Trajectories:
    arrays = _arrays("contactnets_cube", "tosses_000_399.npz")
    table, lengths = arrays["states"].astype(np.float64), arrays["lengths"]
    table[:, :3] *= HALF_WIDTH
    table[:, 7:10] *= HALF_WIDTH
    schema = Schema(
        state=[
            *(Variable(n, unit="m") for n in ("x", "y", "z")),
            Variable("orientation", kind="rotation"),
            *(Variable(n, unit="m/s") for n in ("vx", "vy", "vz")),
            *(Variable(n, unit="rad/s") for n in ("wx", "wy", "wz")),
        ],
        time_step=1 / 148,
    )
    return Trajectories(schema, state=np.split(table, np.cumsum(lengths)[:-1]))


def _silverbox(*, part: str = "all") -> Trajectories:
    if part not in SILVERBOX_PARTS:
        raise SpecError(f"expected part to be one of {', '.join(SILVERBOX_PARTS)}, got {part!r}")
    path = measured_file("silverbox", "SNLS80mV.csv")
    table = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 1))[SILVERBOX_PARTS[part]]
    schema = Schema(state=[Variable("output", unit="V")], action=[Variable("input", unit="V")], time_step=2**14 / 1e7)
    return Trajectories(schema, state=table[None, :, 1:], action=table[None, :-1, :1])


def _characters(*, runs: Sequence[str] | None = None, part: str = "all") -> Trajectories:
    arrays = _arrays("delan_characters", "characters.npz")
    letters = [str(c) for c in arrays["lab"]]
    parts = {"all": letters, "test": list(DELAN_TEST), "train": [c for c in letters if c not in DELAN_TEST]}
    if part not in parts:
        raise SpecError(f"expected part to be one of {', '.join(parts)}, got {part!r}")
    chosen = _choose(runs, parts[part], default=parts[part])
    schema = Schema(
        state=[
            *(Variable(f"angle_{i}", unit="rad", kind="angle") for i in (1, 2)),
            *(Variable(f"velocity_{i}", unit="rad/s") for i in (1, 2)),
        ],
        action=[Variable(f"torque_{i}", unit="N m") for i in (1, 2)],
        time_step=0.04,
    )
    ends = np.cumsum(arrays["n"])[:-1]
    states = np.split(np.concatenate((arrays["qp"], arrays["qv"]), 1), ends)
    actions = np.split(arrays["tau"], ends)
    rows = [letters.index(c) for c in chosen]
    return Trajectories(schema, state=[states[i] for i in rows], action=[actions[i][:-1] for i in rows])


def _cells(*, runs: Sequence[str] | None = None) -> Trajectories:
    table = np.loadtxt(measured_file("sachs", "sachs_conditions.csv"), delimiter=",", skiprows=1)
    logs, given = np.log(table[:, : len(PROTEINS)]), table[:, len(PROTEINS) :]
    chosen = _choose(runs, list(REAGENTS), default=list(REAGENTS))
    rows = list[np.ndarray]()
    for name in chosen:
        alone = name == REAGENTS[0]  # which most of the others were combined with
        rows.append(np.flatnonzero(~given[:, 1:].any(1) if alone else given[:, REAGENTS.index(name)] == 1))
    cells = np.concatenate(rows)
    schema = Schema(
        state=[Variable(name) for name in PROTEINS],
        context=[Variable(name) for name in REAGENTS],
        time_step=1.0,
    )
    states = np.stack((np.zeros_like(logs[cells]), logs[cells]), 1)
    return Trajectories(schema, state=states, context=given[cells])


def _arrays(name: str, file: str) -> dict[str, np.ndarray]:
    with np.load(measured_file(name, file), allow_pickle=False) as found:
        return {k: found[k] for k in found}


def _choose(runs: Sequence[str] | None, known: list[str], *, default: list[str]) -> list[str]:
    chosen = default if runs is None else [runs] if isinstance(runs, str) else list(runs)
    unknown = [r for r in chosen if r not in known]
    if unknown or not chosen:
        raise SpecError(f"expected runs among {', '.join(known)}, got {', '.join(map(repr, unknown)) or 'none'}")
    return chosen
