import numpy as np
import pandas as pd
import pytest
import torch

import bayeswm as bwm
from bayeswm.data import from_rows


def test_rows_are_states_after_a_step_from_zero():
    data = from_rows({"x": [1.0, 2.0], "y": np.array([3, 4])})
    assert data.schema.state.columns == ("x", "y")
    assert data.state.tolist() == [[[0.0, 0.0], [1.0, 3.0]], [[0.0, 0.0], [2.0, 4.0]]]
    assert (len(data), data.horizon) == (2, 1)


def test_frames_actions_context_and_missing_values():
    schema = bwm.Schema(
        state=[bwm.Variable("y"), bwm.Variable("x")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c")],
        time_step=2.0,
    )
    frame = pd.DataFrame({"a": [1.0, 2.0], "x": [3.0, 4.0], "left_out": ["p", "q"], "y": [5.0, None], "c": [7, 8]})
    data = from_rows(frame, schema=schema, allow_missing=True)
    assert data.action.flatten().tolist() == [1.0, 2.0]
    assert data.step_context().flatten().tolist() == [7.0, 8.0]
    assert data.states()[0, 1].tolist() == [5.0, 3.0]
    assert data.states()[1, 1].isnan().tolist() == [True, False]
    with pytest.raises(bwm.DataError, match="y"):
        from_rows(frame, schema=schema)


def test_what_does_not_fit():
    with pytest.raises(bwm.DataError, match="mapping of names to arrays or a data frame, got list"):
        from_rows([1.0])
    with pytest.raises(bwm.DataError, match=r"columns z, got \(x\)"):
        from_rows({"x": [1.0]}, schema=bwm.Schema(state=[bwm.Variable("z")], time_step=1.0))
    with pytest.raises(bwm.DataError, match=r"'y' of shape \(2,\), got \(1,\)"):
        from_rows({"x": [1.0, 2.0], "y": [1.0]})
    with pytest.raises(bwm.DataError, match="numbers in column 'x'"):
        from_rows({"x": ["a"]})
    with pytest.raises(bwm.DataError, match="at least one row"):
        from_rows({"x": torch.zeros(0)})
    with pytest.raises(bwm.DataError, match="at least one row"):
        from_rows({})
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("a")], time_step=1.0)
    with pytest.raises(bwm.DataError, match=r"equal length, got \[1, 2\]"):
        from_rows({"x": [1.0, 2.0], "a": [1.0]}, schema=schema)
