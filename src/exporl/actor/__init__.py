"""An environment on another machine than the one that trains: its side, without JAX."""
