"""Suites: algorithms on tasks with several seeds, made in parallel, resumed, and compared."""
