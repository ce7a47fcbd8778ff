"""`check_model` refuses models that break one promise each, and names it."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import StructureWorlds
from bayeswm.models.sensed_worlds import SensedWorlds
from bayeswm.structures import FromFunction, Pendulum
from bayeswm.testing import ContractError, check_model

SCHEMA = bwm.Schema(
    state=[bwm.Variable("position", unit="m"), bwm.Variable("velocity", unit="m/s")],
    action=[bwm.Variable("force", unit="N")],
    time_step=0.1,
)


def move(state: Tensor, action: Tensor, context: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    position, velocity = state.unbind(-1)
    faster = velocity + 0.1 * (parameters["gain"] * action[..., 0] - torch.sin(position))
    return torch.stack((position + 0.1 * velocity, faster), -1)


class Members(bwm.DynamicsModel):
    """Four members that disagree in their gain and in their noise, as a small ensemble does."""

    worlds: type[StructureWorlds] = StructureWorlds

    @property
    def schema(self) -> bwm.Schema:
        return SCHEMA

    def fit(self, trajectories, *, seed=None, progress=True):
        return self

    def draw(self, worlds, *, generator=None):
        parameters = {"gain": torch.tensor([0.5, 1.0, 2.0, 3.0]).double()}
        parameters["process_noise"] = torch.tensor([[0.02, 0.3], [0.05, 0.02], [0.01, 0.1], [0.1, 0.05]]).double()
        weight = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
        structure = FromFunction(move, schema=SCHEMA, parameters={"gain": 1.0})
        return self.worlds(structure, SCHEMA, parameters, log_weight=weight.log(), exhaustive=True)


class Drawn(bwm.KnownDynamics):
    """A pendulum of uncertain mass and damping: worlds are drawn."""

    def __init__(self, **given) -> None:
        structure = given.pop("structure", None) or Pendulum(mass=LogNormal(0.0, 0.3), damping=LogNormal(-2.0, 0.4))
        super().__init__(structure=structure, **{"noise": 0.05, **given})


def with_worlds(worlds: type[StructureWorlds]) -> Members:
    """Members whose worlds are of a class that breaks a promise."""
    model = Members()
    model.worlds = worlds
    return model


def with_law(law: type[Gaussian]) -> Members:
    """Members whose law is of a class that breaks a promise."""

    class Faulty(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            right = super().transition(carry, action, context, step=step)
            return law(right.mean, right.scale, noisy=right.noisy)

    law.map = lambda self, change: law(change(self.mean), change(self.spread), noisy=self.noisy)  # keeps the fault
    return with_worlds(Faulty)


def recordings(schema: bwm.Schema) -> bwm.Trajectories:
    g = make_generator(7)
    state = torch.randn(3, 9, schema.state.size, generator=g, dtype=torch.float64)
    action = torch.randn(3, 8, schema.action.size, generator=g, dtype=torch.float64)
    state = state.cumsum(1) * 0.2
    columns = [schema.state.column(name) for name in schema.measured.columns]
    seen = None if schema.observation is None else state[..., columns]
    return bwm.Trajectories(schema, state=state, action=action, observation=seen)


def refusal(model: bwm.DynamicsModel, **breaches: str) -> None:
    """The model is refused, and each named check says what is wrong in these words."""
    with pytest.raises(ContractError) as caught:
        check_model(model, recordings(model.schema))
    found = {c.name: " ".join(map(str, c.breaches)) for c in caught.value.report.failed}
    for name, words in breaches.items():
        assert words in found.get(name, f"{name} passed; failed were {sorted(found)}: {found}")
        assert words in str(caught.value)


@pytest.mark.parametrize("model", [Members(), Drawn()], ids=["members", "drawn"])
def test_sound_ones_pass(model):
    assert check_model(model, recordings(model.schema)).failed == ()


# --- the split of the variance ----------------------------------------------------------------------------------------


class Collapsed(Members):
    def predictive(self, state, action, **given):
        p = super().predictive(state, action, **given)
        law = p.laws[0]
        w = p.weight.view(-1, *(1,) * (law.mean.ndim - 1))
        mean, scale = self.collapse(w, law.mean, law.variance)
        zero = torch.zeros(1, dtype=torch.float64)
        return bwm.Predictive(p.variables, [Gaussian(mean, scale)], zero, exhaustive=True, time_step=p.time_step)


def test_dropped_epistemic_variance():
    class Dropped(Collapsed):
        def collapse(self, w, mean, variance):
            return (w * mean).sum(0, keepdim=True), (w * variance).sum(0, keepdim=True).sqrt()

    refusal(Dropped(), variance_splits_by_world="the variance between worlds is dropped")


def test_averaged_log_variances():
    class Averaged(Members):
        def predictive(self, state, action, **given):
            p = super().predictive(state, action, **given)
            law = p.laws[0]
            w = p.weight.view(-1, *(1,) * (law.mean.ndim - 1))
            scale = (0.5 * (w * law.variance.clamp(min=1e-30).log()).sum(0, keepdim=True)).exp()
            law = Gaussian(law.mean, scale)
            return bwm.Predictive(p.variables, [law], p.log_weight, exhaustive=True, time_step=p.time_step)

    words = "the predictive's aleatoric variance is the weighted mean of the worlds' variances"
    refusal(Averaged(), variance_splits_by_world=words)
    refusal(Averaged(), variance_splits_by_world="log variances are averaged instead of variances")


def test_drawn_worlds_replaced_by_their_mean():
    class Mean(Drawn):
        def draw(self, worlds, *, generator=None):
            drawn = super().draw(worlds, generator=generator)
            return drawn.replace(**{k: v.mean(0, keepdim=True) for k, v in drawn.parameters.items()})

    # each draw has its own mean, so the draws disagree with each other more than worlds do within one
    class MeanInPredictive(Drawn):
        def predictive(self, state, action, **given):
            p = super().predictive(state, action, **given)
            law = p.laws[0]
            law = Gaussian(law.mean.mean(0, keepdim=True).expand_as(law.mean), law.scale)
            return bwm.Predictive(p.variables, [law], p.log_weight, exhaustive=False, time_step=p.time_step)

    refusal(MeanInPredictive(), variance_splits_by_world="the variance between worlds is dropped")
    refusal(Mean(), drawn_worlds_differ="all worlds are the same")


# --- randomness -------------------------------------------------------------------------------------------------------


def test_ignored_generator():
    class Ignored(Drawn):
        def draw(self, worlds, *, generator=None):
            return super().draw(worlds, generator=make_generator(0))

    refusal(Ignored(), generator_is_used="the generator is accepted and ignored")


def test_global_random_state():
    class Global(Drawn):
        def draw(self, worlds, *, generator=None):
            return super().draw(worlds, generator=make_generator(int(torch.randint(2**31, ()))))

    refusal(
        Global(),
        same_seed_same_answer="global random state is used instead of the generator",
        surroundings_are_not_changed="draw leaves torch's global random state as it was",
    )


def test_reseeded_global_state():
    class Reseeding(Members):
        def draw(self, worlds, *, generator=None):
            torch.manual_seed(0)
            return super().draw(worlds, generator=generator)

    refusal(Reseeding(), surroundings_are_not_changed="draw leaves torch's global random state as it was")


def test_numpy_random_state():
    import numpy as np

    class Sampling(Gaussian):
        def push(self, noise):
            return super().push(torch.from_numpy(np.random.standard_normal(noise.shape)))  # noqa: NPY002 (the fault)

    refusal(
        with_law(Sampling),
        same_seed_same_answer="global random state is used",
        surroundings_are_not_changed="rollout leaves NumPy's global random state as it was",
    )


# --- noise ------------------------------------------------------------------------------------------------------------


def test_noise_counted_twice_in_push():
    class Twice(Gaussian):
        def push(self, noise):
            return super().push(2**0.5 * noise)

    refusal(
        with_law(Twice),
        pushed_noise_matches_law="counts it twice",
        rollout_noise_matches_laws="noise is dropped or counted twice",
        abduct_inverts_push="abduct is not the exact inverse of push",
    )


def test_noise_counted_twice_in_predictive():
    class Twice(Members):
        def predictive(self, state, action, **given):
            p = super().predictive(state, action, **given)
            law = Gaussian(p.laws[0].mean, 2**0.5 * p.laws[0].spread)
            return bwm.Predictive(p.variables, [law], p.log_weight, exhaustive=True, time_step=p.time_step)

    refusal(
        Twice(),
        variance_splits_by_world="noise is counted twice or dropped",
        rollout_starts_with_predictive="noise counted twice in one",
    )


def test_dropped_noise():
    class Silent(Gaussian):
        def push(self, noise):
            return super().push(torch.zeros_like(noise))

    refusal(with_law(Silent), pushed_noise_matches_law="push drops the noise")


def test_dropped_noise_coordinates():
    class Silent(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            law = super().transition(carry, action, context, step=step)
            law.noise_size = 0
            return law

        noise_size = property(lambda self: 0, lambda self, value: None)

    refusal(with_worlds(Silent), pushed_noise_matches_law="a law without noise has variance 0")


def test_noise_in_function():
    class Noisy(Members):
        def predictive(self, state, action, *, of="state", **given):
            return super().predictive(state, action, of="state" if of == "function" else of, **given)

    refusal(Noisy(), function_has_no_process_noise="process noise is left in predictive(of='function')")


def test_same_noise_at_every_step():
    class Repeating(Gaussian):
        def push(self, noise):
            if noise.shape[2:] == Repeating.first.shape[2:] and noise.shape[:2] == Repeating.first.shape[:2]:
                return super().push(Repeating.first)
            Repeating.first = noise
            return super().push(noise)

        first = torch.empty(0, 0)

    refusal(with_law(Repeating), rollout_noise_matches_laws="the same noise is used at several steps")


# --- worlds -----------------------------------------------------------------------------------------------------------


def test_batch_dependence():
    class Normalised(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            law = super().transition(carry, action, context, step=step)
            rows = tuple(range(2, law.mean.ndim - 1))
            mean = law.mean - 0.1 * law.mean.mean(rows, keepdim=True) if rows else law.mean
            return Gaussian(mean, law.scale, noisy=law.noisy)

    refusal(
        with_worlds(Normalised),
        rows_are_independent="predictions of a row do not depend on the rest of the batch",
        chunks_are_independent="something is computed over the batch axis",
    )


def test_particle_dependence():
    class Centred(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            law = super().transition(carry, action, context, step=step)
            return Gaussian(law.mean - 0.1 * law.mean.mean(1, keepdim=True), law.scale, noisy=law.noisy)

    refusal(with_worlds(Centred), chunks_are_independent="a rollout of many particles equals rollouts of parts of them")


def test_fresh_world_at_each_step():
    class Fresh(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            order = (torch.arange(len(self)) + torch.as_tensor(step).max()) % len(self)
            shuffled = self._with(
                parameters={k: v[order] for k, v in self.parameters.items()},
                log_weight=self.log_weight,
                exhaustive=self.exhaustive,
            )
            return StructureWorlds.transition(shuffled, carry, action, context, step=step)

    refusal(
        with_worlds(Fresh),
        worlds_do_not_mix="another world is used at some step",
        same_function_at_every_step="a fresh world at each step",
    )


def test_world_that_draws_at_each_call():
    class Restless(StructureWorlds):
        calls = 0

        def transition(self, carry, action, context=None, *, step=0):
            Restless.calls += 1
            law = super().transition(carry, action, context, step=step)
            return Gaussian(law.mean + 0.01 * torch.randn((), generator=make_generator(self.calls)), law.scale)

    refusal(
        with_worlds(Restless),
        same_function_at_every_step="a world is a fixed function",
        stepping_is_rolling_out="replaying the same noise gives the same trajectory",
    )


def test_worlds_with_a_state_of_their_own():
    class Remembering(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            before = self.__dict__.get("before")
            law = super().transition(
                carry if before is None or before.shape != carry.shape else before, action, context
            )
            self.before = carry
            return law

    refusal(
        with_worlds(Remembering), stepping_is_rolling_out="the worlds keep a state of their own instead of the carry"
    )


def test_weights_that_do_not_sum_to_one():
    class Unnormalised(StructureWorlds):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            self.log_weight = self.log_weight + 0.5

    refusal(with_worlds(Unnormalised), weights_are_normalised="weights of the worlds sum to 1")


def test_draws_called_exhaustive():
    class Certain(Drawn):
        def draw(self, worlds, *, generator=None):
            drawn = super().draw(worlds, generator=generator)
            drawn.exhaustive = True
            return drawn

    refusal(Certain(), exhaustive_worlds_are_the_posterior="exhaustive=True is set on worlds that are drawn at random")


def test_indexing_that_forgets_the_weights():
    class Forgetful(StructureWorlds):
        def __getitem__(self, index):
            part = super().__getitem__(index)
            return part.reweight(torch.zeros(len(part)))

    refusal(with_worlds(Forgetful), worlds_can_be_indexed="weights sum to 1")


def test_axes_in_another_order():
    class Swapped(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            law = super().transition(carry, action, context, step=step)
            return law.map(lambda v: v.transpose(0, 1))

    refusal(with_worlds(Swapped), law_shapes="axes are in another order than (worlds, particles, *batch, variable)")


def test_batch_axes_in_another_order():
    class Swapped(Members):
        def predictive(self, state, action, **given):
            p = super().predictive(state, action, **given)
            law = p.laws[0].map(lambda v: v.transpose(2, 3) if v.ndim == 5 else v)
            return bwm.Predictive(p.variables, [law], p.log_weight, exhaustive=True, time_step=p.time_step)

    refusal(Swapped(), predictive_shapes="the axes are (sample, worlds, particles, *batch, horizon, variable)")


# --- laws -------------------------------------------------------------------------------------------------------------


def test_abduct_that_does_not_invert():
    class Scaled(Gaussian):
        def abduct(self, next_state, *, tolerance=None):
            return super().abduct(next_state, tolerance=tolerance) * self.spread

    refusal(with_law(Scaled), abduct_inverts_push="abduct is not the exact inverse of push")
    refusal(with_law(Scaled), smoothed_noise_replays="noise found by smooth, replayed, gives the trajectory back")


def test_density_without_log_determinant():
    class Bare(Gaussian):
        def log_prob(self, state, *, marginal=False, tolerance=None):
            value = super().log_prob(state, marginal=True) + self.spread.log()
            return value if marginal else value.sum(-1)

    refusal(
        with_law(Bare),
        density_matches_push="log_prob lacks the log determinant of push",
        density_matches_cdf="log_prob lacks its normalisation",
    )


def test_joint_density_that_is_a_mean():
    class Mean(Gaussian):
        def log_prob(self, state, *, marginal=False, tolerance=None):
            value = super().log_prob(state, marginal=True)
            return value if marginal else value.mean(-1)

    refusal(with_law(Mean), density_matches_push="change of variables")


def test_cdf_upside_down():
    class Survival(Gaussian):
        def cdf(self, state):
            return 1 - super().cdf(state)

    refusal(
        with_law(Survival),
        cdf_matches_samples="the law's cdf never falls",
        density_matches_cdf="the marginal density integrates to the law's cdf",
    )


def test_cdf_of_another_scale():
    class Narrow(Gaussian):
        def cdf(self, state):
            return Gaussian(self.mean, 0.5 * self.spread).cdf(state)

    refusal(with_law(Narrow), cdf_matches_samples="pushed noise is distributed as the law's cdf says")


def test_contradiction_passed_over():
    class Silent(Gaussian):
        def abduct(self, next_state, *, tolerance=None):
            return super().abduct(next_state, tolerance=1e9)

    class PartlyNoisy(Drawn):
        def draw(self, worlds, *, generator=None):
            drawn = super().draw(worlds, generator=generator)
            transition = drawn.transition

            def silenced(*given, **named):
                right = transition(*given, **named)
                return Silent(right.mean, right.scale, noisy=right.noisy)

            drawn.transition = silenced
            return drawn

    refusal(PartlyNoisy(noise={"velocity": 0.1}), abduct_inverts_push="a contradiction is passed over in silence")


# --- conduct ----------------------------------------------------------------------------------------------------------


def test_nan_swallowed():
    class Swallowing(Members):
        def predictive(self, state, action, **given):
            state = None if state is None else torch.nan_to_num(state, posinf=0.0)
            return super().predictive(state, action, **given)

    refusal(Swallowing(), bad_numbers_are_refused="predictive refuses NaN in the state")


def test_nan_comes_out():
    class Rooted(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            law = super().transition(carry, action, context, step=step)
            return Gaussian(law.mean.sqrt(), law.scale, noisy=law.noisy)

    refusal(with_worlds(Rooted), predictive_shapes="expected a finite answer, got NaN or infinity")


def test_columns_cut_off():
    class Cutting(Members):
        def predictive(self, state, action, **given):
            return super().predictive(None if state is None else state[..., :2], action, **given)

    refusal(Cutting(), wrong_sizes_are_refused="predictive refuses a state with a column too many")


def test_mutated_inputs():
    class Clipping(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            return super().transition(carry, action.clamp_(-0.1, 0.1), context, step=step)

    refusal(with_worlds(Clipping), inputs_are_not_changed="the action is left as it was")


def test_mutated_carry():
    class InPlace(Gaussian):
        def push(self, noise):
            self.mean[..., :1] += 1e-3
            return super().push(noise)

    refusal(with_law(InPlace), inputs_are_not_changed="mean of a law that was pushed")


def test_changed_default_dtype():
    class Doubling(Members):
        def draw(self, worlds, *, generator=None):
            torch.set_default_dtype(torch.float64)
            return super().draw(worlds, generator=generator)

    try:
        refusal(Doubling(), surroundings_are_not_changed="draw leaves the default dtype as it was")
    finally:
        torch.set_default_dtype(torch.float32)


def test_saving_that_loses_the_noise():
    class Lossy(Drawn):
        def state_dict(self):
            config, tensors = super().state_dict()
            return {**config, "noise": [0.05, 0.0]}, tensors

    refusal(Lossy(), saved_model_answers_alike="state_dict leaves something out")


def test_saving_that_cannot_be_read():
    class Unreadable(Drawn):
        def state_dict(self):
            config, tensors = super().state_dict()
            del config["dtype"]
            return config, tensors

    refusal(Unreadable(), saved_model_answers_alike="from_state does not take what state_dict returns")


def test_gradient_cut():
    class Cut(StructureWorlds):
        def transition(self, carry, action, context=None, *, step=0):
            return super().transition(carry, action.detach(), context, step=step)

    refusal(with_worlds(Cut), gradients_are_right="in the actions agrees with finite differences")


def test_error_inside_is_a_breach():
    class Raising(StructureWorlds):
        def filter(self, *given, **named):
            raise ZeroDivisionError("half done")

    refusal(with_worlds(Raising), filter_follows_measurements="ZeroDivisionError: half done")


def seen_through_sensors(worlds: type[SensedWorlds]) -> bwm.DynamicsModel:
    """A pendulum whose angle is measured, with worlds of a class that breaks a promise."""

    class Faulty(bwm.KnownDynamics):
        def draw(self, count, *, generator=None):
            right = super().draw(count, generator=generator)
            assert isinstance(right, SensedWorlds)
            return worlds(
                right.dynamics,
                schema=right.schema,
                sensor_noise=right.parameters["sensor_noise"],
                belief=right.belief,
                method=right.method,
            )

    return Faulty(structure=Pendulum(), noise=0.05, sensor_noise={"angle": 0.05}, belief={"velocity": Normal(0.0, 1.0)})


def test_history_whose_last_measurement_is_forgotten():
    class Forgetful(SensedWorlds):
        def start(self, belief, context=None, noise=None):
            if isinstance(belief, bwm.Trajectories) and belief.horizon > 1:
                belief = belief.windows(belief.horizon - 1, stride=belief.horizon)
            return super().start(belief, context, noise)

    refusal(seen_through_sensors(Forgetful), history_leads_to_state="equals filtering on from a shorter one")


def test_filter_that_sees_nothing():
    class Blind(SensedWorlds):
        def filter(self, carry, action, context, measurement, mask=None, *, step=0):
            seen = torch.zeros_like(measurement, dtype=torch.bool)
            return super().filter(carry, action, context, measurement, seen, step=step)

    refusal(seen_through_sensors(Blind), history_leads_to_state="equals filtering on from a shorter one")
