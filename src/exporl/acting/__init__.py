"""Acting in environments: for training, and to evaluate."""
