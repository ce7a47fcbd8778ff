"""Causes and effects: graphs, which effects follow from what was recorded, interventions and counterfactuals."""

from bayeswm.causal.adjustment import adjust, adjustment_set, backdoor_sets, is_adjustment_set
from bayeswm.causal.counterfactuals import Counterfactual, counterfactual
from bayeswm.causal.discovery import GraphDraft, discover
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
from bayeswm.causal.residual_tests import ResidualTests
from bayeswm.causal.sequential import SequentialAdjustment, sequential_backdoor
from bayeswm.causal.spike_and_slab import SpikeAndSlab
from bayeswm.causal.structural import StructuralModel, StructuralWorlds
from bayeswm.causal.tables import Table
from bayeswm.causal.time_graph import TimeGraph
from bayeswm.causal.verdict import Identifiable, NotIdentifiable, Query, Unknown

__all__ = [
    "CausalGraph",
    "Counterfactual",
    "Estimand",
    "GraphDraft",
    "Hedge",
    "Identifiable",
    "Instrument",
    "IntervenedModel",
    "IntervenedWorlds",
    "Intervention",
    "Learned",
    "Mechanism",
    "NotIdentifiable",
    "Probability",
    "Product",
    "Query",
    "Ratio",
    "ResidualTests",
    "SequentialAdjustment",
    "SpikeAndSlab",
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
    "counterfactual",
    "discover",
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
