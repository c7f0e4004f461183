"""How large arrays may become in memory: compared with what the file holds of them, before
anything is unpacked."""

FREE_BYTES = 256 * 2**20
"""Arrays up to this size are unpacked whatever is stored of them: rows never written read as zeros,
and constant ones compress to next to nothing."""
EXPANSION = 100
"""Larger ones may unpack to so many times what is stored: recorded numbers compress far less."""
PICTURE_EXPANSION = 1_000
"""The same for JPEG and PNG, which store an even colour in next to nothing."""


def check_size(what: str, stated: int, stored: int, expansion: int = EXPANSION) -> None:
    """Refuses an array that would unpack to far more than the file holds.

    Args:
        what: the array's name.
        stated: bytes that it says it has once it is unpacked.
        stored: bytes that the file holds of it.
        expansion: how many times that are allowed.

    Raises:
        ValueError: names the array, its stated size and the limit.
    """
    limit = max(FREE_BYTES, expansion * stored)
    if stated > limit:
        raise ValueError(
            f"{what} claims {stated} bytes and stores {stored}; at most {limit} bytes are unpacked "
            f"from that ({FREE_BYTES // 2**20} MiB, or {expansion} times what is stored). The file "
            "is damaged, or made to fill the memory. If it is neither, store it uncompressed."
        )
