import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from bayeswm.base.shapes import common_shape


@given(mutually_broadcastable_shapes(num_shapes=3, min_side=0))
def test_equals_torch(found: object) -> None:
    shapes = found.input_shapes  # type: ignore[attr-defined]
    assert common_shape(*shapes) == torch.broadcast_shapes(*shapes)
    assert isinstance(common_shape(*shapes), torch.Size)


def test_of_nothing_and_of_what_does_not_fit() -> None:
    assert common_shape() == torch.Size([])
    with pytest.raises(RuntimeError):
        common_shape((2, 3), (3, 3))
    with pytest.raises(RuntimeError):
        common_shape((0,), (2,))
