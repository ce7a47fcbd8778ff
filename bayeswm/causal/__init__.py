"""Causes and effects: graphs, which effects follow from what was recorded, interventions and counterfactuals."""

from bayeswm.causal.adjustment import adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.confounding.choice import choose_strategy
from bayeswm.causal.confounding.dynamics import CausalDynamics
from bayeswm.causal.confounding.strategies import (
    Adjusted,
    FrontDoor,
    Instrumented,
    Persistent,
    Proxied,
    Strategy,
    Unconfounded,
    Unidentified,
)
from bayeswm.causal.counterfactuals import Counterfactual, counterfactual
from bayeswm.causal.effects import effect
from bayeswm.causal.estimand import Estimand, Probability, Product, Ratio, Sum
from bayeswm.causal.front_door import front_door_sets, is_front_door_set
from bayeswm.causal.graph import CausalGraph
from bayeswm.causal.hedge import Hedge
from bayeswm.causal.identification import identify
from bayeswm.causal.instruments import Instrument, instruments
from bayeswm.causal.intervened import IntervenedModel, IntervenedWorlds, intervene
from bayeswm.causal.intervention import Intervention, clamp, do, shift
from bayeswm.causal.learned import Learned
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.mediation import mediation
from bayeswm.causal.names import at
from bayeswm.causal.sequential import SequentialAdjustment, sequential_backdoor
from bayeswm.causal.structural import StructuralModel, StructuralWorlds
from bayeswm.causal.tables import Table
from bayeswm.causal.time_graph import TimeGraph
from bayeswm.causal.verdict import Identifiable, NotIdentifiable, Query, Unknown

__all__ = [
    "Adjusted",
    "CausalDynamics",
    "CausalGraph",
    "Counterfactual",
    "Estimand",
    "FrontDoor",
    "Hedge",
    "Identifiable",
    "Instrument",
    "Instrumented",
    "IntervenedModel",
    "IntervenedWorlds",
    "Intervention",
    "Learned",
    "Mechanism",
    "NotIdentifiable",
    "Persistent",
    "Probability",
    "Product",
    "Proxied",
    "Query",
    "Ratio",
    "SequentialAdjustment",
    "Strategy",
    "StructuralModel",
    "StructuralWorlds",
    "Sum",
    "Table",
    "TimeGraph",
    "Unconfounded",
    "Unidentified",
    "Unknown",
    "adjust",
    "adjustment_set",
    "at",
    "backdoor_sets",
    "choose_strategy",
    "clamp",
    "counterfactual",
    "do",
    "effect",
    "front_door_sets",
    "identify",
    "instruments",
    "intervene",
    "is_adjustment_set",
    "is_front_door_set",
    "mediation",
    "sequential_backdoor",
    "shift",
]
