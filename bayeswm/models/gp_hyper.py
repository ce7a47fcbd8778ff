"""The hyper-parameters of a fitted Gaussian process, with names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import override

from torch import Tensor

from bayeswm.base.errors import UnknownVariableError


@dataclass(frozen=True, eq=False, repr=False)
class HyperTable(Mapping[str, Tensor]):
    """Hyper-parameters by name, each of shape (S, count); printed, a table with a column for each output.

    Length scales are those of standardised inputs, periods and their inputs in the input's own units; signals and noise
    are standard deviations in the state's units.

    Attributes
    ----------
    outputs : tuple of str
        State variables.
    named : dict of str to Tensor, shape (S, count)
        The kernel's.
    inputs : dict of str to tuple of str
        What each value belongs to; empty for signals.
    signal : Tensor, shape (S,)
        Standard deviation of the whole function, all terms together.
    noise : Tensor, shape (S,)
        Standard deviation of the noise.

    Examples
    --------
    >>> import torch
    >>> HyperTable(("x",), {"RBF.length": torch.ones(1, 1)}, {"RBF.length": ("x",)},
    ...            signal=torch.ones(1), noise=0.1 * torch.ones(1))
                         x
    RBF.length: x        1
    noise              0.1
    """

    outputs: tuple[str, ...]
    named: Mapping[str, Tensor]
    inputs: Mapping[str, tuple[str, ...]]
    signal: Tensor
    noise: Tensor

    @override
    def __getitem__(self, name: str) -> Tensor:
        if name not in self.named:
            raise UnknownVariableError.of(name, tuple(self.named))
        return self.named[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.named)

    @override
    def __len__(self) -> int:
        return len(self.named)

    @override
    def __repr__(self) -> str:
        rows = [("", list(self.outputs))]
        for name, values in self.items():
            labels = self.inputs[name]
            shown = [f"{name}: {label}" for label in labels] if len(labels) == values.shape[1] else [name]
            rows += [(r, [f"{v:.3g}" for v in column]) for r, column in zip(shown, values.mT.tolist(), strict=True)]
        rows.append(("noise", [f"{v:.3g}" for v in self.noise.tolist()]))
        wide = max(len(r) for r, _ in rows) + 2
        return "\n".join(r.ljust(wide) + " ".join(c.rjust(8) for c in cells) for r, cells in rows)
