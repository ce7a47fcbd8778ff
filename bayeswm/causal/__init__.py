"""Causes and effects: graphs, which effects follow from what was recorded, interventions and counterfactuals."""

from bayeswm.causal.adjustment import adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.behaviour import LinearBehaviour, fit_behaviour
from bayeswm.causal.changes import clamp, shift
from bayeswm.causal.conditioned import ConditionedModel
from bayeswm.causal.confounder import ConfoundedWorlds, assume_confounder
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
from bayeswm.causal.counterfactuals import Counterfactual, counterfactual
from bayeswm.causal.discovery import GraphDraft, discover
from bayeswm.causal.discrete_bounds import Bounds, CausationBounds, benefit_bounds, causation_bounds, joint_bounds
from bayeswm.causal.e_values import EValue, e_value, e_value_of_difference
from bayeswm.causal.effects import effect
from bayeswm.causal.estimand import Estimand, Probability, Product, Ratio, Sum
from bayeswm.causal.front_door import front_door_sets, is_front_door_set
from bayeswm.causal.graph import CausalGraph
from bayeswm.causal.group_effects import group_effects
from bayeswm.causal.hedge import Hedge
from bayeswm.causal.identification import identify
from bayeswm.causal.instruments import Instrument, instruments
from bayeswm.causal.intervened import IntervenedWorlds
from bayeswm.causal.intervened_model import IntervenedModel, intervene
from bayeswm.causal.intervention import Intervention, do
from bayeswm.causal.learned import Learned
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.mediation import mediation
from bayeswm.causal.names import at
from bayeswm.causal.omitted_variable import AdjustedEstimate, adjusted_estimate, robustness_value
from bayeswm.causal.overlap import positivity
from bayeswm.causal.path_effects import path_effect
from bayeswm.causal.policy_values import PolicyValue, policy_value
from bayeswm.causal.positivity_report import Positivity
from bayeswm.causal.refits import Refutation
from bayeswm.causal.refutation import negative_control, placebo_treatment
from bayeswm.causal.residual_tests import ResidualTests
from bayeswm.causal.sensitivity import sensitivity_of_choice, sensitivity_of_effect
from bayeswm.causal.sequential import SequentialAdjustment, sequential_backdoor
from bayeswm.causal.spike_and_slab import SpikeAndSlab
from bayeswm.causal.structural import StructuralModel, StructuralWorlds
from bayeswm.causal.tables import Table
from bayeswm.causal.time_graph import TimeGraph
from bayeswm.causal.tipping import Sensitivity
from bayeswm.causal.verdict import Identifiable, NotIdentifiable, Query, Unknown

__all__ = [
    "Adjusted",
    "AdjustedEstimate",
    "Bounds",
    "CausalDynamics",
    "CausalGraph",
    "CausationBounds",
    "ConditionedModel",
    "ConfoundedWorlds",
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
