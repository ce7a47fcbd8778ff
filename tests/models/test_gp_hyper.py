"""The table of hyper-parameters: by name, and as it prints."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.models.gp_hyper import HyperTable


def table():
    values = {"RBF.length": torch.tensor([[0.5, 2.0], [1.0, 4.0]]), "RBF.signal": torch.tensor([[3.0], [1e-5]])}
    inputs = {"RBF.length": ("sin angle", "speed"), "RBF.signal": ()}
    return HyperTable(("angle", "speed"), values, inputs, signal=torch.tensor([3.0, 1e-5]), noise=torch.ones(2))


def test_it_is_a_mapping_and_prints_as_a_table():
    hyper = table()
    assert list(hyper) == ["RBF.length", "RBF.signal"]
    assert hyper["RBF.length"][1].tolist() == [1.0, 4.0]
    assert [line.split() for line in repr(hyper).splitlines()] == [
        ["angle", "speed"],
        ["RBF.length:", "sin", "angle", "0.5", "1"],
        ["RBF.length:", "speed", "2", "4"],
        ["RBF.signal", "3", "1e-05"],
        ["noise", "1", "1"],
    ]
    assert len({len(line) for line in repr(hyper).splitlines()}) == 1


def test_an_unknown_name_is_an_error_with_the_closest():
    with pytest.raises(bwm.UnknownVariableError, match=r"RBF\.length"):
        table()["RBF.lenght"]
