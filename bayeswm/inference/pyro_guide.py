"""Variational inference with a guide that the user wrote in Pyro."""

from __future__ import annotations

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, SpecError
from bayeswm.base.random import spawn_seeds
from bayeswm.inference.constraints import prepared
from bayeswm.inference.joint import Joint
from bayeswm.inference.pyro_state import own_pyro

if TYPE_CHECKING:
    from bayeswm.inference.svi import SVI, Approximation


def fit_pyro(
    settings: SVI, guide: Callable[..., Any], joint: Joint, *, generator: torch.Generator, bar: tqdm
) -> Approximation:
    """Fit a guide of Pyro to a joint density by Pyro's ``Trace_ELBO``, and draw from it.

    Parameters
    ----------
    settings : SVI
        Steps, learning rate, particles, batch and draws.
    guide : callable
        A guide without arguments, or something that makes one from a Pyro model.
    joint : Joint
        The density; its parameters are the sites.
    generator : torch.Generator
        Source of all randomness.
    bar : tqdm
        Moves on with each step.

    Raises
    ------
    SpecError
        If sites are missing, unknown or of another shape.
    FitError
        If the ELBO or a gradient is not finite.
    """
    from bayeswm.inference.svi import Approximation, interrupted

    elbo: list[float] = []
    with own_pyro(spawn_seeds(generator, 1)[0]), torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered NaN")  # an error here
        ascent = _Ascent(settings, guide, joint)
        try:
            for rows in settings.batches(joint.terms, generator):
                elbo.append(ascent.step(rows, len(elbo)))
                bar.update()
                if len(elbo) == settings.steps:
                    break
        except KeyboardInterrupt:
            interrupted(elbo)
        with torch.no_grad():
            drawn = [ascent.draw() for _ in range(settings.draws)]
    values = {k: torch.stack([v[k] for v, _ in drawn]).detach() for k in joint.laws}
    x = joint.flat.unconstrain(values)
    # the guide's density is one of the parameters, the draws' that of vectors
    log_density = torch.stack([log_q for _, log_q in drawn]).detach() + joint.flat.constrain(x)[1]
    return Approximation(x, log_density, elbo)


class _Ascent:
    """A guide, its optimiser, and the joint density as a Pyro model."""

    def __init__(self, settings: SVI, guide: Callable[..., Any], joint: Joint) -> None:
        import pyro
        from pyro.infer import Trace_ELBO

        self.settings, self.joint, self.rows = settings, joint, None
        self.laws = {name: _for_pyro(law) for name, law in joint.laws.items()}
        self.guide = guide if _without_arguments(guide) else guide(self.model)
        if not callable(self.guide):
            raise SpecError(f"expected {_called(guide)} to make a guide from a model, got {self.guide!r}")
        with pyro.validation_enabled(True):
            _check_sites(self._trace(), joint.laws, who=_called(guide))
        self.objective = Trace_ELBO(num_particles=settings.particles)
        if not self._numbers():
            raise SpecError(f"expected parameters in {_called(guide)} (pyro.param), got none: nothing can be fitted")
        self.optimiser = torch.optim.Adam(list(self._numbers().values()), lr=settings.learning_rate)
        self.known = len(self._numbers())

    def model(self) -> None:
        import pyro

        values = {name: pyro.sample(name, law).double()[None] for name, law in self.laws.items()}
        rows = self.rows
        scale = 1.0 if rows is None else self.joint.terms / len(rows)
        pyro.factor("likelihood", scale * self.joint.log_likelihood(values, rows).sum())

    def step(self, rows: Tensor | None, index: int) -> float:
        from bayeswm.inference.svi import not_finite

        self.rows = rows
        self.optimiser.zero_grad()
        bound = -self.objective.loss_and_grads(self.model, self.guide)
        numbers = self._numbers()
        if len(numbers) > self.known:  # parameters that the guide made later
            known = {id(p) for group in self.optimiser.param_groups for p in group["params"]}
            self.optimiser.add_param_group({"params": [p for p in numbers.values() if id(p) not in known]})
            self.known = len(numbers)
        bad = [k for k, v in numbers.items() if v.grad is not None and not bool(v.grad.isfinite().all())]
        if bad or not math.isfinite(bound):
            raise FitError(not_finite(index, bad))
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(index)
        self.optimiser.step()
        return bound

    def draw(self) -> tuple[dict[str, Tensor], Tensor]:
        found = self._trace()
        return {k: found.nodes[k]["value"].double() for k in self.laws}, torch.as_tensor(found.log_prob_sum()).double()

    def _trace(self) -> Any:
        from pyro import poutine

        return poutine.trace(self.guide).get_trace()

    @staticmethod
    def _numbers() -> dict[str, Tensor]:
        import pyro

        # a network may stand there under two names
        return dict({id(p): (k, p) for k, p in pyro.get_param_store().named_parameters()}.values())


def closest(name: str, names: list[str]) -> str:
    """Return a question that names the likeliest spelling, or nothing."""
    folded = {k.casefold(): k for k in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


def _check_sites(trace: Any, laws: Mapping[str, Distribution], *, who: str) -> None:
    sites = {
        k: v["value"]
        for k, v in trace.nodes.items()
        if v["type"] == "sample"
        and not v["is_observed"]
        and not v["infer"].get("is_auxiliary")
        and type(v["fn"]).__name__ != "_Subsample"  # of a plate
    }
    missing, unknown = [k for k in laws if k not in sites], [k for k in sites if k not in laws]
    if missing or unknown:
        said = [f"{k} is missing{closest(k, unknown)}" for k in missing]
        said += [f"{k} is unknown{closest(k, list(laws))}" for k in unknown]
        raise SpecError(f"expected {who} to have the sites {', '.join(laws)}: {'; '.join(said)}")
    for name, law in laws.items():
        shape = law.batch_shape + law.event_shape
        if sites[name].shape != shape:
            raise SpecError(f"{who}, {name}: expected shape {tuple(shape)}, got {tuple(sites[name].shape)}")


def _for_pyro(law: Distribution) -> Any:
    """Return a law of torch as one that Pyro can sample, with all axes as one event."""
    from pyro.distributions import Independent

    # Pyro's guides make their parameters in torch's default format
    law = prepared(law, torch.get_default_dtype())
    return Independent(law, len(law.batch_shape), validate_args=False)


def _without_arguments(guide: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(guide).parameters
    except ValueError:
        return False


def _called(guide: Callable[..., Any]) -> str:
    return f"the guide {getattr(guide, '__name__', type(guide).__name__)}"
