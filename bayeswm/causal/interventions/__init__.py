"""Interventions on worlds of any family."""
