"""The two storages of Minari datasets, `main_data.hdf5` and one Arrow or Parquet file per episode,
as raw arrays."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporl.data.formats import hdf5
from exporl.data.formats.decode import (
    check_parquet,
    chosen,
    column_array,
    count,
    pictures,
    read_json,
    readable,
)
from exporl.data.formats.fields import NUMERIC, refuse_stand_in

FILE = "main_data.hdf5"
Spaces = dict[str, dict[str, Any]]
"""Observation entry -> its space, as metadata.json describes it."""
_FIELDS = ("actions", "rewards", "terminations")


class Content(NamedTuple):
    """One episode as stored, lengths not checked; text is left out."""

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray | None
    infos: dict[str, np.ndarray]
    unit_actions: bool = False
    """Whether the file says that its actions are in [-1, 1] already."""


class Storage(NamedTuple):
    """How episodes are found and read."""

    names: Callable[[Path], list[str]]
    """(data folder) -> names of the episodes in numeric order. Raises ValueError naming the
    file."""
    read: Callable[[Path, str, Spaces, tuple[str, ...]], Content]
    """(data folder, name, spaces, observation entries or all) -> arrays. Raises ValueError naming
    the field."""
    steps: Callable[[Path, list[str]], int | None]
    """(data folder, names) -> steps of all episodes, None where a damaged one hides its own."""


def _content(
    entries: Mapping[str, Callable[[], np.ndarray | None]],
    keys: tuple[str, ...],
    fields: Mapping[str, np.ndarray | None],
    infos: Mapping[str, np.ndarray | None],
    truncations: np.ndarray | None,
) -> Content:
    """Reads the chosen entries, leaves text out and refuses what must be there as numbers."""
    numeric = {name: value for name, value in fields.items() if value is not None}
    for name in fields.keys() - numeric.keys():
        raise ValueError(f"{name} is not an array of numbers with one row per step.")
    observations = {
        name: value for name in chosen(entries, keys) if (value := entries[name]()) is not None
    }
    if not observations:
        raise ValueError(
            f"there is no observation of numbers or images; found {', '.join(entries) or 'none'}."
        )
    kept = {name: value for name, value in infos.items() if value is not None}
    actions, rewards, terminations = (numeric[name] for name in _FIELDS)
    return Content(observations, actions, rewards, terminations, truncations, kept)


def _need(found: Iterable[str]) -> None:
    found = sorted(found)
    missing = sorted({"observations", *_FIELDS} - set(found))
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; it has {', '.join(found) or 'nothing'}.")


def _number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _source(folder: Path) -> hdf5.Source:
    if not (folder / FILE).is_file():
        raise ValueError(f"{folder / FILE} is missing. Copy the whole folder of the dataset.")
    return hdf5.Source(folder / FILE)


def _hdf5_names(folder: Path) -> list[str]:
    with _source(folder).open() as root:
        names = hdf5.names(root, str(folder / FILE))
    return sorted(
        (name for name in names if re.fullmatch(r"episode_[0-9]{1,18}", name)), key=_number
    )


def _hdf5_steps(folder: Path, names: list[str]) -> int | None:
    with _source(folder).open() as root:
        try:
            return sum(
                hdf5.rows_of(hdf5.child(root, f"{name}/rewards"), "rewards") for name in names
            )
        except ValueError:  # reading that episode tells what is wrong with it
            return None


def _hdf5(folder: Path, name: str, spaces: Spaces, keys: tuple[str, ...]) -> Content:
    with _source(folder).open() as root:
        group = hdf5.child(root, name)
        if not hdf5.is_group(group):
            raise ValueError("it is not a group of arrays. The file is damaged.")
        _need(hdf5.names(group, name))
        node = hdf5.child(group, "observations")
        leaves = (
            {"state": node} if hdf5.is_dataset(node) else _plain(hdf5.leaves(node, "observations"))
        )
        infos = hdf5.child(group, "infos")
        infos = {} if infos is None else _plain(hdf5.leaves(infos, "infos"))
        read = {key: node for key, node in leaves.items() if not keys or key in keys}
        hdf5.check_total(read | {f"infos/{key}": node for key, node in infos.items()})
        truncations = hdf5.child(group, "truncations")
        content = _content(
            {
                key: functools.partial(
                    _hdf5_values, node, f"observations[{key!r}]", spaces.get(key, {}).get("shape")
                )
                for key, node in leaves.items()
            },
            keys,
            {field: _hdf5_values(hdf5.child(group, field), field) for field in _FIELDS},
            {key: _hdf5_values(node, f"infos/{key}") for key, node in infos.items()},
            None if truncations is None else _hdf5_values(truncations, "truncations"),
        )
        return content._replace(unit_actions=hdf5.flag(group, "unit_actions"))


def _plain(leaves: dict[str, Any]) -> dict[str, Any]:
    """Elements of a tuple named by their number, as in Arrow storage."""
    return {re.sub(r"(^|/)_index_(?=\d)", r"\1", name): node for name, node in leaves.items()}


def _hdf5_values(dataset: Any, what: str, shape: list[int] | None = None) -> np.ndarray | None:
    if not hdf5.is_dataset(dataset):
        raise ValueError(f"{what} is not an array.")
    encoded = shape is not None and len(shape) > max(len(dataset.shape or ()) - 1, 1)
    if encoded and dataset.dtype.kind == "O":  # JPEG files of different lengths
        return pictures(hdf5.variable_rows(dataset, what), what)
    if dataset.dtype.kind not in NUMERIC or not dataset.shape:
        return None
    hdf5.rows_of(dataset, what)
    values = hdf5.read(dataset, what)
    return pictures(values, what) if encoded and values.dtype == np.uint8 else values


def _arrow_names(folder: Path) -> list[str]:
    found = (entry.name for entry in folder.iterdir() if entry.is_dir())
    return [
        f"episode_{name}"
        for name in sorted((n for n in found if re.fullmatch(r"[0-9]{1,18}", n)), key=int)
    ]


def _arrow_steps(folder: Path, names: list[str]) -> int | None:
    total = 0
    for name in names:
        path = folder / name.removeprefix("episode_") / "metadata.json"
        try:
            total += count(read_json(path), "total_steps", path) or 0
        except ValueError:  # reading that episode tells what is wrong with it
            return None
    return total


def _arrow(kind: str, folder: Path, name: str, spaces: Spaces, keys: tuple[str, ...]) -> Content:
    part = folder / name.removeprefix("episode_")
    table = _arrow_table(part, kind)
    _need(table.column_names)
    stated = count(read_json(part / "metadata.json"), "total_steps", part / "metadata.json")
    if stated is not None and stated + 1 != len(table):
        raise ValueError(
            f"metadata.json states {stated} steps, the data has {len(table) - 1}. Copy the dataset "
            "again."
        )
    entries = {
        entry or "state": array
        for entry, (array, _) in _arrow_leaves(table["observations"], "").items()
    }
    infos = _arrow_leaves(table["infos"], "") if "infos" in table.column_names else {}
    return _content(
        {
            key: functools.partial(
                _arrow_values, array, f"observations[{key!r}]", spaces.get(key, {}).get("shape")
            )
            for key, array in entries.items()
        },
        keys,
        # the last row is padding
        {field: column_array(table[field][:-1], field) for field in _FIELDS},
        {key: _arrow_values(array, f"infos/{key}", shape) for key, (array, shape) in infos.items()},
        column_array(table["truncations"][:-1], "truncations")
        if "truncations" in table.column_names
        else None,
    )


def _arrow_table(part: Path, kind: str) -> Any:
    """The rows of one episode, padded to t + 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(part.glob(f"*.{kind}"))
    if not files:
        raise ValueError(
            f"there is no .{kind} file in {part}. Copy the whole folder of the dataset."
        )
    tables = []
    for file in files:
        what = f"{part.name}/{file.name}"
        refuse_stand_in(file)
        with readable(what), pa.OSFile(str(file)) as source:
            if kind == "parquet":
                parquet = pq.ParquetFile(source)
                check_parquet(parquet, what, file.stat().st_size)
                tables.append(parquet.read())
            else:
                tables.append(pa.ipc.open_file(source).read_all())
            tables[-1].validate(full=True)
    with readable(part.name):
        return pa.concat_tables(tables)


def _arrow_leaves(
    column: Any, prefix: str, shape: list[int] | None = None
) -> dict[str, tuple[Any, list[int] | None]]:
    """Entry name -> its column, and the shape of a row where the field's metadata states one."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        return {prefix: (column, shape)}
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    found: dict[str, tuple[Any, list[int] | None]] = {}
    for index, field in enumerate(array.type):
        stated = (field.metadata or {}).get(b"shape", b"").decode("ascii", "replace")
        numbers = (
            [int(n) for n in stated.split(",")]
            if re.fullmatch(r"\d{1,9}(,\d{1,9})*", stated)
            else None
        )
        found |= _arrow_leaves(
            array.field(index), f"{prefix}/{field.name}" if prefix else field.name, numbers
        )
    return found


def _arrow_values(array: Any, what: str, shape: list[int] | None = None) -> np.ndarray | None:
    import pyarrow as pa

    if pa.types.is_binary(array.type):
        return pictures(array.to_pylist(), what)
    values = column_array(array, what)
    if values is None or not shape:
        return values
    if int(np.prod(shape)) * len(values) != values.size:
        raise ValueError(f"{what} has rows of shape {values.shape[1:]}, {tuple(shape)} is stated.")
    return values.reshape(len(values), *shape)


STORAGES = {
    "hdf5": Storage(_hdf5_names, _hdf5, _hdf5_steps),
    "arrow": Storage(_arrow_names, functools.partial(_arrow, "arrow"), _arrow_steps),
    "parquet": Storage(_arrow_names, functools.partial(_arrow, "parquet"), _arrow_steps),
}
"""`data_format` of metadata.json -> how to read it."""
