"""Causal graphs, and what separates their nodes."""
