"""Flax modules: features of an observation (and an action chunk) in, array out."""
