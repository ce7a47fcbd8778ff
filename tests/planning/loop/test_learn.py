import os
import signal

import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, Objective, Simulated, learn, quadratic
from bayeswm.planning.loop.learn import _interruptible

SCHEMA = bwm.Schema(
    state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("u", bounds=(-1, 1))], time_step=0.1
)
CART = bwm.KnownDynamics(
    structure=bwm.structures.Linear(
        SCHEMA,
        A=torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64),
        B=torch.tensor([[0.0], [0.5]], dtype=torch.float64),
    ),
    noise=[0.0, 0.01],
)
COST = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.01]))
PLANNER = CEM(COST, horizon=8, samples=32, elites=6, iterations=2, particles=2)
SYSTEM = Simulated(CART, lambda rows, g: 1 + 0.1 * torch.rand(rows, 2, generator=g), objective=COST)


def conjugate():
    return bwm.BayesianDynamics(structure=bwm.structures.Linear(SCHEMA), inference=bwm.inference.Conjugate())


def ensemble():
    return bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(16,)), members=2, epochs=15)


def learned(model=None, *, episodes=3, **more):
    given = {"max_steps": 15, "seed": 0, "progress": False, **more}
    return learn(SYSTEM, model or ensemble(), PLANNER, episodes=episodes, **given)


def same(a, b):
    assert torch.equal(a.trajectories.states(), b.trajectories.states())
    assert torch.equal(a.trajectories.action, b.trajectories.action)
    assert torch.equal(a.returns, b.returns)
    x, u = torch.zeros(2), torch.zeros(1)
    g, h = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(a.model.predictive(x, u, generator=g).mean, b.model.predictive(x, u, generator=h).mean)


def test_a_posterior_learns_to_stop_a_cart():
    g = torch.Generator().manual_seed(1)
    best = bwm.planning.closed_loop(CART, CART, PLANNER, starts=torch.ones(1, 2), steps=20, generator=g).returns
    found = learned(conjugate(), max_steps=20)
    # the second planned episode is as good as planning with the system itself, to the noise of 0.01 and the start
    assert float(found.returns[0]) < 2 * float(best)
    assert float(found.returns[2]) > 1.25 * float(best)


def test_same_seed_same_result_and_the_model_given_is_left_alone():
    model = ensemble()
    first = learned(model)
    assert model.structure.schema is None
    same(first, learned(model))
    assert not torch.equal(first.returns, learned(model, seed=1).returns)
    assert first.trajectories.reward is not None


@pytest.mark.parametrize("model", [ensemble(), conjugate()])
def test_a_run_goes_on_where_it_stopped(tmp_path, model):
    whole = learned(model)
    learned(model, episodes=2, folder=tmp_path)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["episodes.safetensors", "model-0002.bwm"]
    same(whole, learned(model, folder=tmp_path))
    # and once more, from what is there, also without the model
    same(whole, learned(model, folder=tmp_path))
    (tmp_path / "model-0003.bwm").write_bytes(b"damaged")
    same(whole, learned(model, folder=tmp_path))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    whole, steps = learned(), []
    step = Simulated.step

    def interrupted(self, action, *, last):
        steps.append(1)
        if len(steps) == 22:  # in the second episode
            raise KeyboardInterrupt
        return step(self, action, last=last)

    monkeypatch.setattr(Simulated, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learned(folder=tmp_path)
    same(whole, learned(folder=tmp_path))


@pytest.fixture
def interrupts():
    """Python's own answer to Ctrl-C: a shell that runs the tests in the background has them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:interrupted after epoch:bayeswm.base.errors.FitWarning")
def test_a_fit_that_was_cut_short_is_not_kept(tmp_path, monkeypatch, interrupts):
    whole = learned()
    fit = bwm.DeepEnsemble.fit

    def cut_short(self, trajectories, *, seed=None, progress=True):
        def ask(report):
            if report.epoch == 3 and len(trajectories) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return False

        return fit(self, trajectories, seed=seed, progress=progress, callbacks=[ask])

    monkeypatch.setattr(bwm.DeepEnsemble, "fit", cut_short)
    with pytest.raises(KeyboardInterrupt):
        learned(folder=tmp_path)
    monkeypatch.undo()
    same(whole, learned(folder=tmp_path))


def test_interrupts_are_handed_back(interrupts):
    before = signal.getsignal(signal.SIGINT)
    with _interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_folder_of_another_run_is_refused(tmp_path):
    learned(episodes=1, folder=tmp_path)
    with pytest.raises(bwm.CheckpointError, match="seed=1, got one with seed=0"):
        learned(episodes=1, folder=tmp_path, seed=1)
    (tmp_path / "episodes.safetensors").write_bytes((tmp_path / "episodes.safetensors").read_bytes()[:-9])
    with pytest.raises(bwm.CheckpointError, match="truncated"):
        learned(episodes=1, folder=tmp_path)


def test_gymnasium_environments():
    def cost(x, u, c, t):
        return x[..., 1] ** 2

    pendulum = bwm.structures.Pendulum.gymnasium()
    found = learn(
        "Pendulum-v1",
        ensemble(),
        CEM(Objective(stage=cost), horizon=2, samples=8, elites=2, iterations=1, particles=1),
        episodes=2,
        max_steps=10,
        seed=0,
        schema=pendulum.schema,
        state=lambda env: env.unwrapped.state,
        progress=False,
    )
    assert found.trajectories.lengths.tolist() == [10, 10]


def test_arguments_are_checked():
    for wrong in ({"seed": None}, {"episodes": 0}, {"max_steps": None}, {"latency": -1}, {"random_episodes": 0}):
        with pytest.raises(bwm.SpecError, match="expected"):
            learned(**wrong)


def test_a_model_that_saw_no_data_needs_a_schema():
    model = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(4,)), members=2, epochs=1)
    planner = CEM(quadratic(torch.ones(2), torch.ones(1)), horizon=2)
    with pytest.raises(bwm.SpecError, match="expected schema="):
        learn("Pendulum-v1", model, planner, episodes=1, seed=0, progress=False)
