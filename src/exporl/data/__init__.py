"""Data on the host, in NumPy: episodes, replay, mixtures and file formats."""
