"""A run: its configuration, directory, pieces and loop."""
