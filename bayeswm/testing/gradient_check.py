"""Check that rollouts can be differentiated, for planners and for learning through a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from bayeswm.base.random import standard_normal
from bayeswm.base.rollout import rollout
from bayeswm.testing.case import PARTICLES, Case
from bayeswm.testing.report import Breach

WIDTH = {torch.float64: 1e-5, torch.float32: 1e-2}
# relative gap to central differences; loose in float32, where the two points must be far apart
AGREE = {torch.float64: 1e-3, torch.float32: 0.2}
# recorded actions often sit on their limits, where a clipped torque has two slopes: ask inside the recorded range, and
# believe in a wrong gradient only if it is wrong at several places
PLACES = (0.83, 0.67, 0.51)

CAUSE = "the graph is cut on the way (detach, no_grad, .item(), NumPy), or an operation has no finite gradient there"


def gradients_are_right(case: Case) -> Iterator[Breach]:
    """A rollout's mean has finite gradients in actions and start states, and they agree with finite differences."""
    noise = case.noise()

    def outcome(state: Tensor, plan: Tensor) -> Tensor:
        r = rollout(case.worlds, state, plan, particles=PARTICLES, context=case.given_context(), noise=noise)
        return (r.mean[..., -1, :] / case.scale.to(r.mean)).sum()

    inputs = {"start state": case.states, "actions": case.plan}
    for name in [n for n, v in inputs.items() if v.numel()]:
        found: list[Breach] = []
        for share in PLACES:
            at = {k: v.flatten(0, -2).mean(0) * (1 - share) + v * share for k, v in inputs.items()}
            breach = _breach(case, outcome, at, name=name)
            if breach is None:
                break
            found.append(breach)
        if len(found) == len(PLACES):
            yield found[0]


def _breach(
    case: Case, outcome: Callable[[Tensor, Tensor], Tensor], inputs: Mapping[str, Tensor], *, name: str
) -> Breach | None:
    with torch.enable_grad():
        leaves = {k: v.detach().clone().requires_grad_() for k, v in inputs.items()}
        value = outcome(*leaves.values())
        gradient = torch.autograd.grad(value, leaves[name], allow_unused=True)[0] if value.requires_grad else None
    if gradient is not None and not bool(gradient.isfinite().all()):
        got = f"{int((~gradient.isfinite()).sum())} of {gradient.numel()} that are not"
        return Breach(f"the gradient of a rollout's mean in the {name} is finite", "finite numbers", got, CAUSE)
    values = inputs[name]
    size = values.abs().amax(0, keepdim=True)
    direction = standard_normal(tuple(values.shape), case.generator(11), dtype=values.dtype, device=values.device)
    direction = direction * torch.where(size > 0, size, 1.0)
    width = WIDTH.get(values.dtype, 1e-2)
    with torch.no_grad():
        high, low = (
            outcome(*{**inputs, name: values + sign * width * direction}.values()).double() for sign in (1, -1)
        )
    slope = float((high - low) / (2 * width))
    got = 0.0 if gradient is None else float((gradient.double() * direction.double()).sum())
    # what rounding alone makes of a difference of two values of this size
    floor = 1e3 * torch.finfo(values.dtype).eps * (1 + abs(float(value.detach()))) / width
    if abs(got - slope) <= AGREE.get(values.dtype, 0.2) * abs(slope) + floor:
        return None
    promise = f"the gradient of a rollout's mean in the {name} agrees with finite differences"
    return Breach(promise, f"a slope of {slope:.4g}", "no gradient" if gradient is None else f"{got:.4g}", CAUSE)
