"""Whole numbers as people write them."""

EXACT = 2**53
"""Up to here every whole number is one in floating point too."""


def whole_number(text: str) -> int:
    """The whole number that a text says: 100000, 100_000, 1e5.

    Raises:
        ValueError: it says none.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"must be a whole number, got {text!r}.") from error
    if not value.is_integer() or abs(value) > EXACT:
        raise ValueError(f"must be a whole number, got {text!r}.")
    return int(value)
