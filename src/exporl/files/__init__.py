"""Files that are never half written, checkpoints, and the names of a run directory's files."""
