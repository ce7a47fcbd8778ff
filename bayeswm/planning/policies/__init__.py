"""Policies with parameters, and how they are learned."""
