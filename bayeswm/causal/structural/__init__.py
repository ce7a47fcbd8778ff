"""Structural causal models: mechanisms inside a slice, known or learned."""
