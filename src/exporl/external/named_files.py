"""Files that a base policy's name stands for."""

from pathlib import Path


def present(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        FileNotFoundError: it is not; says where it was looked for.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no base policy {path} (looked for from {Path.cwd()}). Restore the file, or "
            "name it by its whole path."
        )
    return path
