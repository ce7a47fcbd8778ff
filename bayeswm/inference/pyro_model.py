"""A model that the user wrote in Pyro, as a joint density."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, override

import torch
from torch import Tensor
from torch.distributions import Distribution, biject_to

from bayeswm.base.errors import SpecError
from bayeswm.base.random import spawn_seeds
from bayeswm.inference.constraints import Unconstrained
from bayeswm.inference.joint import Joint, Values
from bayeswm.inference.pyro_state import own_pyro


class PyroJoint(Joint):
    """The joint density of a Pyro model and the data in it.

    Sites that are not observed are the parameters, whatever their laws depend on; observed sites and factors are the
    likelihood. Where every observed site is in a plate of the same length (its last batch axis), a row is one element
    of that plate; otherwise all data are one row. The program runs once for all W draws, by ``torch.func.vmap``, where
    it can (no ``if`` on a value, no ``.item()``), and takes a few milliseconds; otherwise once a draw, which takes W
    times as long: prefer :class:`NUTS` then. Choosing rows saves no time.

    Parameters
    ----------
    model : callable
        A Pyro model: the same sites in every run, no ``pyro.param``, no subsampling, no discrete latent site.
    *data : object
        What it is called with.

    Raises
    ------
    SpecError
        If the program fails, has no latent site, or does one of the above.

    Examples
    --------
    >>> import pyro
    >>> import pyro.distributions as dist
    >>> def model(seen):
    ...     level = pyro.sample("level", dist.Normal(0.0, 10.0))
    ...     with pyro.plate("rows", len(seen)):
    ...         pyro.sample("seen", dist.Normal(level, 1.0), obs=seen)
    >>> joint = PyroJoint(model, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    >>> joint.terms, joint.log_density(torch.tensor([[2.0], [9.0]], dtype=torch.float64)).numpy().round(1).tolist()
    (3, [-7.0, -80.9])
    """

    def __init__(self, model: Callable[..., Any], *data: Any) -> None:
        self._program = program = _Program(model, data)
        super().__init__(program.laws, lambda values, rows: program.terms(values, rows)[1], terms=program.rows)
        self.flat = _Sites(program)

    @property
    def vectorised(self) -> bool:
        """Whether the program runs once for all draws."""
        return self._program.vectorised

    @override
    def log_density(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        values, log_det = self.flat.constrain(x)
        # one run of the program gives both
        prior, each = self._program.terms(values, rows)
        return prior + log_det + (1.0 if rows is None else self.terms / len(rows)) * each.sum(-1)


class _Sites(Unconstrained):
    """The sites as flat vectors; their laws may depend on each other, so that the program itself knows the prior."""

    def __init__(self, program: _Program) -> None:
        super().__init__(program.laws)
        self._program = program

    @override
    def log_prior(self, values: Values) -> Tensor:
        return self._program.terms(values, None)[0]

    @override
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.unconstrain(self._program.prior(n, spawn_seeds(generator, 1)[0]))


class _Run(NamedTuple):
    """One run: latent sites with their laws and values, observed log densities, and what they are."""

    laws: dict[str, Distribution]
    values: dict[str, Tensor]
    prior: Tensor
    observed: list[Tensor]


class _Program:
    """The user's program, and what is known of it from two runs."""

    def __init__(self, model: Callable[..., Any], data: tuple[Any, ...]) -> None:
        self.model, self.data, self.name = model, data, getattr(model, "__name__", type(model).__name__)
        with torch.no_grad():
            first, second = (self._first(seed) for seed in (0, 1))
            self.laws = first.laws
            if not first.laws:
                raise SpecError(f"expected latent sites in the Pyro model {self.name}, got none: nothing is inferred")
            same = {k: v.shape for k, v in first.values.items()} == {k: v.shape for k, v in second.values.items()}
            if not same or [v.shape for v in first.observed] != [v.shape for v in second.observed]:
                raise SpecError(f"expected the same sites and shapes in every run of {self.name}, got others")
            if not first.observed:
                raise SpecError(f"expected an observed site in the Pyro model {self.name} (obs=...), got none")
            for name in first.laws:
                self._check_support(name, first, second)
            lengths = {v.shape[-1] for v in first.observed if v.ndim}
            self.rows = lengths.pop() if len(lengths) == 1 else 1
            self.vectorised = self._can_be_vectorised(first, second)

    def terms(self, values: Values, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return log prior (*batch,) and the log density of rows (*batch, n) at parameters (*batch, ...)."""
        name, law = next(iter(self.laws.items()))
        batch = values[name].shape[: values[name].ndim - len(law.batch_shape + law.event_shape)]
        flat = {k: v.reshape(-1, *v.shape[len(batch) :]) for k, v in values.items() if k in self.laws}
        with own_pyro(0):
            prior, each = self._many(flat, vectorised=self.vectorised)
        each = each if rows is None else each[:, rows]
        return prior.reshape(batch), each.reshape(*batch, -1)

    def prior(self, n: int, seed: int) -> dict[str, Tensor]:
        """Return n draws of every site, each from a run of the program."""
        with own_pyro(seed), torch.no_grad():
            drawn = [self._run(None).values for _ in range(n)]
        return {k: torch.stack([v[k].double() for v in drawn]) for k in self.laws}

    def _many(self, values: Mapping[str, Tensor], *, vectorised: bool) -> tuple[Tensor, Tensor]:
        if vectorised:
            return torch.func.vmap(self._one)(dict(values))
        count = len(next(iter(values.values())))
        each = [self._one({k: v[i] for k, v in values.items()}) for i in range(count)]
        return torch.stack([prior for prior, _ in each]), torch.stack([rows for _, rows in each])

    def _one(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        run = self._run(values)
        total = torch.zeros(self.rows, dtype=torch.float64)
        for each in run.observed:
            by_row = each.ndim and each.shape[-1] == self.rows and self.rows > 1
            total = total + (each.reshape(-1, self.rows).sum(0) if by_row else each.sum() / self.rows)
        return run.prior, total

    def _run(self, values: Mapping[str, Tensor] | None) -> _Run:
        from pyro import poutine
        from pyro.poutine.util import site_is_subsample

        program = self.model if values is None else poutine.condition(self.model, data=dict(values))
        trace: Any = poutine.trace(program).get_trace(*self.data)
        trace.compute_log_prob()
        laws: dict[str, Distribution] = {}
        found: dict[str, Tensor] = {}
        observed: list[Tensor] = []
        prior = torch.zeros((), dtype=torch.float64)
        for name, site in trace.nodes.items():
            if site["type"] == "param":
                raise SpecError(f"{self.name}: expected no pyro.param, got {name}: give it a law with pyro.sample")
            if site["type"] != "sample":
                continue
            if site_is_subsample(site):
                if len(site["value"]) < site["fn"].size:
                    raise SpecError(f"{self.name}: expected all rows of plate {name}, got a subsample")
            elif (values is not None and name in values) or not site["is_observed"]:
                laws[name], found[name] = site["fn"], site["value"]
                prior = prior + site["log_prob_sum"]
            elif not site["infer"].get("_deterministic"):
                observed.append(site["log_prob"])
        return _Run(laws, found, prior, observed)

    def _first(self, seed: int) -> _Run:
        try:
            with own_pyro(seed, validate=True):
                return self._run(None)
        except SpecError:
            raise
        except Exception as error:
            raise SpecError(f"the Pyro model {self.name} cannot be run: {type(error).__name__}: {error}") from error

    def _check_support(self, name: str, first: _Run, second: _Run) -> None:
        try:
            maps = [biject_to(run.laws[name].support) for run in (first, second)]
        except NotImplementedError:
            return  # the constructor of the sites says so
        zero = torch.zeros(maps[0].inverse_shape(first.values[name].shape))
        one, other = (torch.as_tensor(m(zero)) for m in maps)
        if not torch.equal(one, other):
            raise SpecError(
                f"{self.name}, {name}: expected a support that is the same in every run, got one that depends on other "
                "sites: write it as a transformed site of fixed support"
            )

    def _can_be_vectorised(self, first: _Run, second: _Run) -> bool:
        values = {k: torch.stack((first.values[k], second.values[k])).double() for k in self.laws}
        with own_pyro(0):
            prior, each = self._many(values, vectorised=False)
            try:
                found = self._many(values, vectorised=True)
            except Exception:
                return False  # an `if` on a value, .item(), or an operation without a batching rule
        return all(torch.allclose(a, b, equal_nan=True) for a, b in zip(found, (prior, each), strict=True))
