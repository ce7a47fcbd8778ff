"""Whether an effect can change while everything observed stays as it is, to first order around a random model.

The derivatives of the observed law in all tables of a model have a null space: directions in which models with the same
observed law lie. An identifiable effect is constant along them. An effect that is not identifiable is not, provided
that hidden causes have enough values. This knows nothing of hedges or of the algorithm, and covers conditional effects.
"""

import string

import numpy as np
import torch
from torch.autograd.functional import jacobian

from bayeswm.causal import CausalGraph


def slope_of_effect(graph: CausalGraph, query, rng: np.random.Generator, *, hidden_values=4) -> float:
    """Largest gradient of the effect within the null space, relative to its largest gradient at all."""
    hidden = {pair: f"u{i}" for i, pair in enumerate(graph.confounded)}
    size = dict.fromkeys(graph.order, 2) | dict.fromkeys(hidden.values(), hidden_values)
    axes = {u: (u,) for u in hidden.values()}
    for name in graph.order:
        axes[name] = (*sorted(graph.parents(name)), *(u for pair, u in hidden.items() if name in pair), name)
    letter = dict(zip(axes, string.ascii_letters, strict=False))
    shapes = {name: [size[axis] for axis in its] for name, its in axes.items()}
    counts = [int(np.prod(shape)) for shape in shapes.values()]

    def law(logits, do=()):
        parts = zip(axes, logits.split(counts), strict=True)
        used = {name: (axes[name], part.view(shapes[name]).softmax(-1)) for name, part in parts}
        used |= {name: ((name,), logits.new_ones(2)) for name in do}
        spec = ",".join("".join(letter[axis] for axis in its) for its, _ in used.values())
        return torch.einsum(
            f"{spec}->{''.join(letter[n] for n in graph.order)}", *(table for _, table in used.values())
        )

    def effect(logits):
        kept = (*query.do, *query.given, *query.outcome)
        spec = "".join(letter[n] for n in graph.order) + "->" + "".join(letter[n] for n in kept)
        joint = torch.einsum(spec, law(logits, query.do))
        outcome = tuple(range(len(kept) - len(query.outcome), len(kept)))
        return (joint / joint.sum(outcome, keepdim=True)).flatten()

    logits = torch.as_tensor(rng.normal(size=sum(counts)))
    observed = jacobian(lambda at: law(at).flatten(), logits).numpy()
    moved = jacobian(effect, logits).numpy()
    _, singular, right = np.linalg.svd(observed, full_matrices=False)
    seen = right[singular > 1e-9 * singular[0]]
    along_null = moved - moved @ seen.T @ seen
    return np.linalg.norm(along_null, axis=1).max() / np.linalg.norm(moved, axis=1).max()
