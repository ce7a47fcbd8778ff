import numpy as np
import pytest
import xarray as xr

from bayeswm.base.errors import SupportWarning
from bayeswm.causal import Positivity
from bayeswm.causal.support.positivity_report import warn_of_thin_support


def report(inside: list[float], rows: list[float], supported: list[bool]) -> Positivity:
    n = len(inside)
    return Positivity(
        xr.Dataset(
            {
                "inside": ("horizon", np.array(inside)),
                "distance": ("horizon", np.full(n, 0.5)),
                "effective_rows": ("horizon", np.array(rows)),
                "supported": ("horizon", np.array(supported)),
                "epistemic_growth": (("horizon", "variable"), np.array([[1.0, 2.5]] * n)),
            },
            coords={"horizon": np.arange(1, n + 1), "variable": ["x", "v"]},
        )
    )


def test_a_report_reads_as_a_table() -> None:
    found = report([0.9, 0.5], [100.0, 12.0], [True, False])
    assert not found.supported
    assert found.text == "thin support at 1 of 2 steps, first at step 2 (at worst 50 % inside, 12 effective rows)"
    assert repr(found).splitlines()[1:] == [
        "  step   inside  distance     rows   growth",
        "     1      90%      0.50      100      2.5",
        "     2      50%      0.50       12      2.5",
    ]
    with pytest.warns(SupportWarning, match="the plan: thin support.*extrapolation"):
        warn_of_thin_support(found, "the plan")


def test_support_at_every_step() -> None:
    found = report([0.9, 0.95], [100.0, 80.0], [True, True])
    assert found.supported
    assert found.text == "inside the log's support at all 2 steps (at worst 90 % inside, 80 effective rows)"
