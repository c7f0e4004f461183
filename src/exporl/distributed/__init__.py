"""Actors in processes of their own, on this machine or on a Ray cluster; the learner stays in the
process of the run."""
