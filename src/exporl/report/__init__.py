"""HTML pages about runs and data files, and the statistics in them. Runs are read from their
files."""
