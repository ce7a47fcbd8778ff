"""Stochastic variational inference: the law of a family that is nearest to the posterior."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, override

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.base.random import permutation, standard_normal
from bayeswm.inference.draws import no_start
from bayeswm.inference.guides import AutoNormal, Guide
from bayeswm.inference.importance import pareto_smooth
from bayeswm.inference.joint import Inference, Inferred, Joint

# draws of the prior that the family begins at the best of
_STARTS = 64
# the learning rate falls to this share of itself
_DECAY = 0.01
# after this share of the steps the family's numbers are averaged, which takes the steps' noise out of them
_AVERAGED = 0.75
# draws whose log density is found together
_TOGETHER = 64
# weights that are worth this share of the draws are as good as equal
_EQUAL = 0.95
# weights whose tail is heavier than this cannot be relied on
_PARETO_LIMIT = 0.7


class Approximation(NamedTuple):
    """Draws x (n, D) of the fitted law in unconstrained coordinates, their log density (n,), and the ELBO by step."""

    x: Tensor
    log_density: Tensor
    elbo: list[float]


@dataclass(frozen=True)
class SVI(Inference):
    """Stochastic variational inference: a family of laws climbs the evidence lower bound (ELBO) by Adam.

    The laws are those of vectors without bounds: a positive parameter has the law of the exponential of a Gaussian.
    Gradients go through the draws (Kingma & Welling 2014) without the part of the score, whose mean is 0 (Roeder, Wu &
    Duvenaud 2017), so that they have no noise where the family contains the posterior. The learning rate falls by a
    factor 100 over the steps, and the last quarter of the steps is averaged.

    What it finds is the best of the family, which may be far from the posterior: ``pareto_k`` of the importance ratios
    says how far (Yao, Vehtari, Simpson & Gelman 2018). Above 0.7 a warning does, unless the weights are worth 95 % of
    the draws (``weight_share``).

    Parameters
    ----------
    guide : Guide or callable
        The family: :class:`AutoNormal` (the default), :class:`AutoMultivariateNormal`,
        :class:`AutoLowRankMultivariateNormal`; or a guide of Pyro over the same sites: a function without arguments,
        or something that makes a guide from a Pyro model, such as the class ``pyro.infer.autoguide.AutoIAFNormal``.
    steps : int
        Steps of Adam.
    learning_rate : float
        Of the first step, in unconstrained coordinates.
    particles : int
        Draws a step; the gradient is their mean.
    batch : int, optional
        Rows of the data a step, the likelihood scaled to all of them; by default all rows in each.
    draws : int
        Draws of the fitted law.

    Raises
    ------
    SpecError
        If a setting makes no sense.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> seen = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    >>> def log_likelihood(values, rows):
    ...     return Normal(values["level"][:, None], 1.0).log_prob(seen if rows is None else seen[rows])
    >>> joint = Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=3)
    >>> found = SVI(steps=1000).infer(joint, generator=torch.Generator().manual_seed(0))
    >>> found.values["level"].shape, round(float(found.values["level"].mean()))
    (torch.Size([1, 1000]), 2)
    """

    guide: Guide | Callable[..., Any] = field(default_factory=AutoNormal)
    steps: int = 2000
    learning_rate: float = 0.05
    particles: int = 8
    batch: int | None = None
    draws: int = 1000

    def __post_init__(self) -> None:
        if not callable(self.guide) and not isinstance(self.guide, Guide):
            raise SpecError(f"expected a guide such as AutoNormal() or a guide of Pyro, got {self.guide!r}")
        if isinstance(self.guide, type) and issubclass(self.guide, Guide):
            raise SpecError(f"expected a guide, got the class {self.guide.__name__}: write {self.guide.__name__}()")
        for name, least in {"steps": 1, "particles": 1, "batch": 1, "draws": 40}.items():
            value = getattr(self, name)
            if name == "batch" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpecError(f"expected {name} to be an integer >= {least}, got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"expected learning_rate > 0, got {self.learning_rate}")

    @override
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        """Return draws of the member of the family that is nearest to the posterior.

        Raises
        ------
        SpecError
            If the sites of a guide of Pyro are not the parameters.
        FitError
            If no draw of the prior has a finite density, or the ELBO or its gradient is not finite at some step; it
            names the step and the parameter.

        Warns
        -----
        FitWarning
            If Pareto k is above 0.7 and the weights are unequal, or the ELBO still rose at the end; if the run was
            interrupted from the keyboard: the state so far is kept.
        """
        with torch.inference_mode(False), torch.no_grad():
            with tqdm(total=self.steps, disable=not progress, desc="SVI", unit="step") as bar:
                if isinstance(self.guide, Guide):
                    found = _fit(self, self.guide, joint, generator=generator, bar=bar)
                else:
                    from bayeswm.inference.pyro_guide import fit_pyro

                    found = fit_pyro(self, self.guide, joint, generator=generator, bar=bar)
            return _inferred(joint, found)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.learning_rate * _DECAY ** (step / self.steps)

    def batches(self, terms: int, generator: torch.Generator) -> Iterator[Tensor | None]:
        """Yield the rows of each step: a random order, cut into batches, again and again."""
        while self.batch is None or self.batch >= terms:
            yield None
        while True:
            # a last batch that is smaller would give its rows more weight
            yield from permutation(terms, generator, device="cpu").split(self.batch)[: terms // self.batch]

    @override
    def config(self) -> dict[str, Any]:
        if not isinstance(self.guide, Guide) or type(self.guide).__name__ not in Guide.registry:
            raise SpecError(
                f"cannot save a guide of your own; use one of {', '.join(Guide.registry)}, or keep the draws "
                "(model.posterior)"
            )
        return {**asdict(self), "guide": {"name": type(self.guide).__name__, "config": self.guide.config()}}

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> SVI:
        name = config["guide"]["name"]
        if name not in Guide.registry:
            raise SpecError(f"expected a guide among {', '.join(Guide.registry)}, got {name!r}")
        return cls(**{**config, "guide": Guide.registry[name].from_config(config["guide"]["config"])})


def _fit(settings: SVI, guide: Guide, joint: Joint, *, generator: torch.Generator, bar: tqdm) -> Approximation:
    size, labels = joint.flat.size, joint.flat.labels
    theta = guide.start(_centre(joint, generator), generator)
    count = guide.noise(size)
    optimiser = torch.optim.Adam([theta], lr=settings.learning_rate, fused=True, maximize=True)
    elbo: list[float] = []
    ones = torch.ones(settings.particles, dtype=torch.float64)
    total, averaged = torch.zeros_like(theta), 0
    try:
        for rows in settings.batches(joint.terms, generator):
            noise = standard_normal((settings.particles, count), generator, dtype=torch.float64, device="cpu")
            drawn = guide.draw(theta, noise, size)
            with torch.enable_grad():
                x = drawn.x.requires_grad_()
                value = joint.log_density(x, rows)
                (slope,) = torch.autograd.grad(value, x, ones)
            gradient = guide.pull(theta, noise, slope - drawn.score)
            bound = float((value.detach() - drawn.log_density).mean())
            if not math.isfinite(bound + 0 * float(gradient.sum())):
                bad = [labels[i] for i in (~slope.isfinite()).any(0).nonzero()[:, 0].tolist()]
                raise FitError(not_finite(len(elbo), bad))
            elbo.append(bound)
            theta.grad = gradient
            optimiser.param_groups[0]["lr"] = settings.rate(len(elbo) - 1)
            optimiser.step()
            if len(elbo) > _AVERAGED * settings.steps:
                total, averaged = total.add_(theta), averaged + 1
            bar.update()
            if len(elbo) == settings.steps:
                break
    except KeyboardInterrupt:
        interrupted(elbo)
    theta = total / averaged if averaged else theta
    noise = standard_normal((settings.draws, count), generator, dtype=torch.float64, device="cpu")
    drawn = guide.draw(theta, noise, size)
    return Approximation(drawn.x, drawn.log_density, elbo)


def not_finite(step: int, names: list[str]) -> str:
    """Say that a step went wrong, and in which parameters."""
    where = f"the gradient is not finite in {', '.join(names[:5])}" if names else "the log density is not finite"
    return (
        f"step {step + 1}: expected a finite ELBO and gradient: {where}; a lower learning_rate may help, or look at "
        "priors and data"
    )


def interrupted(elbo: list[float]) -> None:
    """Warn that the state so far is kept, where there is one."""
    if not elbo:
        raise KeyboardInterrupt
    warnings.warn(f"interrupted after {len(elbo)} steps: the state so far is kept", FitWarning, stacklevel=5)


def _centre(joint: Joint, generator: torch.Generator) -> Tensor:
    start = joint.flat.sample(_STARTS, generator)
    value = joint.log_density(start)
    if not bool(value.isfinite().any()):
        raise FitError(no_start(joint.log_density, start, joint.flat.labels))
    return start[value.nan_to_num(nan=-torch.inf, posinf=-torch.inf).argmax()]


def _inferred(joint: Joint, found: Approximation) -> Inferred:
    lp = torch.cat([joint.log_density(part) for part in found.x.split(_TOGETHER)])
    ratio = (lp - found.log_density).nan_to_num(nan=-torch.inf)
    weights = pareto_smooth(ratio)
    pareto_k, share = weights.pareto_k, weights.size / len(ratio)
    steps, quarter = torch.tensor(found.elbo, dtype=torch.float64), len(found.elbo) // 4
    rise, error = 0.0, math.inf
    if quarter >= 2:
        last, before = steps[-quarter:], steps[-2 * quarter : -quarter]
        rise = float(last.mean() - before.mean())
        error = math.sqrt(float(last.var() + before.var()) / quarter)
    problems: list[str] = []
    if rise > 0.5 + 4 * error:
        problems.append(f"the ELBO still rose by {rise:.2g} in the last quarter of {len(steps)} steps: raise steps")
    # nearly equal weights may have any tail: what is beyond a flat top is tiny there
    if not pareto_k <= _PARETO_LIMIT and share < _EQUAL:
        problems.append(
            f"Pareto k {pareto_k:.2f} above {_PARETO_LIMIT}: the family misses part of the posterior; try "
            "AutoMultivariateNormal(), or HMC()"
        )
    if problems:
        warnings.warn("; ".join(problems), FitWarning, stacklevel=4)
    values = {k: v[None] for k, v in joint.values(found.x).items()}
    figures = {
        "elbo": float(ratio.mean()),
        "elbo_error": float(ratio.std()) / math.sqrt(len(ratio)),
        "elbo_rise": rise,
        "pareto_k": pareto_k,
        "weight_share": share,
        "steps": float(len(steps)),
    }
    return Inferred(values, {"lp": lp[None], "log_q": found.log_density[None]}, figures)
