"""What a file of episodes contains, in one pass that holds one episode at a time: statistics,
faults, duplicates."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from exporl.data.episodes import LOST_SUCCESS, Episode, Range, adapted, faults, fingerprint
from exporl.data.formats.record import Record
from exporl.spec import Spec

SATURATED = 0.999
"""An action dimension counts as saturated from this magnitude on."""
SUSPICIOUS = 3
"""So many ends of the same kind are no coincidence."""
SAMPLE_ROWS = 100_000
"""Action rows kept for histograms; of longer data every second, fourth, ... row."""


class Moments:
    """Count, minimum, maximum, mean and standard deviation per dimension, of finite values, block
    by block.

    Blocks are merged with the formula of Chan, Golub and LeVeque (1979), so a large mean costs no
    precision. Entries with more than one axis (images) are summarised as one dimension.
    """

    def __init__(self, first: np.ndarray):
        self.shape, self.dtype = first.shape[1:], first.dtype
        self.dims = int(np.prod(self.shape)) if len(self.shape) <= 1 else 1
        self.count = np.zeros(self.dims, np.int64)
        self.not_finite = 0
        self.mean, self._m2 = np.zeros(self.dims), np.zeros(self.dims)
        self.minimum, self.maximum = np.full(self.dims, np.inf), np.full(self.dims, -np.inf)

    def add(self, block: np.ndarray) -> None:
        """Takes in [rows, ...] more values."""
        values = block.reshape(-1, self.dims).astype(np.float64)
        fine = np.isfinite(values)
        self.not_finite += int((~fine).sum())
        count = fine.sum(axis=0)
        total = self.count + count
        mean = np.where(fine, values, 0).sum(axis=0) / np.maximum(count, 1)
        gap = mean - self.mean
        self._m2 += np.where(fine, values - mean, 0).__pow__(2).sum(axis=0)
        self._m2 += gap**2 * self.count * count / np.maximum(total, 1)
        self.mean += gap * count / np.maximum(total, 1)
        self.minimum = np.minimum(
            self.minimum, np.where(fine, values, np.inf).min(axis=0, initial=np.inf)
        )
        self.maximum = np.maximum(
            self.maximum, np.where(fine, values, -np.inf).max(axis=0, initial=-np.inf)
        )
        self.count = total

    @property
    def std(self) -> np.ndarray:
        """Standard deviation per dimension."""
        return np.sqrt(self._m2 / np.maximum(self.count, 1))

    @property
    def constant(self) -> np.ndarray:
        """Which dimensions never change."""
        return self.minimum == self.maximum


class Sample:
    """Evenly spaced rows, at most `SAMPLE_ROWS`: what histograms are drawn from."""

    def __init__(self):
        self._parts: list[np.ndarray] = []
        self._stride, self._seen = 1, 0

    def add(self, rows: np.ndarray) -> None:
        """Takes in [rows, a] more."""
        self._parts.append(rows[-self._seen % self._stride :: self._stride])
        self._seen += len(rows)
        if sum(map(len, self._parts)) > SAMPLE_ROWS:
            self._parts, self._stride = [self.rows()[::2]], 2 * self._stride

    def rows(self) -> np.ndarray:
        """[rows, a] of what was kept."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 0), np.float32)


@dataclasses.dataclass
class Survey:
    """Everything `survey` found; lists have one entry per episode in the statistics, in file
    order."""

    names: list[str] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    returns: list[float] = dataclasses.field(default_factory=list)
    successes: list[bool] = dataclasses.field(default_factory=list)
    terminated: list[bool] = dataclasses.field(default_factory=list)
    records: int = 0
    """Episodes seen, damaged ones included."""
    faults: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(episode, sentence), all of them; the episode is "file" where the file as a whole is
    damaged."""
    duplicates: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(episode, the earlier one whose every number it repeats)."""
    actions: Moments | None = None
    saturated: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    """Per action dimension, steps at or beyond `SATURATED`."""
    outside: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    """Per action dimension, steps outside [-1, 1]."""
    sample: Sample = dataclasses.field(default_factory=Sample)
    observations: dict[str, Moments] = dataclasses.field(default_factory=dict)
    infos: dict[str, str] = dataclasses.field(default_factory=dict)
    """Further arrays of the first episode: name -> type and shape."""
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(episode, sentence): what is odd without being wrong; "file" for the file as a whole."""
    rewarded: bool = False
    """Whether any reward differs from 0."""
    lost: int = 0
    """Episodes whose last step was left out and with it a success or a reward."""
    asked: int = 0
    """Episodes of which it is not known what counts as success."""
    unit_actions: int = 0
    """Episodes whose actions are known to be in [-1, 1] already."""
    whole: bool = True
    """Whether all actions so far are whole numbers."""

    @property
    def damaged(self) -> list[str]:
        """Names of the episodes with faults, once each."""
        return list(dict.fromkeys(name for name, _ in self.faults))

    def add(self, name: str, episode: Episode) -> None:
        """Takes one episode into the statistics."""
        self.names.append(name)
        self.lengths.append(len(episode))
        self.returns.append(float(np.sum(episode.rewards, dtype=np.float64)))
        self.successes.append(episode.success)
        self.terminated.append(episode.terminated)
        asked = (episode.question,) if episode.question else ()
        self.notes += [(name, note) for note in (*episode.notes, *asked)]
        self.rewarded |= bool((episode.rewards != 0).any())
        self.lost += any(note.startswith(LOST_SUCCESS) for note in episode.notes)
        self.asked += bool(episode.question)
        self.unit_actions += episode.unit_actions
        with np.errstate(invalid="ignore"):  # infinity has no remainder
            self.whole &= bool((episode.actions % 1 == 0).all())
        if self.actions is None:
            self.actions = Moments(episode.actions)
            self.saturated, self.outside = (
                np.zeros(self.actions.dims, int),
                np.zeros(self.actions.dims, int),
            )
            self.infos = {
                key: f"{value.dtype} {list(value.shape)}" for key, value in episode.infos.items()
            }
        self.actions.add(episode.actions)
        size = np.abs(episode.actions)
        self.saturated += (size >= SATURATED).sum(axis=0)
        self.outside += (size > 1).sum(axis=0)
        self.sample.add(episode.actions)
        for key, value in episode.observations.items():
            if key not in self.observations:
                self.observations[key] = Moments(value)
            self.observations[key].add(value)


def survey(
    records: Iterable[Record],
    *,
    spec: Spec | None = None,
    paid: Range = None,
    adapt: Callable[[Episode], Episode] | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    max_steps: int | None = None,
    on_record: Callable[[], None] = lambda: None,
) -> Survey:
    """Reads every record and looks at it from all sides.

    Args:
        records: of a file, see `read_records`.
        spec: a task's shapes, to check against them.
        paid: what its environment pays, see `Task.reward_range`.
        adapt: turns an episode as recorded into the task's units, see `Task.adapt`.
        limit: how many records at most.
        skip_bad: leave episodes with faults out of the statistics; by default only those that
            cannot be read, or whose shapes differ from the first one's, are.
        max_steps: the task's time limit, to tell what ends there.
        on_record: called after every record.
    """
    result, seen, shapes = Survey(), {}, None
    for record in _until_damage(records, limit, result):
        result.records += 1
        on_record()
        try:
            episode = adapted(record.read(), adapt)
        except ValueError as error:
            result.faults.append((record.name, str(error)))
            continue
        found = list(faults(episode, spec, paid))
        now = _shapes(episode)
        shapes = shapes or now
        different = [
            f"{what} is {now.get(what, 'missing')}, in the first episode it is "
            f"{shapes.get(what, 'missing')}."
            for what in {**shapes, **now}
            if now.get(what) != shapes.get(what)
        ]
        result.faults += [(record.name, sentence) for sentence in [*found, *different]]
        if _lengths_fit(episode) and not different and not (found and skip_bad):
            result.add(record.name, episode)
            digest = fingerprint([episode])
            if digest in seen:
                result.duplicates.append((record.name, seen[digest]))
            seen.setdefault(digest, record.name)
    result.notes += [("file", note) for note in _oddities(result, max_steps)]
    return result


def _oddities(found: Survey, max_steps: int | None) -> Iterator[str]:
    """Sentences about the file as a whole."""
    ends = [
        length
        for length, terminated, solved in zip(
            found.lengths, found.terminated, found.successes, strict=True
        )
        if terminated and not solved
    ]
    limit = max_steps or (max(ends) if ends and max(ends) == max(found.lengths) else None)
    late = sum(length == limit for length in ends)
    if late and (max_steps is not None or late >= SUSPICIOUS):
        what = "the task's time limit" if max_steps is not None else "the longest. A time limit"
        yield (
            f"{late} of {len(found.names)} episodes end as terminated after {limit} steps, without "
            f"success: {what}{'' if max_steps is not None else '?'}. A cut-off there is a timeout, "
            "not a true end: values go on beyond it."
        )
    actions = found.actions
    if actions is None:
        return
    if found.whole and actions.dims == 1 and actions.minimum[0] == 0 and actions.maximum[0] == 1:
        yield "every action is 0 or 1: discrete actions cannot be learnt from."
    outside = int((found.outside > 0).sum())
    if outside and not found.unit_actions:
        yield (
            f"actions reach from {actions.minimum.min():g} to {actions.maximum.max():g}, beyond "
            f"[-1, 1] in {outside} of {actions.dims} dimensions: they look like the environment's "
            "own units. --task T scales them by its bounds, as training does; clipping would "
            "destroy them."
        )


def _until_damage(records: Iterable[Record], limit: int | None, result: Survey) -> Iterator[Record]:
    """The records up to where the file turns out to be damaged as a whole."""
    iterator = iter(records)
    while limit is None or result.records < limit:
        try:
            record = next(iterator)
        except StopIteration:
            return
        except ValueError as error:
            result.faults.append(("file", str(error)))
            return
        yield record


def _shapes(episode: Episode) -> dict[str, str]:
    """Type and shape of a row per array."""
    arrays = {f"observation {name!r}": value for name, value in episode.observations.items()}
    return {
        what: f"{v.dtype} {list(v.shape[1:])}"
        for what, v in {**arrays, "actions": episode.actions}.items()
    }


def _lengths_fit(episode: Episode) -> bool:
    if not len(episode) or episode.actions.ndim != 2:
        return False
    if not all(array.size for array in (episode.actions, *episode.observations.values())):
        return False
    lengths = {len(value) - 1 for value in episode.observations.values()}
    return {len(episode), *lengths, len(episode.rewards), len(episode.successes)} == {len(episode)}
