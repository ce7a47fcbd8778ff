"""The contract as a test: what every model promises, ours or a user's, checked on a fitted one."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from bayeswm.base.errors import BayeswmWarning, ConfoundedError, SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.trajectories import Trajectories
from bayeswm.testing import (
    answers,
    conduct,
    gradient_check,
    law_checks,
    moments,
    randomness,
    rollout_checks,
    saving_check,
    world_checks,
)
from bayeswm.testing.case import Case, require_fit
from bayeswm.testing.report import Breach, CheckResult, ContractError, NotApplicable, Report
from bayeswm.testing.surroundings import kept_surroundings

Check = Callable[[Case], Iterator[Breach]]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        answers.predictive_shapes,
        answers.predictive_broadcasts,
        answers.rollout_shapes,
        answers.rows_are_independent,
        answers.chunks_are_independent,
        randomness.same_seed_same_answer,
        randomness.generator_is_used,
        moments.total_is_sum_of_parts,
        moments.variance_splits_by_world,
        moments.samples_match_moments,
        moments.pushed_noise_matches_law,
        moments.rollout_noise_matches_laws,
        moments.function_has_no_process_noise,
        law_checks.law_shapes,
        law_checks.abduct_inverts_push,
        law_checks.cdf_matches_samples,
        law_checks.density_matches_cdf,
        law_checks.density_matches_push,
        world_checks.weights_are_normalised,
        world_checks.drawn_worlds_differ,
        world_checks.exhaustive_worlds_are_the_posterior,
        world_checks.worlds_can_be_indexed,
        world_checks.parameters_can_be_replaced,
        world_checks.carry_is_a_tree_of_tensors,
        world_checks.worlds_do_not_mix,
        rollout_checks.rollout_starts_with_predictive,
        rollout_checks.stepping_is_rolling_out,
        rollout_checks.same_function_at_every_step,
        rollout_checks.fresh_worlds_are_an_option,
        rollout_checks.filter_follows_measurements,
        rollout_checks.smoothed_noise_replays,
        rollout_checks.history_leads_to_state,
        conduct.bad_numbers_are_refused,
        conduct.wrong_sizes_are_refused,
        conduct.inputs_are_not_changed,
        conduct.surroundings_are_not_changed,
        saving_check.saved_model_answers_alike,
        gradient_check.gradients_are_right,
    )
}


def check_model(
    model: DynamicsModel,
    trajectories: Trajectories,
    *,
    seed: int = 0,
    p_value: float = 1e-5,
    skip: Collection[str] = (),
) -> Report:
    """Check that a fitted model keeps every promise of the contract.

    Parameters
    ----------
    model : DynamicsModel
        A fitted model, of this library or of a user.
    trajectories : Trajectories
        Recordings of its system; states and actions of the questions are taken from them.
    seed : int
        Decides which states are taken, and all random numbers.
    p_value : float
        Probability at most that a correct model is refused by chance, all statistical comparisons together.
    skip : collection of str
        Checks to leave out, by the names in the report: ``same_function_at_every_step`` for a system that changes with
        time on purpose.

    Returns
    -------
    Report
        Every check with its status and time; those that do not apply to the model say why.

    Raises
    ------
    ContractError
        With all broken promises: what was expected, what came, the likely cause.
    ConfoundedError
        If the model does not say what actions do, so that nothing can be asked.
    SpecError, UnknownVariableError
        If the trajectories do not fit the model, the p-value is none, or a name in ``skip`` is no check.

    Examples
    --------
    >>> import torch
    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.02)
    >>> states, actions = torch.tensor([[[0.1, 0.0], [0.2, 1.0], [0.3, 0.5]]]), torch.tensor([[[1.0], [-1.0]]])
    >>> report = check_model(truth, bwm.Trajectories(truth.schema, state=states, action=actions))
    >>> report.failed
    ()
    """
    if not 0 < p_value < 1:
        raise SpecError(
            f"expected a p_value between 0 and 1, got {p_value}; 1e-5 refuses a correct model once in 1e5 runs"
        )
    for name in skip:
        if name not in CHECKS:
            raise UnknownVariableError.of(name, CHECKS)
    require_fit(model, trajectories)
    results: list[CheckResult] = []
    for name, check in CHECKS.items():
        if name not in skip:
            # a new case for each check: what one of them spoils does not reach the next
            results.append(_run(name, check, lambda: Case(model, trajectories, seed=seed, p_value=p_value)))
        else:
            results.append(CheckResult(name, 0.0, skipped="left out by skip="))
    report = Report(type(model).__name__, tuple(results))
    if report.failed:
        raise ContractError(report)
    return report


def _run(name: str, check: Check, make_case: Callable[[], Case]) -> CheckResult:
    began = time.perf_counter()
    breaches: list[Breach] = []
    skipped = ""
    with warnings.catch_warnings(), kept_surroundings():
        # an answer may be uncertain (few kernels, diverged particles); that is no breach
        warnings.simplefilter("ignore", BayeswmWarning)
        try:
            breaches.extend(check(make_case()))
        except NotApplicable as reason:
            skipped = str(reason)
        except ConfoundedError:  # refused on purpose, whatever is asked
            raise
        except Exception as error:  # a model may raise anything, and all breaches are to be listed
            promise = (check.__doc__ or name).strip().splitlines()[0].rstrip(".")
            where = traceback.extract_tb(error.__traceback__)[-1]
            got = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno}, in {where.name})"
            cause = "the model raises on a question of the contract, or an answer is not of its documented kind"
            breaches.append(Breach(promise, "an answer", got, cause))
    return CheckResult(name, time.perf_counter() - began, tuple(breaches), skipped)
