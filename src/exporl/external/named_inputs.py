"""Which entries of an observation make up the inputs of a model that is known by its names."""

from collections.abc import Sequence

from exporl.spec import Spec

NOISE = "noise"
"""Name of the input that is drawn, standard normal; a model without it always answers the same."""


def named_inputs(path: str, names: Sequence[str], spec: Spec) -> dict[str, tuple[str, ...]]:
    """Input of a model -> the entries that make it up: the one of its name, or for a single input
    all vectors of floats in the order of their names. `NOISE` is left out.

    Raises:
        ValueError: the names are others, and there are several; says which.
    """
    shown = [name for name, _, _ in spec.observation]
    vectors = sorted(n for n, s, kind in spec.observation if kind == "float32" and len(s) == 1)
    wanted = [name for name in names if name != NOISE]
    if wanted and all(name in shown for name in wanted):
        return {name: (name,) for name in wanted}
    if len(wanted) == 1 and vectors:
        return {wanted[0]: tuple(vectors)}
    raise ValueError(
        f"{path} has the inputs {', '.join(wanted) or 'none'}; the task shows {', '.join(shown)}. "
        "Name them alike, or give the model one input."
    )
