"""Dynamics from logs whose actions may share causes with what follows."""
