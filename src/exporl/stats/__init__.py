"""What can be said about learning curves and scores of a few runs: arrays in, numbers and intervals
out. NumPy alone; every draw comes from a generator that the caller gives."""
