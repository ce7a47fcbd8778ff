"""Causes and effects: graphs, and which effects can be told from what was recorded."""

from bayeswm.causal.graph import CausalGraph
from bayeswm.causal.time_graph import TimeGraph

__all__ = ["CausalGraph", "TimeGraph"]
