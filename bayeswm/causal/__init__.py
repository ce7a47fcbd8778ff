"""Causes and effects: graphs, which effects follow from what was recorded, interventions and counterfactuals."""

from bayeswm.causal.confounding.choice import choose_strategy
from bayeswm.causal.confounding.dynamics import CausalDynamics
from bayeswm.causal.confounding.strategies import (
    Adjusted,
    FrontDoor,
    Instrumented,
    Persistent,
    Proxied,
    Unconfounded,
    Unidentified,
)
from bayeswm.causal.counterfactuals.counterfactual import Counterfactual, counterfactual
from bayeswm.causal.counterfactuals.discrete_bounds import (
    Bounds,
    CausationBounds,
    benefit_bounds,
    causation_bounds,
    joint_bounds,
)
from bayeswm.causal.discovery.discover import GraphDraft, discover
from bayeswm.causal.discovery.residual_tests import ResidualTests
from bayeswm.causal.discovery.spike_and_slab import SpikeAndSlab
from bayeswm.causal.effects.effect import effect
from bayeswm.causal.effects.group_effects import group_effects
from bayeswm.causal.effects.mediation import mediation
from bayeswm.causal.effects.path_effects import path_effect
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import at
from bayeswm.causal.graphs.time_graph import TimeGraph
from bayeswm.causal.identification.adjustment import adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.identification.estimand import Estimand, Probability, Product, Ratio, Sum
from bayeswm.causal.identification.front_door import front_door_sets, is_front_door_set
from bayeswm.causal.identification.hedge import Hedge
from bayeswm.causal.identification.identify import identify
from bayeswm.causal.identification.instruments import Instrument, instruments
from bayeswm.causal.identification.sequential import SequentialAdjustment, sequential_backdoor
from bayeswm.causal.identification.tables import Table
from bayeswm.causal.identification.verdict import Identifiable, NotIdentifiable, Query, Unknown
from bayeswm.causal.interventions.changes import clamp, shift
from bayeswm.causal.interventions.intervened import IntervenedWorlds
from bayeswm.causal.interventions.intervened_model import IntervenedModel, intervene
from bayeswm.causal.interventions.intervention import Intervention, do
from bayeswm.causal.sensitivity.behaviour import LinearBehaviour, fit_behaviour
from bayeswm.causal.sensitivity.confounder import CorrectedWorlds, assume_confounder
from bayeswm.causal.sensitivity.e_values import EValue, e_value, e_value_of_difference
from bayeswm.causal.sensitivity.omitted_variable import AdjustedEstimate, adjusted_estimate, robustness_value
from bayeswm.causal.sensitivity.refits import Refutation
from bayeswm.causal.sensitivity.refutation import negative_control, placebo_treatment
from bayeswm.causal.sensitivity.sensitivity import sensitivity_of_choice, sensitivity_of_effect
from bayeswm.causal.sensitivity.tipping import Sensitivity
from bayeswm.causal.structural.conditioned import ConditionedModel
from bayeswm.causal.structural.learned import Learned
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.model import StructuralModel
from bayeswm.causal.structural.worlds import StructuralWorlds
from bayeswm.causal.support.overlap import positivity
from bayeswm.causal.support.policy_values import PolicyValue, policy_value
from bayeswm.causal.support.positivity_report import Positivity

__all__ = [
    "Adjusted",
    "AdjustedEstimate",
    "Bounds",
    "CausalDynamics",
    "CausalGraph",
    "CausationBounds",
    "ConditionedModel",
    "CorrectedWorlds",
    "Counterfactual",
    "EValue",
    "Estimand",
    "FrontDoor",
    "GraphDraft",
    "Hedge",
    "Identifiable",
    "Instrument",
    "Instrumented",
    "IntervenedModel",
    "IntervenedWorlds",
    "Intervention",
    "Learned",
    "LinearBehaviour",
    "Mechanism",
    "NotIdentifiable",
    "Persistent",
    "PolicyValue",
    "Positivity",
    "Probability",
    "Product",
    "Proxied",
    "Query",
    "Ratio",
    "Refutation",
    "ResidualTests",
    "Sensitivity",
    "SequentialAdjustment",
    "SpikeAndSlab",
    "StructuralModel",
    "StructuralWorlds",
    "Sum",
    "Table",
    "TimeGraph",
    "Unconfounded",
    "Unidentified",
    "Unknown",
    "adjust",
    "adjusted_estimate",
    "adjustment_set",
    "assume_confounder",
    "at",
    "backdoor_sets",
    "benefit_bounds",
    "causation_bounds",
    "choose_strategy",
    "clamp",
    "counterfactual",
    "discover",
    "do",
    "e_value",
    "e_value_of_difference",
    "effect",
    "fit_behaviour",
    "front_door_sets",
    "group_effects",
    "identify",
    "instruments",
    "intervene",
    "is_adjustment_set",
    "is_front_door_set",
    "joint_bounds",
    "mediation",
    "negative_control",
    "path_effect",
    "placebo_treatment",
    "policy_value",
    "positivity",
    "robustness_value",
    "sensitivity_of_choice",
    "sensitivity_of_effect",
    "sequential_backdoor",
    "shift",
]
