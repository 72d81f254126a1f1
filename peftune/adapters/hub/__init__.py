"""Artifacts on the hub: their names, how they are fetched, how they are pushed. Light."""
