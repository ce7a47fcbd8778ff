"""Measured data sets: sizes, units, and physics that the numbers must obey."""

import numpy as np
import pytest
import torch

from bayeswm.base.errors import DataError, DataWarning, SpecError
from bayeswm.data.measured import REAGENTS, SWING_UPS, measured
from bayeswm.data.registry import SOURCES, measured_file

OUTSIDE = r"recorded value\(s\) of action variable 'torque' outside its bounds"
RUNS = [f.name.removesuffix(".csv") for f in SOURCES["dfki_simple_pendulum"].files]


def pendulum(*runs, **more):
    return measured("dfki_simple_pendulum", runs=runs or None, **more)


def test_swing_ups_end_above_where_they_began(measured_data):
    with pytest.warns(DataWarning, match=OUTSIDE):
        data = pendulum()
    assert len(data) == len(SWING_UPS)
    assert data.schema.time_step == 0.02
    assert data.lengths.tolist() == [299, 175, 999, 999, 2000]
    assert float(data.state[:, 0, 0].abs().max()) < 0.01  # hanging
    for i in range(5):
        upright = data.state[i, : int(data.lengths[i]) + 1, 0].cos().min()
        assert float(upright) < -0.99
    assert data.schema.action["torque"].bounds == (-1, 1)


@pytest.mark.parametrize("run", RUNS)
def test_resampling_keeps_track_and_impulse(run, measured_data, recwarn):
    data = pendulum(run)
    table = np.loadtxt(measured_file("dfki_simple_pendulum", f"{run}.csv"), delimiter=",", skiprows=1)
    times, position, torque = table[:, 0], table[:, 1], table[:, 3]
    n = int(data.lengths[0])
    grid = times[0] + 0.02 * np.arange(n + 1)
    assert times[-1] - 0.02 < grid[-1] <= times[-1] + 1e-6
    np.testing.assert_allclose(data.state[0, :, 0], np.interp(grid, times, position), atol=1e-5)
    upto = np.append(0, np.cumsum(torque[:-1] * np.diff(times)))
    impulse = np.interp(grid[-1], times, upto)  # a held torque's impulse is linear between stamps
    assert float(data.action.sum()) * 0.02 == pytest.approx(impulse, abs=1e-6)
    assert {str(w.category.__name__) for w in recwarn} <= {"DataWarning"}


def test_the_swinging_pendulum_obeys_its_equation(measured_data):
    with pytest.warns(DataWarning, match=OUTSIDE):
        data = pendulum("direct_collocation").differentiate({"velocity": "position"}, window=5)
    step = data.transitions()
    acceleration = (step.next_state[:, 1] - step.state[:, 1]) / 0.02
    features = torch.stack((step.state[:, 0].sin(), step.state[:, 1].sign(), step.action[:, 0]), -1)
    weight = torch.linalg.lstsq(features, acceleration[:, None]).solution[:, 0]
    residual = acceleration - features @ weight
    assert float(residual.var() / acceleration.var()) < 0.01
    # a point mass at 0.5 m: -g / l = -19.6 per s^2, and 1 / (m l^2) between 4 and 7 per kg m^2
    assert float(weight[0]) == pytest.approx(-9.81 / 0.5, rel=0.1)
    assert 4 < float(weight[2]) < 7


def test_another_time_step_and_its_limit(measured_data):
    with pytest.warns(DataWarning, match=OUTSIDE):
        assert pendulum("ddp", time_step=0.05).lengths.tolist() == [119]
    with pytest.raises(SpecError, match=r"at least 0\.02 s for run 'ilqr', got 0\.01"):
        pendulum("ilqr", time_step=0.01)


def test_cube_tosses(measured_data):
    data = measured("contactnets_cube")
    assert len(data) == 400
    assert data.lengths.min() == 79
    assert data.transition_count == 41390 - 400
    assert data.action.shape[-1] == 0
    inside = data.step_mask
    state, following, dt = data.state[:, :-1][inside], data.state[:, 1:][inside], data.schema.time_step
    columns = data.schema.state.slices
    assert float(data.state[..., 2].nan_to_num(1).min()) > 0.0524 * 0.9  # the centre stays above the table
    # velocities are derivatives: means of neighbours explain the steps
    step = (following[:, :3] - state[:, :3]) / dt
    velocity = (following[:, 7:10] + state[:, 7:10]) / 2
    assert float((step - velocity).square().mean() / velocity.square().mean()) < 0.01
    kind = data.schema.state["orientation"].kind
    turn = kind.difference(following[:, columns["orientation"]], state[:, columns["orientation"]]) / dt
    spin = (following[:, 10:13] + state[:, 10:13]) / 2
    assert float((turn - spin).square().mean() / spin.square().mean()) < 0.05  # in the body frame
    world = kind.embed(state[:, columns["orientation"]]).view(-1, 3, 3)
    outside = (world @ turn[..., None])[..., 0]
    assert float((outside - spin).square().mean() / spin.square().mean()) > 0.2  # and in no other
    # free fall at the measured 9.61 m/s^2 where the cube is high above the table
    high = state[:, 2] > 0.15
    fall = ((following[:, 9] - state[:, 9]) / dt)[high]
    assert float(fall.median()) == pytest.approx(-9.61, abs=0.3)


def test_silverbox_parts(measured_data):
    sizes = {part: measured("silverbox", part=part).transition_count for part in (
        "all", "arrow", "arrow_inner", "multisine", "multisine_train", "multisine_test",
    )}  # fmt: skip
    assert sizes == {
        "all": 131071,
        "arrow": 40474,
        "arrow_inner": 31999,
        "multisine": 86749,
        "multisine_train": 65061,
        "multisine_test": 21687,
    }
    data = measured("silverbox")
    assert 1 / data.schema.time_step == pytest.approx(610.35, abs=0.01)
    table = np.loadtxt(measured_file("silverbox", "SNLS80mV.csv"), delimiter=",", skiprows=1, usecols=(0, 1))
    np.testing.assert_array_equal(data.state[0, :, 0], table[:, 1])
    np.testing.assert_array_equal(data.action[0, :, 0], table[:-1, 0])
    arrow = measured("silverbox", part="arrow").state[0, :, 0].abs()
    assert float(arrow[-5000:].max()) > 5 * float(arrow[:5000].max())  # the amplitude grows


def test_characters(measured_data):
    data = measured("delan_characters")
    assert len(data) == 20
    assert (data.lengths + 1).sum() == 2913
    train, test = (measured("delan_characters", part=p) for p in ("train", "test"))
    assert [(p.lengths + 1).sum().item() for p in (train, test)] == [2459, 454]
    assert measured("delan_characters", runs=["q"]).lengths.item() == test.lengths[1]
    rates = data.differentiate({"rate_1": "angle_1", "rate_2": "angle_2"})
    inner = rates.state[:, 1:-1]
    error = (inner[..., 4:] - inner[..., 2:4])[~inner.isnan().any(-1)].abs().max()
    assert float(error) < 0.02  # rad/s, of speeds up to 1.9: h^2 / 6 times the jerk
    with np.load(measured_file("delan_characters", "characters.npz")) as file:
        assert {"qa", "m", "c", "g"} <= set(file)
        np.testing.assert_allclose(file["m"] + file["c"] + file["g"], file["tau"], atol=1e-6)


def test_cells(measured_data):
    data = measured("sachs")
    table = np.loadtxt(measured_file("sachs", "sachs_conditions.csv"), delimiter=",", skiprows=1)
    assert len(data) == data.transition_count == len(table) == 5808
    assert data.schema.state.columns[:2] == ("raf", "mek")
    # the same cells, condition by condition
    cells = np.concatenate((data.state[:, 1].exp(), data.context), 1)
    order = [np.lexsort(np.round(rows, 6).T) for rows in (cells, table)]
    np.testing.assert_allclose(cells[order[0]], table[order[1]], rtol=1e-12)
    assert float(data.state[:, 0].abs().max()) == 0.0
    assert float(data.state.min()) == 0.0  # no intensity is below 1


def test_cells_of_each_condition(measured_data):
    counts = {run: len(measured("sachs", runs=[run])) for run in REAGENTS}
    assert counts == {
        "cd3_cd28": 853,
        "icam2": 902,
        "aktinhib": 911,
        "g0076": 723,
        "u0126": 799,
        "pma": 913,
        "b2camp": 707,
    }
    for run in REAGENTS:
        given = dict(zip(REAGENTS, measured("sachs", runs=[run]).context.unique(dim=0)[0].tolist(), strict=True))
        assert {k for k, v in given.items() if v} == {run} | ({"cd3_cd28"} if run not in ("pma", "b2camp") else set())
    both = measured("sachs", runs=["u0126", "cd3_cd28"])
    assert both.context[:, REAGENTS.index("u0126")].sum() == 799
    # what the inhibitor of MEK does: measured MEK rises, ERK falls
    mek, erk = (both.schema.state.column(name) for name in ("mek", "erk"))
    change = both.state[:799, 1].mean(0) - both.state[799:, 1].mean(0)
    assert float(change[mek]) > 2
    assert float(change[erk]) < -1


WRONG = [
    ({"name": "pendulum"}, "dfki_simple_pendulum"),
    ({"name": "dfki_simple_pendulum", "runs": ["walking"]}, "got 'walking'"),
    ({"name": "dfki_simple_pendulum", "runs": []}, "got none"),
    (
        {"name": "dfki_simple_pendulum", "part": "train"},
        "expected for 'dfki_simple_pendulum' runs, time_step, got part",
    ),
    ({"name": "contactnets_cube", "runs": ["1"]}, "no arguments, got runs"),
    ({"name": "silverbox", "part": "sine"}, "got 'sine'"),
    ({"name": "delan_characters", "part": "valid"}, "got 'valid'"),
    ({"name": "sachs", "runs": ["psitect"]}, "got 'psitect'"),
    ({"name": "delan_characters", "part": "train", "runs": ["e"]}, "got 'e'"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[str(g) for g, _ in WRONG])
def test_refusals(given, message, measured_data):
    with pytest.raises(SpecError, match=message):
        measured(**given)


@pytest.mark.parametrize("name", ["contactnets_cube", "delan_characters", "sachs"])
def test_without_the_folder_converted_files_say_where_they_come_from(name, monkeypatch):
    monkeypatch.delenv("BAYESWM_DATA", raising=False)
    with pytest.raises(DataError, match=r"BAYESWM_DATA.*github\.com"):
        measured(name)
