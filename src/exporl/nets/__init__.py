"""Flax modules: observation dictionary (and action chunk) in, array out."""
