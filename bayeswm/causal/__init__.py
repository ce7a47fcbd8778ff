"""Causes and effects: graphs, and which effects follow from what was recorded."""

from bayeswm.causal.adjustment import adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.estimand import Estimand, Probability, Product, Ratio, Sum
from bayeswm.causal.front_door import front_door_sets, is_front_door_set
from bayeswm.causal.graph import CausalGraph
from bayeswm.causal.hedge import Hedge
from bayeswm.causal.identification import identify
from bayeswm.causal.instruments import Instrument, instruments
from bayeswm.causal.intervened import IntervenedModel, IntervenedWorlds, intervene
from bayeswm.causal.intervention import Intervention, clamp, do, shift
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.names import at
from bayeswm.causal.sequential import SequentialAdjustment, sequential_backdoor
from bayeswm.causal.structural import StructuralModel, StructuralWorlds
from bayeswm.causal.tables import Table
from bayeswm.causal.time_graph import TimeGraph
from bayeswm.causal.verdict import Identifiable, NotIdentifiable, Query, Unknown

__all__ = [
    "CausalGraph",
    "Estimand",
    "Hedge",
    "Identifiable",
    "Instrument",
    "IntervenedModel",
    "IntervenedWorlds",
    "Intervention",
    "Mechanism",
    "NotIdentifiable",
    "Probability",
    "Product",
    "Query",
    "Ratio",
    "SequentialAdjustment",
    "StructuralModel",
    "StructuralWorlds",
    "Sum",
    "Table",
    "TimeGraph",
    "Unknown",
    "adjust",
    "adjustment_set",
    "at",
    "backdoor_sets",
    "clamp",
    "do",
    "front_door_sets",
    "identify",
    "instruments",
    "intervene",
    "is_adjustment_set",
    "is_front_door_set",
    "sequential_backdoor",
    "shift",
]
