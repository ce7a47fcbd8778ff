"""Nested tensors: what a carry is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bayeswm.base.errors import SpecError


def tree_map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply a function to every tensor of nested tuples, named tuples, lists and dictionaries.

    Raises
    ------
    SpecError
        For any other kind of node.

    Examples
    --------
    >>> import torch
    >>> tree_map(lambda v: v + 1, {"a": torch.zeros(1), "b": (torch.ones(1),)})
    {'a': tensor([1.]), 'b': (tensor([2.]),)}
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {k: tree_map(change, v) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(change, v) for v in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(tree_map(change, v) for v in tree)
    if tree is None or isinstance(tree, int):
        return tree
    raise SpecError(f"expected a carry of tensors, tuples, lists and dictionaries, got {type(tree).__name__}")
