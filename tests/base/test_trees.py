from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bayeswm.base import SpecError
from bayeswm.base.trees import tree_map


class Pair(NamedTuple):
    state: Tensor
    rest: object


def test_every_tensor_of_a_nested_carry_is_changed() -> None:
    tree = Pair(torch.zeros(2), {"a": [torch.ones(1), (torch.ones(1), None)], "clock": 3})
    out = tree_map(lambda v: v + 1, tree)
    assert isinstance(out, Pair)
    assert out.state.tolist() == [1.0, 1.0]
    assert out.rest == {"a": [torch.tensor([2.0]), (torch.tensor([2.0]), None)], "clock": 3}


def test_other_nodes_are_refused() -> None:
    with pytest.raises(SpecError, match="got set"):
        tree_map(lambda v: v, {"a": {1}})
