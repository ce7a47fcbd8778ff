"""DeepEnsemble: what it learns, what it promises, and the faults it survives."""

import threading
import warnings

import pytest
import torch

import bayeswm as bwm
from bayeswm.structures import MLP, Pendulum
from bayeswm.structures.mlp import MLPObjective

TRUTH = bwm.KnownDynamics(structure=Pendulum(length=0.5, damping=0.05, time_step=0.05), noise=[0.01, 0.05])


def simulate(episodes=12, steps=40, *, seed=0, truth=TRUTH):
    g = torch.Generator().manual_seed(seed)
    start = torch.stack((3 * torch.randn(episodes, generator=g), torch.randn(episodes, generator=g)), -1).double()
    actions = 2 * torch.rand(episodes, steps, 1, generator=g).double() - 1
    paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=actions)


def ensemble(**settings):
    defaults = {"structure": MLP(hidden=(16, 16)), "members": 3, "epochs": 15}
    return bwm.DeepEnsemble(**(defaults | settings))


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module")
def fitted(data):
    return ensemble().fit(data, seed=0, progress=False)


def parameters(model):
    return dict(model.draw().parameters.items())


def same(a, b):
    return all(torch.equal(parameters(a)[k], parameters(b)[k]) for k in parameters(a))


# --- what it learns -------------------------------------------------------------------------------------------------


def test_it_learns_the_dynamics_and_the_noise():
    model = ensemble(structure=MLP(hidden=(64, 64)), epochs=150).fit(simulate(40, 50), seed=0, progress=False)
    test = simulate(20, 50, seed=1).transitions()
    truth = TRUTH.predictive(test.state, test.action).mean[:, 0]
    p = model.predictive(test.state, test.action)
    error, change = p.mean[:, 0].double() - truth, truth - test.state
    r_squared = 1 - error.square().mean(0) / change.var(0)
    assert bool((r_squared > 0.99).all()), r_squared
    noise = p.aleatoric_variance[:, 0].double().mean(0).sqrt()
    assert bool((noise / torch.tensor([0.01, 0.05]) - 1).abs().max() < 0.15), noise


# a fifth of the episodes is held out: 40, 120, 400 and 1,280 steps of training
@pytest.mark.parametrize(("episodes", "updates"), [(2, 3), (4, 5), (12, 5), (40, 5)])
def test_a_batch_is_a_fifth_of_few_data_and_at_least_16(episodes, updates):
    model = ensemble(epochs=2).fit(simulate(episodes), seed=0, progress=False)
    assert model._training.steps == 2 * updates


def test_many_data_have_batches_of_256():
    data = simulate(50)  # 40 * 40 = 1,600 to train on
    assert same(*(ensemble(epochs=2, batch_size=b).fit(data, seed=0, progress=False) for b in (None, 256)))


def test_few_data_are_learned_better_than_in_one_batch():
    few, test = simulate(4), simulate(20, seed=1).transitions()
    scores = []
    for batch in (None, 256):
        model = ensemble(epochs=300, batch_size=batch).fit(few, seed=0, progress=False)
        scores.append(model.predictive(test.state, test.action).log_prob(test.next_state[:, None]).mean())
    assert float(scores[0]) > float(scores[1])


def test_members_are_the_whole_posterior(fitted):
    worlds = fitted.draw(64)
    assert len(worlds) == 3
    assert worlds.exhaustive
    p = fitted.predictive(torch.tensor([0.5, 0.0]), torch.tensor([0.1]))
    means = torch.stack(list(p.laws[0].mean[:, 0]))
    torch.testing.assert_close(p.epistemic_variance[0], means.var(0, correction=0))
    torch.testing.assert_close(p.aleatoric_variance[0], p.laws[0].variance[:, 0].mean(0))


def test_uncertainty_between_members_grows_away_from_the_data(fitted):
    near = fitted.predictive(torch.tensor([0.0, 0.0]), torch.tensor([0.0])).epistemic_variance
    far = fitted.predictive(torch.tensor([0.0, 40.0]), torch.tensor([0.0])).epistemic_variance
    assert bool((far > 10 * near).all())


def test_predictions_do_not_depend_on_the_turn(fitted):
    state, action = torch.tensor([[0.3, 1.0], [0.3 + 2 * torch.pi, 1.0]]), torch.zeros(1)
    mean = fitted.predictive(state, action).mean[:, 0]
    torch.testing.assert_close(mean[1] - mean[0], torch.tensor([2 * torch.pi, 0.0]), atol=1e-5, rtol=0)


def test_stacking_weights_by_held_out_density(data):
    model = ensemble(stacking=True, epochs=5).fit(data, seed=0, progress=False)
    weight = model.draw().weight
    assert abs(float(weight.sum()) - 1) < 1e-9
    equal = ensemble(epochs=5).fit(data, seed=0, progress=False)
    assert same(model, equal)
    assert not torch.allclose(weight, equal.draw().weight)


def test_bootstrap_gives_members_other_data(data):
    plain = ensemble(members=2, epochs=2).fit(data, seed=0, progress=False)
    resampled = ensemble(members=2, epochs=2, bootstrap=True).fit(data, seed=0, progress=False)
    assert not same(plain, resampled)


# --- what it promises -----------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_the_caller_is_left_alone(data, fitted):
    before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())
    again = ensemble().fit(data, seed=0, progress=False)
    assert same(fitted, again)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())
    assert not same(fitted, ensemble().fit(data, seed=1, progress=False))


def test_other_defaults_outside_do_not_matter(data, fitted):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = ensemble().fit(data, seed=0, progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(fitted, again)


def test_an_interrupted_training_goes_on_bit_for_bit(data, fitted, tmp_path):
    half = ensemble().fit(data, seed=0, progress=False, callbacks=[lambda r: r.epoch == 6])
    assert [r.epoch for r in half.history] == list(range(1, 7))
    half.save(tmp_path / "half.bwm")
    loaded = bwm.load(tmp_path / "half.bwm")
    loaded.fit(data, progress=False, resume=True)
    assert same(fitted, loaded)


def test_a_saved_ensemble_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model.bwm")
    loaded = bwm.load(tmp_path / "model.bwm")
    state, action = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 1)
    a, b = fitted.predictive(state, action), loaded.predictive(state, action)
    assert torch.equal(a.mean, b.mean)
    assert torch.equal(a.variance, b.variance)


def test_condition_reweights_only_when_asked(data, fitted):
    assert fitted.condition(data, in_training=True) is fitted
    with pytest.raises(bwm.SpecError, match="reweight=True"):
        fitted.condition(data)
    new = simulate(1, 2, seed=5)
    reweighted = fitted.condition(new, reweight=True)
    _, log_prob = fitted.draw().smooth(new)
    torch.testing.assert_close(reweighted.draw().log_weight, torch.log_softmax(log_prob[:, 0, 0].double(), 0))
    assert torch.allclose(fitted.draw().weight, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_reweighting_that_leaves_one_member_is_refused(fitted):
    with pytest.raises(bwm.FitError, match="reweighting leaves"):
        fitted.condition(simulate(20, 200, seed=6), reweight=True)


def test_needs_a_seed_and_a_fit():
    with pytest.raises(bwm.SpecError, match="seed="):
        ensemble().fit(simulate(2, 3))
    with pytest.raises(bwm.SpecError, match="fit"):
        ensemble().draw()
    with pytest.raises(bwm.SpecError, match="resume"):
        ensemble().fit(simulate(2, 3), resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": 0}, "members >= 1"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"validation": 1.0}, r"validation in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"stacking": True, "validation": 0.0}, "validation > 0 for stacking"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(bwm.SpecError, match=message):
        ensemble(**settings)


# --- faults of data ---------------------------------------------------------------------------------------------------

REAL = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=0.1)


def test_constant_columns_warn_and_get_unit_scale():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10, 6, 1, generator=g).cumsum(1)
    states = torch.cat((x, torch.full_like(x, 7.0)), -1)
    train = bwm.Trajectories(REAL, state=states, action=torch.zeros(10, 5, 1))
    with pytest.warns(bwm.DataWarning, match="constant") as caught:
        model = ensemble(epochs=3).fit(train, seed=0, progress=False)
    assert any("u" in str(w.message) for w in caught)
    p = model.predictive(torch.tensor([0.0, 7.0]), torch.zeros(1))
    assert bool(p.mean.isfinite().all())
    assert bool((p.variance > 0).all())


def test_constant_targets_keep_a_floor_of_noise():
    train = bwm.Trajectories(REAL, state=torch.ones(10, 6, 2), action=torch.zeros(10, 5, 1))
    with pytest.warns(bwm.DataWarning, match="constant"):
        model = ensemble(epochs=30).fit(train, seed=0, progress=False)
    p = model.predictive(torch.ones(2), torch.zeros(1))
    torch.testing.assert_close(p.mean[0], torch.ones(2), atol=0.2, rtol=0)
    assert bool((p.aleatoric_variance > 1e-7).all())


def test_one_transition_gives_a_finite_answer_with_a_wide_noise():
    train = bwm.Trajectories(REAL, state=torch.tensor([[[0.0, 0.0], [1.0, -1.0]]]), action=torch.zeros(1, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.DataWarning)
        model = ensemble(epochs=200).fit(train, seed=0, progress=False)
    p = model.predictive(torch.zeros(2), torch.zeros(1))
    assert bool(p.mean.isfinite().all())
    assert bool((p.aleatoric_variance > 1e-3).all())  # the pseudo-observation keeps it: not the clamp's e^-14


def test_contradictory_duplicates_raise_the_noise_to_their_spread():
    before = torch.zeros(200, 1, 2)
    after = torch.cat((torch.ones(100, 1, 2), -torch.ones(100, 1, 2)))
    train = bwm.Trajectories(REAL, state=torch.cat((before, after), 1), action=torch.zeros(200, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.DataWarning)
        model = ensemble(epochs=100).fit(train, seed=0, progress=False)
    p = model.predictive(torch.zeros(2), torch.zeros(1))
    torch.testing.assert_close(p.aleatoric_variance[0], torch.ones(2), atol=0.1, rtol=0)


@pytest.mark.filterwarnings("ignore::bayeswm.DataWarning")
def test_huge_values_are_rescaled():
    g = torch.Generator().manual_seed(0)
    x = 1e15 + 1e12 * torch.randn(20, 11, 2, generator=g, dtype=torch.float64).cumsum(1)
    model = ensemble(epochs=30).fit(
        bwm.Trajectories(REAL, state=x, action=torch.ones(20, 10, 1)), seed=0, progress=False
    )
    p = model.predictive(x[0, 0], torch.ones(1))
    assert bool(((p.mean[0] - x[0, 0]).abs() < 1e13).all())
    assert bool((p.stddev > 1e11).all() and (p.stddev < 1e13).all())


def test_padding_and_missing_values_never_enter(data):
    ragged = bwm.Trajectories(
        TRUTH.schema, state=data.state, action=data.action, lengths=[40, 1, 2, *[40] * 9], allow_missing=True
    )
    holes = ragged.state.clone()
    holes[5, 10, 1] = float("nan")
    train = bwm.Trajectories(TRUTH.schema, state=holes, action=data.action, lengths=ragged.lengths, allow_missing=True)
    model = ensemble(epochs=3).fit(train, seed=0, progress=False)
    assert all(bool(v.isfinite().all()) for v in parameters(model).values())


def test_the_callers_tensors_are_untouched():
    source = simulate(4, 10)
    state, action = source.state.clone().requires_grad_(), source.action.clone()
    copies = state.detach().clone(), action.clone()
    ensemble(epochs=2).fit(bwm.Trajectories(TRUTH.schema, state=state, action=action), seed=0, progress=False)
    assert torch.equal(state.detach(), copies[0])
    assert torch.equal(action, copies[1])


# --- faults of the training ---


class Poisoned(MLP):
    """A network whose training goes wrong: NaN from the fourth step on, in the chosen members."""

    victims: tuple[int, ...] = ()

    def bind(self, schema):
        bound = Poisoned(hidden=self.hidden, schema=schema)
        bound.victims = self.victims
        return bound

    def objective(self, parameters, data):
        objective, steps = MLPObjective(self, parameters, data), []
        original = objective.gradient

        def gradient(rows):
            loss, gradients = original(rows)
            steps.append(1)
            if len(steps) > 3:
                loss[list(self.victims)] = float("nan")
                gradients["network"][list(self.victims)] = float("nan")
            return loss, gradients

        objective.gradient = gradient
        return objective


def test_one_failed_member_is_left_out_and_said(data):
    net = Poisoned(hidden=(16, 16))
    net.victims = (1,)
    with pytest.warns(bwm.FitWarning, match="4 of 5 members"):
        model = ensemble(structure=net, members=5).fit(data, seed=0, progress=False)
    assert len(model.draw()) == 4
    assert all(bool(v.isfinite().all()) for v in parameters(model).values())


def test_a_loss_that_explodes_everywhere_is_an_error_that_names_where(data):
    net = Poisoned(hidden=(16, 16))
    net.victims = (0, 1, 2)
    with pytest.raises(bwm.FitError, match=r"epoch \d+ \(parameter 'network'\)"):
        ensemble(structure=net).fit(data, seed=0, progress=False)


def test_an_enormous_learning_rate_ends_in_an_error_or_a_finite_model(data):
    model = ensemble(learning_rate=1e12, epochs=10)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bwm.FitWarning)
            model.fit(data, seed=0, progress=False)
    except bwm.FitError:
        return
    assert all(bool(v.isfinite().all()) for v in parameters(model).values())


def test_an_interrupt_keeps_the_best_state_so_far(data):
    def press(report):
        if report.epoch == 4:
            raise KeyboardInterrupt

    model = ensemble()
    with pytest.warns(bwm.FitWarning, match="interrupted after epoch 4"):
        model.fit(data, seed=0, progress=False, callbacks=[press])
    assert len(model.draw()) == 3
    assert bool(model.predictive(torch.zeros(2), torch.zeros(1)).variance.isfinite().all())


def test_two_fits_in_two_threads_give_what_one_gives(data, fitted):
    done = {}

    def work(name):
        done[name] = ensemble().fit(data, seed=0, progress=False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert same(done[0], fitted)
    assert same(done[1], fitted)


def test_progress_is_shown_unless_silent(data, capsys):
    ensemble(epochs=2).fit(data, seed=0)
    assert "deep ensemble" in capsys.readouterr().err
    ensemble(epochs=2).fit(data, seed=0, progress=False)
    assert capsys.readouterr().err == ""


def test_a_rotation_cannot_be_predicted_by_this_network():
    schema = bwm.Schema(state=[bwm.Variable("q", kind="rotation")], time_step=0.1)
    train = bwm.Trajectories(schema, state=torch.tensor([1.0, 0, 0, 0]).expand(3, 4, 4))
    with pytest.raises(bwm.SpecError, match="real or angle"):
        ensemble().fit(train, seed=0, progress=False)


def test_a_single_network_does_not_know_how_sure_it_is(data):
    model = ensemble(members=1, epochs=2).fit(data, seed=0, progress=False)
    p = model.predictive(torch.zeros(2), torch.zeros(1))
    with pytest.warns(bwm.UndefinedWarning, match="one world was drawn"):
        assert bool(p.epistemic_variance.isnan().all())
    torch.testing.assert_close(p.variance[0], p.laws[0].variance[0, 0])


def test_too_few_members_left_is_an_error(data):
    net = Poisoned(hidden=(16, 16))
    net.victims = (0,)
    with pytest.warns(bwm.FitWarning), pytest.raises(bwm.FitError, match=r"at least 3 members .* got 2 of 3"):
        ensemble(structure=net, minimum_members=3).fit(data, seed=0, progress=False)


def test_the_result_says_how_many_members_it_has(data, tmp_path):
    net = Poisoned(hidden=(16, 16))
    net.victims = (1,)
    assert repr(ensemble(structure=net)) == "DeepEnsemble(structure=Poisoned, not fitted)"
    with pytest.warns(bwm.FitWarning):
        model = ensemble(structure=net, members=5, epochs=2).fit(data, seed=0, progress=False)
    model.save(tmp_path / "m")
    loaded = bwm.load(tmp_path / "m", structures=[Poisoned])
    assert repr(loaded) == repr(model) == "DeepEnsemble(structure=Poisoned, 4 of 5 members)"


def test_another_fit_takes_the_new_data_s_variables(data):
    model = ensemble(epochs=1).fit(data, seed=0, progress=False)
    g = torch.Generator().manual_seed(0)
    other = bwm.Trajectories(REAL, state=torch.randn(4, 6, 2, generator=g), action=torch.randn(4, 5, 1, generator=g))
    assert model.fit(other, seed=0, progress=False).schema == REAL


def test_resuming_with_other_data_is_refused(data):
    model = ensemble().fit(data, seed=0, progress=False, callbacks=[lambda r: r.epoch == 2])
    with pytest.raises(bwm.SpecError, match="data that the training was begun with"):
        model.fit(simulate(seed=9), resume=True, progress=False)


def test_an_interrupt_before_anything_was_learned_goes_through(data):
    class Pressed(MLPObjective):
        def gradient(self, rows):
            raise KeyboardInterrupt

    class Net(MLP):
        def bind(self, schema):
            return Net(hidden=self.hidden, schema=schema)

        def objective(self, parameters, data):
            return Pressed(self, parameters, data)

    with pytest.raises(KeyboardInterrupt):
        ensemble(structure=Net(hidden=(8,))).fit(data, seed=0, progress=False)


def test_stacking_without_anything_held_out_is_refused():
    with pytest.raises(bwm.DataError, match="hold some out"):
        ensemble(stacking=True).fit(simulate(1, 2), seed=0, progress=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_training_runs_where_the_data_are(data):
    model = ensemble(epochs=2).fit(data.to("cuda"), seed=0, progress=False)
    assert model.draw().device.type == "cuda"
