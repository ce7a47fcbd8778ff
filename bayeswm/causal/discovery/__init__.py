"""Drafts of graphs from data."""
