"""Numbers in few characters."""


def short(value: float | int) -> str:
    """A number in few characters: 20k, 1.5M, 0.25, 1e-05."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit <= abs(value) < 1e12:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"
