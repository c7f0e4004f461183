"""What a PyTorch file is, from the names in its archive: TorchScript, an exported program, or a
pickle. Pickles are refused, whole files and parts of them: reading them would run what they name.
"""

import importlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from exporl.external.named_files import present
from exporl.files.reading import LARGEST, parsed

Kind = Literal["script", "exported"]
EXPRESSION = re.compile(r"[\w\s+*/%(),-]*")
"""Sizes as an exported program writes them; torch reads them with Python's own parser."""
SYMBOL = re.compile(r"Symbol\('\w+'(?:, \w+=(?:True|False))*\)")
"""An unknown size in them."""
FUNCTIONS = {"Integer", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "floor", "ceiling",
             "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv"}  # fmt: skip
"""Functions in such sizes."""
NATIVE, CUSTOM = "aotinductor/", ("/custom_obj_", "/opaque_obj_")
"""What the names of parts have that are machine code, or objects."""
HOW = (
    "Save it with torch.jit.script(module).save(FILE) or torch.export.save(program, FILE), or load "
    "weights in a function of yours, with weights_only=True: --base torch:module:function."
)


def kind_of(path: Path) -> Kind:
    """Whether a file is TorchScript or an exported program.

    Raises:
        ValueError: it is something else, or has parts that would run code when they are read.
        FileNotFoundError: there is no file.
    """
    if not zipfile.is_zipfile(present(path)):
        raise ValueError(f"{path} is neither TorchScript nor an exported program. {HOW}")
    with zipfile.ZipFile(path) as archive:
        parts = _parts(path, archive)
        if "constants.pkl" in parts and any(name.startswith("code/") for name in parts):
            return "script"
        if "archive_format" in parts or "serialized_exported_program.json" in parts:
            _check_exported(path, archive, parts)
            return "exported"
    raise ValueError(
        f"{path} is a pickle of torch.save: reading it would run whatever code it names. {HOW}"
    )


def _parts(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Name without the folder that all lie in -> entry.

    Raises:
        ValueError: two have the same name, or one is packed and large: torch writes neither.
    """
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    roots = {name.partition("/")[0] for name in names}
    inner = len(roots) == 1 and all("/" in name for name in names)
    parts = {
        name.partition("/")[2] if inner else name: e for name, e in zip(names, entries, strict=True)
    }
    for name, entry in parts.items():
        if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > LARGEST:
            raise ValueError(
                f"{path}: {name} has {entry.file_size} bytes, packed; at most {LARGEST}."
            )
    if len(parts) < len(entries):
        raise ValueError(f"{path} was not written by torch: a name is there twice.")
    return parts


def _check_exported(
    path: Path, archive: zipfile.ZipFile, parts: dict[str, zipfile.ZipInfo]
) -> None:
    """Refuses an exported program that torch would unpickle, evaluate or link in part."""
    torch: Any = importlib.import_module("torch")
    for name, entry in parts.items():
        if NATIVE in name or any(mark in f"/{name}" for mark in CUSTOM):
            raise ValueError(
                f"{path} holds {name}, machine code or an object of its own: such parts are not "
                f"opened. {HOW}"
            )
        if name.endswith(".pt"):
            try:
                torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
            except Exception as error:  # torch raises many kinds
                raise ValueError(
                    f"{path}: {name} holds more than tensors ({type(error).__name__}): it would "
                    f"be unpickled. {HOW}"
                ) from error
        if name.endswith(".json"):
            if entry.file_size > LARGEST:
                raise ValueError(f"{path}: {name} has more than {LARGEST} bytes.")
            for key, value in _entries(parsed(archive.read(entry), f"{path}: {name}")):
                if key == "use_pickle" and value:
                    raise ValueError(f"{path}: {name} names pickles: they are not read. {HOW}")
                if key == "expr_str" and not _is_size(value):
                    raise ValueError(f"{path}: {name} has the size {value!r}, which is none.")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every entry of every object within JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner)


def _is_size(text: Any) -> bool:
    """Whether an expression is made of numbers, symbols and the functions of sizes."""
    if not isinstance(text, str):
        return False
    text = SYMBOL.sub("s", text)
    if not EXPRESSION.fullmatch(text) or "__" in text:
        return False
    return set(re.findall(r"([^\W\d]\w*)\s*\(", text)) <= FUNCTIONS
