"""The no-U-turn sampler of Pyro: chains one after another, each with a step size and coordinates of its own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, override

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bayeswm.base.errors import FitError, FitWarning, SpecError
from bayeswm.base.random import spawn_seeds
from bayeswm.inference.adaptation import Target
from bayeswm.inference.draws import Draws, all_diverge
from bayeswm.inference.hmc import HMC
from bayeswm.inference.joint import Inference, Inferred, Joint
from bayeswm.inference.pyro_state import own_pyro
from bayeswm.inference.tempering import temper

# draws of the prior that the climb begins at, at least
_STARTS = 16
# up to so many dimensions the mass matrix is dense
_DENSE = 64


class _Chain(NamedTuple):
    """One chain: positions (draws, D), the figures of each draw (draws,), and the step size."""

    positions: Tensor
    acceptance: Tensor
    divergent: Tensor
    steps: Tensor
    step_size: float
    evaluations: int


@dataclass(frozen=True)
class NUTS(Inference):
    """Pyro's no-U-turn sampler (Hoffman & Gelman 2014, multinomial variant), on a potential in plain torch.

    For one chain, and for shapes on which one trajectory length does not fit all: each trajectory ends where it turns.
    A step costs about a millisecond more than in :class:`HMC`, since trees are built in Python. Chains begin where
    those of :class:`HMC` do, after a climb from draws of the prior and in coordinates from the curvature at the best
    end; on top of these Pyro adapts a mass matrix, dense up to 64 dimensions, diagonal above.

    Parameters
    ----------
    draws, warmup : int
        Iterations of sampling, and of adaptation before, a chain.
    chains : int
        Chains, run one after another.
    target_acceptance : float
        Mean probability of acceptance that the step size aims at.
    max_tree_depth : int
        A trajectory has at most 2 to this power steps.

    Raises
    ------
    SpecError
        If a number makes no sense.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> seen = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    >>> def log_likelihood(values, rows):
    ...     return Normal(values["level"][:, None], 1.0).log_prob(seen if rows is None else seen[rows])
    >>> joint = Joint({"level": Normal(0.0, 10.0)}, log_likelihood, terms=3)
    >>> found = NUTS(draws=2000, warmup=200).infer(joint, generator=torch.Generator().manual_seed(0))
    >>> found.values["level"].shape, round(float(found.values["level"].mean()))
    (torch.Size([1, 2000]), 2)
    """

    draws: int = 1000
    warmup: int = 500
    chains: int = 1
    target_acceptance: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        for name, least in {"draws": 8, "warmup": 20, "chains": 1, "max_tree_depth": 1}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SpecError(f"expected {name} to be an integer >= {least}, got {value!r}")
        if not 0 < self.target_acceptance < 1:
            raise SpecError(f"expected target_acceptance between 0 and 1, got {self.target_acceptance}")

    @override
    def infer(self, joint: Joint, *, generator: torch.Generator, progress: bool = False) -> Inferred:
        """Return the posterior of the joint density.

        Raises
        ------
        FitError
            If no start has a finite density and gradient, or every trajectory diverges; it names the parameter.

        Warns
        -----
        FitWarning
            As :meth:`HMC.sample`.
        """
        names = joint.flat.labels
        climb = HMC(chains=max(self.chains, _STARTS))
        start = joint.flat.sample(4 * climb.chains, generator)
        target, begin = climb.approach(joint.log_density, start, generator=generator, labels=names)
        total = self.chains * (self.warmup + self.draws)
        with torch.inference_mode(False), tqdm(total=total, disable=not progress, desc="NUTS", unit="draw") as bar:
            chains = self._run(target, begin, generator, bar=bar)
            with torch.no_grad():
                x = target.position(torch.stack([c.positions for c in chains]))
                lp = torch.cat([joint.log_density(part) for part in x.flatten(0, 1).split(64)]).view(x.shape[:2])
                values = joint.values(x)
        acceptance, divergent, steps = (torch.stack(c) for c in list(zip(*chains, strict=True))[1:4])
        if bool(divergent.all()):
            gradient = Target(joint.log_density, len(names), dense=False)(x[:, -1])[1]
            raise FitError(all_diverge(gradient, names))
        size = sum(c.step_size for c in chains) / len(chains)
        drawn = Draws(
            x,
            lp,
            acceptance,
            divergent,
            step_size=size,
            trajectory_length=size * float(steps.mean()),
            evaluations=sum(c.evaluations for c in chains),
            labels=names,
        )
        drawn.warn()
        depth = (steps + 1).log2().ceil()
        stats = {
            "lp": lp,
            "acceptance_rate": acceptance,
            "diverging": divergent,
            "n_steps": steps.long(),
            "tree_depth": depth.long(),
            "reached_max_treedepth": depth >= self.max_tree_depth,
        }
        figures = {
            "divergences": drawn.divergences,
            "acceptance": float(acceptance.mean()),
            "step_size": size,
            "evaluations": drawn.evaluations,
        }
        return Inferred(values, stats, figures)

    @override
    def update(self, joint: Joint, since: int, inferred: Inferred, *, generator: torch.Generator) -> Inferred:
        """Return the posterior given all rows by tempered resampling; draws are moved by :meth:`HMC.rejuvenate`."""
        return temper(joint, since, inferred, rejuvenate=HMC().rejuvenate, generator=generator)

    def _run(self, target: Target, begin: Tensor, generator: torch.Generator, *, bar: tqdm) -> list[_Chain]:
        done: list[_Chain] = []
        for start, seed in zip(begin, spawn_seeds(generator, self.chains), strict=False):
            try:
                with own_pyro(seed), torch.enable_grad():
                    done.append(self._chain(target, start, bar))
                interrupted = len(done[-1].positions) < self.draws
            except KeyboardInterrupt:
                if not done:
                    raise
                interrupted = True
            if interrupted:
                done = [c for c in done if len(c.positions) == self.draws] or done
                kept = f"{len(done)} chain(s) of {len(done[0].positions)} draws"
                warnings.warn(f"interrupted: {kept} are kept", FitWarning, stacklevel=4)
                break
        return done

    def _chain(self, target: Target, start: Tensor, bar: tqdm) -> _Chain:
        from pyro import infer

        evaluations = 0

        def potential(z: Mapping[str, Tensor]) -> Tensor:
            nonlocal evaluations
            evaluations += 1
            return -target.log_density(target.position(z["z"][None]))[0]

        sampler: Any = infer.NUTS(
            potential_fn=potential,
            full_mass=len(start) <= _DENSE,
            target_accept_prob=self.target_acceptance,
            max_tree_depth=self.max_tree_depth,
        )
        sampler.initial_params = z = {"z": start.clone()}
        sampler.setup(self.warmup)
        for _ in range(self.warmup):
            z = sampler.sample(z)
            bar.update()
        positions: list[Tensor] = []
        figures: list[tuple[float, bool, int]] = []
        mean, diverged = 0.0, 0
        try:
            for i in range(1, self.draws + 1):
                before = evaluations
                z = sampler.sample(z)
                positions.append(z["z"].detach())
                # the sampler keeps the mean of the acceptances so far and a list of the divergences
                acceptance = i * sampler._mean_accept_prob - (i - 1) * mean
                mean = sampler._mean_accept_prob
                found = len(sampler.diagnostics()["divergences"])
                figures.append((min(max(acceptance, 0.0), 1.0), found > diverged, evaluations - before))
                diverged = found
                bar.update()
        except KeyboardInterrupt:
            if len(positions) < 8:
                raise
        acceptance, divergent, steps = (torch.tensor(c, dtype=torch.float64) for c in zip(*figures, strict=True))
        size = float(sampler.step_size)
        return _Chain(torch.stack(positions), acceptance, divergent.bool(), steps, size, evaluations)
