"""What interventions and counterfactuals have to satisfy, in every family of models."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal import CausalDynamics, Learned, StructuralModel, TimeGraph, counterfactual, effect, intervene, shift

SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("force")], time_step=1.0)
STEPS = 6


def step(s: Tensor, a: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
    return torch.stack((s[..., 0] + s[..., 1], p["decay"] * s[..., 1] + p["gain"] * torch.sin(a[..., 0])), -1)


def structure(*, known: bool = False) -> bwm.Structure:
    laws = {"decay": 0.7, "gain": 0.5} if known else {"decay": Normal(0.5, 0.5), "gain": Normal(0.0, 1.0)}
    return bwm.structures.FromFunction(step, schema=SCHEMA, parameters=laws)


def truth() -> bwm.KnownDynamics:
    return bwm.KnownDynamics(structure=structure(known=True), noise=0.1)


def log(episodes: int = 12) -> bwm.Trajectories:
    g = torch.Generator().manual_seed(0)
    start, force = (torch.randn(episodes, *shape, generator=g, dtype=torch.float64) for shape in ((2,), (STEPS, 1)))
    return bwm.data.simulate(truth(), start, force, generator=g)


def bayesian(inference: object, **given: object) -> bwm.BayesianDynamics:
    return bwm.BayesianDynamics(structure=structure(), inference=inference, **given)  # pyright: ignore[reportArgumentType]


def network(inference: object) -> bwm.BayesianDynamics:
    net = bwm.structures.MLP(hidden=(8,))
    return bwm.BayesianDynamics(structure=net, inference=inference)  # pyright: ignore[reportArgumentType]


def of_variables() -> StructuralModel:
    line = bwm.structures.Linear(c=Normal(0.0, 10.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    parents = {"v": ("v[t-1]", "force"), "x": ("x[t-1]", "v[t-1]")}
    return StructuralModel({k: Learned(linear, p) for k, p in parents.items()}, schema=SCHEMA)


def from_log() -> CausalDynamics:
    edges = [("x[t]", "x[t+1]"), ("v[t]", "x[t+1]"), ("v[t]", "v[t+1]"), ("force[t]", "v[t+1]")]
    return CausalDynamics(TimeGraph(edges), dynamics=bayesian(bwm.inference.Laplace()))


FAMILIES: dict[str, Callable[[], bwm.DynamicsModel]] = {
    "known": truth,
    "known, with priors": lambda: bwm.KnownDynamics(structure=structure(), noise=0.1),
    "ensemble": lambda: bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(8,)), members=3, epochs=3),
    "process": lambda: bwm.GaussianProcess(restarts=1),
    "process with correlated outputs": lambda: bwm.GaussianProcess(restarts=1, outputs=bwm.inference.Coregionalised()),
    "process on physics": lambda: bwm.GaussianProcess(restarts=1, mean=structure(known=True)),
    "conjugate": lambda: bayesian(bwm.inference.Conjugate()),
    "HMC": lambda: bayesian(bwm.inference.HMC(chains=16, warmup=60, draws=20)),
    "Laplace": lambda: bayesian(bwm.inference.Laplace()),
    "network, last layer": lambda: network(bwm.inference.Laplace(curvature=bwm.inference.LastLayer(), starts=1)),
    "network by SVI": lambda: network(bwm.inference.SVI(steps=200)),
    "heavy tails": lambda: bayesian(bwm.inference.Laplace(), likelihood=bwm.inference.StudentTLikelihood()),
    "noise that changes": lambda: bayesian(
        bwm.inference.Laplace(), likelihood=bwm.inference.HeteroscedasticLikelihood()
    ),
    "structural": of_variables,
    "from a log": from_log,
}


@pytest.fixture(scope="module", params=FAMILIES)
def worlds(request: pytest.FixtureRequest) -> bwm.Worlds:
    """A few worlds of a family, fitted quickly: what is tested holds in each world, however good it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.base.FitWarning)
        model = FAMILIES[request.param]()
        if not isinstance(model, bwm.KnownDynamics):
            model.fit(log(), seed=0, progress=False)
        return model.draw(3, generator=torch.Generator().manual_seed(1))


def close(a: Tensor, b: Tensor, worlds: bwm.Worlds) -> None:
    tolerance = 1e-9 if worlds.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(a, b.expand(a.shape).to(a), rtol=tolerance, atol=tolerance)


def paths(worlds: bwm.Worlds, *interventions: bwm.causal.Intervention) -> Tensor:
    """Five particles from the same start with the same noise, shape (worlds, 5, STEPS + 1, 2)."""
    force = torch.linspace(-1, 1, STEPS)[:, None]
    done = intervene(worlds, *interventions)
    g = torch.Generator().manual_seed(2)
    r = bwm.rollout(done, torch.tensor([0.3, -0.2]), force, particles=5, generator=g)
    assert r.initial is not None
    return torch.cat((r.initial.expand(*r.particles.shape[:2], 2)[:, :, None], r.particles), 2)


def test_a_state_that_is_set_is_what_the_next_step_sees(worlds: bwm.Worlds) -> None:
    new, old = paths(worlds, bwm.do({"v": 0.4}, steps=2)), paths(worlds)
    close(new[:, :, :2], old[:, :, :2], worlds)
    close(new[:, :, 2, 1], torch.tensor(0.4, dtype=torch.float64), worlds)
    close(new[:, :, 2, 0], old[:, :, 2, 0], worlds)
    action = torch.linspace(-1, 1, STEPS)[2:3]
    from_new, from_old = (worlds.transition(x[:, :, 2], action.to(x), step=2) for x in (new, old))
    # the noise of the step is the same
    noise = from_old.abduct(old[:, :, 3])
    close(new[:, :, 3], from_new.push(noise), worlds)
    assert bool((new[:, :, 3] - old[:, :, 3]).abs().amax() > 1e-3)


def test_interventions_obey_their_rules(worlds: bwm.Worlds) -> None:
    old, force, state = paths(worlds), bwm.do(force=0.5), bwm.do({"x": 0.1}, steps=slice(1, 4))
    close(paths(worlds, force, force), paths(worlds, force), worlds)
    close(paths(worlds, force, state), paths(worlds, state, force), worlds)
    close(paths(worlds, bwm.do(force=shift(0.0), x=shift(0.0), v=shift(0.0))), old, worlds)
    late = paths(worlds, bwm.do({"force": 2.0}, steps=3))
    close(late[:, :, :4], old[:, :, :4], worlds)
    assert bool((late[:, :, 4] - old[:, :, 4]).abs().amax() > 1e-3)


def test_doing_what_was_done_returns_what_happened(worlds: bwm.Worlds) -> None:
    factual = log(2)
    played = factual.action
    for same in (bwm.do(force=shift(0.0)), bwm.do(force=lambda s, t: played[:, t, 0].to(s))):
        found = counterfactual(worlds, factual, same, in_training=True)
        close(found.mean, factual.states()[:, 1:], worlds)
        assert float(found.variance.max()) < (1e-16 if worlds.dtype == torch.float64 else 1e-8)


def test_branches_of_a_counterfactual_share_their_noise(worlds: bwm.Worlds) -> None:
    factual, noise_of = log(2), worlds.smooth
    found = counterfactual(worlds, factual, bwm.do({"force": shift(0.7)}, steps=slice(1, 4)), in_training=True)
    action = factual.action.clone()
    action[:, 1:4] += 0.7
    happened = noise_of(factual)[0].step
    assert happened is not None
    for w in range(len(worlds)):
        branch = found.predictive.laws
        states = torch.stack([law.mean[w, 0] for law in branch], 1)
        other = bwm.Trajectories(
            SCHEMA, state=torch.cat((factual.states()[:, :1].to(states), states), 1), action=action
        )
        again = worlds[w : w + 1].smooth(other)[0].step
        assert again is not None
        close(again, happened[w : w + 1], worlds)


def test_an_effect_of_nothing_is_nothing(worlds: bwm.Worlds) -> None:
    law = bwm.do(force=Normal(0.0, 1.0))
    g = torch.Generator().manual_seed(0)
    query = {"state": torch.zeros(2), "horizon": 3, "particles": 4, "generator": g}
    assert float(abs(effect(worlds, law, law, **query).effect).max()) == 0
    found = effect(worlds, bwm.do(force=1.0), bwm.do(force=0.0), **query)
    assert float(abs(found.effect.sel(horizon=1, variable="v"))) > 1e-3


def test_unknown_names_are_refused(worlds: bwm.Worlds) -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'force'"):
        intervene(worlds, bwm.do(forse=1.0))
