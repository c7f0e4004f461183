"""A policy that is given away: one folder, a model card, and a form that needs neither JAX nor this
library."""
