"""Counterfactuals of 1,000 logged trajectories, beside plain torch and ChiRho's multi-world handler, in one process.

Each query solves the noise of every step, sets the actions of some steps, and runs the episodes again. The plain side
is what one would write by hand for this system alone; it computes the same numbers, which is asserted. ChiRho has no
abduction of its own for known states: it is given the noise that plain torch solved, each step's as a site that is
observed, and all trajectories are one plate. Its actions are one site, so that there are two worlds only, or, where
that is said, a site for each action that is set; an intervention splits the worlds at each. Where it is not installed
(``pip install --no-deps chirho==0.3.0``), its column is left out.

Times are CPU seconds on one thread, medians over rounds in which the sides take turns; a query of ours includes the
mean of its answer.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from timing import machine, set_up
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.shapes import common_shape
from bayeswm.causal import Intervention, Mechanism, StructuralModel, counterfactual

EPISODES = 1000
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """A model, the same step by hand, and which actions are set to what."""

    name: str
    model: bwm.KnownDynamics
    step: Step
    noise: float
    horizon: int
    value: float
    begin: int
    end: int

    def record(self) -> bwm.Trajectories:
        """Trajectories under random actions."""
        g, size = make_generator(0), self.model.schema.state.size
        actions = standard_normal((EPISODES, self.horizon, 1), g, dtype=torch.float64)
        noise = self.noise * standard_normal((EPISODES, self.horizon, size), g, dtype=torch.float64)
        states = [standard_normal((EPISODES, size), g, dtype=torch.float64)]
        for t in range(self.horizon):
            states.append(self.step(states[-1], actions[:, t]) + noise[:, t])
        return bwm.Trajectories(self.model.schema, state=torch.stack(states, 1), action=actions)

    @property
    def intervention(self) -> Intervention:
        """The actions of some steps set to a value."""
        name = self.model.schema.action.names[0]
        return bwm.do({name: self.value}, steps=slice(self.begin, self.end))

    def changed(self, actions: Tensor) -> Tensor:
        """The actions under the intervention."""
        actions = actions.clone()
        actions[:, self.begin : self.end] = self.value
        return actions


def linear(horizon: int, *, begin: int = 0, end: int = 1) -> System:
    schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    a, b = (torch.tensor([[v]], dtype=torch.float64) for v in (0.8, 0.5))
    model = bwm.KnownDynamics(structure=bwm.structures.Linear(schema, A=a, B=b), noise=1.0)

    def step(x: Tensor, u: Tensor) -> Tensor:
        return 0.8 * x + 0.5 * u

    return System(f"linear, 1 state, {horizon} steps", model, step, 1.0, horizon, 1.0, begin, end)


MASS, LENGTH, DAMPING, FRICTION, GRAVITY, TIME_STEP = 1.0, 0.5, 0.05, 0.02, 9.81, 0.05


def push(angle: Tensor, speed: Tensor, torque: Tensor) -> Tensor:
    force = torque + MASS * GRAVITY * LENGTH * torch.sin(angle - math.pi)
    force = force - DAMPING * speed - FRICTION * torch.tanh(speed / 0.05)
    return force / (MASS * LENGTH**2)


def runge_kutta(x: Tensor, u: Tensor) -> Tensor:
    torque, h = u[..., 0], TIME_STEP

    def field(x: Tensor) -> Tensor:
        angle, speed = x.unbind(-1)
        return torch.stack((speed, push(angle, speed, torque)), -1)

    k1 = field(x)
    k2 = field(x + 0.5 * h * k1)
    k3 = field(x + 0.5 * h * k2)
    k4 = field(x + h * k3)
    return x + h / 6 * (k1 + 2 * (k2 + k3) + k4)


def semi_implicit(x: Tensor, u: Tensor) -> Tensor:
    angle, speed = x.unbind(-1)
    speed = speed + TIME_STEP * push(angle, speed, u[..., 0])
    return torch.stack((angle + TIME_STEP * speed, speed), -1)


def pendulum(horizon: int, *, implicit: bool) -> System:
    integrator = bwm.structures.SemiImplicitEuler() if implicit else bwm.structures.RK4()
    structure = bwm.structures.Pendulum(
        mass=MASS,
        length=LENGTH,
        damping=DAMPING,
        friction=FRICTION,
        gravity=GRAVITY,
        integrator=integrator,
        time_step=TIME_STEP,
    )
    name = f"pendulum, {'semi-implicit Euler' if implicit else 'RK4'}, {horizon} steps"
    step = semi_implicit if implicit else runge_kutta
    return System(name, bwm.KnownDynamics(structure=structure, noise=0.02), step, 0.02, horizon, 0.0, 5, 10)


def by_hand(system: System, seen: bwm.Trajectories) -> Tensor:
    states, actions = seen.states(), seen.action
    residual = states[:, 1:] - system.step(states[:, :-1], actions)
    x, actions, path = states[:, 0], system.changed(actions), list[Tensor]()
    for t in range(system.horizon):
        x = system.step(x, actions[:, t]) + residual[:, t]
        path.append(x)
    return torch.stack(path, 1)


def by_chirho(system: System, seen: bwm.Trajectories, *, apart: bool = False) -> Tensor:
    """Answer with ChiRho; ``apart`` makes each action that is set a site of its own, instead of all actions one."""
    import pyro
    import pyro.distributions as dist
    from chirho.counterfactual.handlers import MultiWorldCounterfactual
    from chirho.indexed.ops import IndexSet, gather
    from chirho.interventional.handlers import do
    from chirho.observational.handlers import condition

    states, actions = seen.states(), seen.action
    noise = (states[:, 1:] - system.step(states[:, :-1], actions)) / system.noise
    law = dist.Normal(torch.zeros(states.shape[-1], dtype=torch.float64), 1.0).to_event(1)
    sites = range(system.begin, system.end)

    def model() -> Tensor:
        with pyro.plate("trajectories", EPISODES, dim=-1):
            x, path = states[:, 0], list[Tensor]()
            every = actions if apart else pyro.deterministic("actions", actions, event_dim=2)
            for t in range(system.horizon):
                u = every[..., t, :]
                if apart and t in sites:
                    u = pyro.deterministic(f"a{t}", u, event_dim=1)
                w = pyro.sample(f"w{t}", law)
                x = x.expand(*common_shape(x.shape[:-1], u.shape[:-1]), -1)
                x = pyro.deterministic(f"s{t + 1}", system.step(x, u) + system.noise * w, event_dim=1)
                path.append(x)
            return torch.stack(torch.broadcast_tensors(*path), -2)

    acts = {f"a{t}": torch.full((1,), system.value, dtype=torch.float64) for t in sites}
    acts = acts if apart else {"actions": system.changed(actions)}
    known = {f"w{t}": noise[:, t] for t in range(system.horizon)}
    with torch.no_grad(), MultiWorldCounterfactual(first_available_dim=-2), do(actions=acts), condition(data=known):
        return gather(model(), IndexSet(**{name: {1} for name in acts}), event_dim=2).squeeze()


def in_turn(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            began = time.process_time()
            side()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def report(name: str, sides: dict[str, Callable[[], Tensor]], *, rounds: int) -> None:
    """Assert that all sides agree, and print their times."""
    expected = sides["plain"]()
    for side, answer in sides.items():
        torch.testing.assert_close(answer().reshape(expected.shape), expected, rtol=0, atol=1e-9, msg=side)
    found = in_turn(dict(sides), rounds)
    line = f"  {name:39s} plain {1e3 * found['plain']:7.3f} ms   bayeswm {1e3 * found['bayeswm']:7.3f} ms"
    line += f"   {found['bayeswm'] / found['plain']:5.2f} times plain"
    for peer in [side for side in sides if side.startswith("ChiRho")]:
        line += f"   {peer} {1e3 * found[peer]:.2f} ms, {found[peer] / found['bayeswm']:.2f} times ours"
    print(line, flush=True)


def compare(system: System, *, rounds: int, chirho: bool) -> None:
    seen, intervention = system.record(), system.intervention
    sides: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: by_hand(system, seen),
        "bayeswm": lambda: counterfactual(system.model, seen, intervention).mean,
    }
    if chirho:
        sides["ChiRho"] = lambda: by_chirho(system, seen)
        if system.end > system.begin + 1:
            sides["ChiRho, sites apart"] = lambda: by_chirho(system, seen, apart=True)
    report(system.name, sides, rounds=rounds)


def static(*, rounds: int, chirho: bool) -> None:
    """Three variables without time: Z confounds X and Y, and X is set."""
    model = StructuralModel(
        {
            "Z": Mechanism(lambda: 0.0, noise=1.0),
            "X": Mechanism(lambda Z: Z, noise=1.0),
            "Y": Mechanism(lambda X, Z: 2 * X - 3 * Z, noise=0.5),
        }
    )
    rows = standard_normal((EPISODES, 3), make_generator(0), dtype=torch.float64)
    seen = bwm.Trajectories(model.schema, state=torch.stack((torch.zeros_like(rows), rows), 1))
    one = torch.tensor(1.0, dtype=torch.float64)

    def by_hand() -> Tensor:
        z, x, y = rows.unbind(-1)
        residual, x = y - (2 * x - 3 * z), one.expand(EPISODES)
        return torch.stack((z, x, 2 * x - 3 * z + residual), -1)

    def by_chirho() -> Tensor:
        import pyro
        import pyro.distributions as dist
        from chirho.counterfactual.handlers import MultiWorldCounterfactual
        from chirho.indexed.ops import IndexSet, gather
        from chirho.interventional.handlers import do
        from chirho.observational.handlers import condition

        z, x, y = rows.unbind(-1)
        known = {"uz": z, "ux": x - z, "uy": (y - (2 * x - 3 * z)) / 0.5}
        normal = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)

        def system() -> tuple[Tensor, ...]:
            with pyro.plate("rows", EPISODES, dim=-1):
                z = pyro.deterministic("Z", pyro.sample("uz", normal), event_dim=0)
                x = pyro.deterministic("X", z + pyro.sample("ux", normal), event_dim=0)
                y = 2 * x - 3 * z + 0.5 * pyro.sample("uy", normal)
                return z, x, pyro.deterministic("Y", y, event_dim=0)

        worlds = MultiWorldCounterfactual(first_available_dim=-2)
        with torch.no_grad(), worlds, do(actions={"X": one}), condition(data=known):
            found = [gather(v, IndexSet(X={1})).squeeze().expand(EPISODES) for v in system()]
        return torch.stack(found, -1)

    sides: dict[str, Callable[[], Tensor]] = {
        "plain": by_hand,
        "bayeswm": lambda: counterfactual(model, seen, bwm.do(X=1.0)).mean[:, 0],
    }
    report("static, 3 variables", sides | ({"ChiRho": by_chirho} if chirho else {}), rounds=rounds)


def interventions(*, rounds: int, chirho: bool) -> None:
    """The cost in the number of interventions, each of the action of one step."""
    system = linear(20)
    seen = system.record()

    def query(k: int) -> Callable[[], Tensor]:
        one_each = [bwm.do({"a": 1.0}, steps=t) for t in range(k)]
        joined = Intervention(tuple(a for one in one_each for a in one.assignments))
        return lambda: counterfactual(system.model, seen, joined).mean

    found = in_turn({str(k): query(k) for k in (6, 12)}, rounds)
    line = f"  6 and 12 interventions, linear, 20 steps: {1e3 * found['6']:.2f} and {1e3 * found['12']:.2f} ms"
    print(f"{line}, {found['12'] / found['6']:.2f} times", flush=True)
    if chirho:
        systems = {str(k): linear(20, end=k) for k in (1, 2, 6, 8, 10)}
        peer = in_turn({k: lambda v=v: by_chirho(v, seen, apart=True) for k, v in systems.items()}, 3)
        print("  ChiRho, " + ", ".join(f"{k}: {1e3 * seconds:.1f} ms" for k, seconds in peer.items()), flush=True)


def main(rounds: int) -> None:
    chirho = find_spec("chirho") is not None
    print(f"counterfactuals of {EPISODES:,} trajectories; {machine()}")
    static(rounds=rounds, chirho=chirho)
    for system in (linear(3), linear(50), pendulum(50, implicit=True), pendulum(50, implicit=False)):
        compare(system, rounds=rounds, chirho=chirho)
    interventions(rounds=rounds, chirho=chirho)
    if not chirho:
        print("  chirho is not installed: ours and plain torch alone")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    set_up()
    main(arguments.rounds)
