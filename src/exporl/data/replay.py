"""Replay: a ring of whole environment steps per stream, sampled in chunks that never cross an episode's end."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from exporl.data.columns import Column
from exporl.data.episodes import Episode
from exporl.data.step_checks import check_step, check_steps
from exporl.types import Batch, Spec, Step


def rows_needed(spec: Spec, lengths: Iterable[int]) -> int:
    """Rows that hold episodes of so many steps: each has one more observation, and the head needs a row."""
    return max(sum(length + 1 for length in lengths) + 1, spec.chunk_length + 2)


class Replay:
    """Whole steps, one ring per stream (environment or robot), with every observation stored once.

    The observation after a step is the next row's; the observation after an episode's last step is a row of its own.
    A row can start a chunk once the chunk is complete: `chunk_length` steps, or fewer if the episode ended (by
    termination or time limit). So chunks cross neither episode ends nor the write head.
    """

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        *,
        num_streams: int = 1,
        prior: bool = False,
        bootstrap_timeouts: bool = True,
        columns: Mapping[str, Column] | None = None,
    ):
        """An empty buffer.

        Args:
            spec: shapes of observations and action chunks.
            capacity: rows per stream: steps plus one per episode. The oldest are overwritten.
            num_streams: independent writers; chunks never mix them.
            prior: marks sampled rows as prior data.
            bootstrap_timeouts: False stores time-outs as terminal, as the EXPO release does on robosuite.
            columns: name -> what else is kept per row.

        Raises:
            ValueError: the capacity cannot hold one chunk.
        """
        if capacity < spec.chunk_length + 2:
            raise ValueError(f"capacity must be at least chunk_length + 2 = {spec.chunk_length + 2}, got {capacity}.")
        self.spec, self.capacity, self.num_streams = spec, capacity, num_streams
        self.prior, self.bootstrap_timeouts = prior, bootstrap_timeouts
        rows = (num_streams, capacity)
        self._observation = {name: np.zeros((*rows, *shape), dtype) for name, shape, dtype in spec.observation}
        self.sampled = tuple(self._observation)
        """Observation entries that are read out; the others (images that no network looks at) only stay stored."""
        self._action = np.zeros((*rows, spec.action_dim), np.float32)
        self._reward = np.zeros(rows, np.float32)
        self._terminated = np.zeros(rows, bool)
        self._truncated = np.zeros(rows, bool)
        self._success = np.zeros(rows, bool)
        self._is_step = np.zeros(rows, bool)
        self._can_start = np.zeros(rows, bool)
        self.columns = dict(columns or {})
        self._columns = {
            name: np.full((*rows, *column.shape), column.fill, column.dtype)
            for name, column in self.columns.items()
        }
        self._head = np.zeros(num_streams, np.int64)
        self._size = np.zeros(num_streams, np.int64)
        self._run = np.zeros(num_streams, np.int64)
        self._succeeded = np.zeros(num_streams, bool)

    @classmethod
    def from_episodes(
        cls,
        spec: Spec,
        episodes: Iterable[Episode],
        reward: Callable[[float], float],
        *,
        bootstrap_timeouts: bool = True,
        columns: Mapping[str, Column] | None = None,
        transform: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
        rows: int | None = None,
    ) -> "Replay":
        """Prior data in one stream: rewards in the learning convention, observations through `transform` (if any).

        With `rows` (`rows_needed`) given, episodes are taken one at a time and none is kept: an iterator
        that gives them away is never held beside the replay.

        Raises:
            ValueError: an episode does not fit the spec; names episode, step and field.
        """
        if rows is None:
            episodes = list(episodes)
            rows = rows_needed(spec, map(len, episodes))
        replay = cls(
            spec, rows, prior=True, bootstrap_timeouts=bootstrap_timeouts, columns=columns
        )
        for index, episode in enumerate(episodes):
            try:
                replay.add_episode(episode, reward, transform=transform)
            except ValueError as error:
                raise ValueError(f"episode {index}, {error}") from error
        return replay

    def __len__(self) -> int:
        """Steps stored."""
        return int(self._is_step.sum())

    @property
    def num_starts(self) -> int:
        """Rows from which a chunk can be sampled."""
        return int(self._can_start.sum())

    def add_episode(
        self,
        episode: Episode,
        reward: Callable[[float], float],
        stream: int = 0,
        *,
        transform: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    ) -> None:
        """Adds a recorded episode as adding its steps one by one would; one that did not terminate is truncated.

        Args:
            episode: as recorded.
            reward: turns recorded rewards into the learning convention.
            stream: where it goes; it continues that stream's open episode if there is one.
            transform: applied to all observations of the episode at once (normalisation).

        Raises:
            ValueError: what `add` refuses, with the number of the step, or arrays of different lengths; nothing is
                stored then.
        """
        observations = episode.observations if transform is None else transform(episode.observations)
        rewards = np.array([reward(float(paid)) for paid in episode.rewards], np.float64)
        steps = len(episode)
        check_steps(self.spec, observations, episode.actions, rewards, episode.successes)
        if self._run[stream] or not 0 < steps < self.capacity:
            for t in range(steps):
                self.add(self._step(episode, observations, rewards, t), stream)
            return
        rows = (self._head[stream] + np.arange(steps + 1)) % self.capacity
        taken = rows[:-1]
        self._clear(stream, rows)
        self._clear_columns(stream, taken, rows[1:])
        for name, values in self._observation.items():
            values[stream, rows] = observations[name]
        self._action[stream, taken] = episode.actions
        self._reward[stream, taken] = rewards
        self._is_step[stream, taken] = self._can_start[stream, taken] = True
        self._success[stream, taken] = episode.success
        self._terminated[stream, taken[-1]] = episode.terminated
        self._truncated[stream, taken[-1]] = not episode.terminated
        self._finish_columns(stream, taken, episode.success)
        self._head[stream] = (rows[-1] + 1) % self.capacity
        self._size[stream] = min(max(self._size[stream], taken.max() + 2), self.capacity)

    def _step(self, episode: Episode, observations: dict[str, np.ndarray], rewards: np.ndarray, t: int) -> Step:
        last = t == len(episode) - 1
        at = lambda i: {name: values[i] for name, values in observations.items()}  # noqa: E731
        return Step(
            at(t), episode.actions[t], float(rewards[t]), last and episode.terminated, last and not episode.terminated,
            at(t + 1), bool(episode.successes[t]),
        )  # fmt: skip

    def add(self, step: Step, stream: int = 0) -> None:
        """Appends one step to a stream, overwriting its oldest rows when full.

        Raises:
            ValueError: wrong shape, NaN or infinity, or an action outside [-1, 1]; nothing is stored then.
        """
        check_step(self.spec, step)
        row = int(self._head[stream])
        after = (row + 1) % self.capacity
        self._clear(stream, row)
        self._clear(stream, after)
        self._clear_columns(stream, row, after)
        for name, values in self._observation.items():
            values[stream, row] = step.observation[name]
            values[stream, after] = step.next_observation[name]
        self._action[stream, row] = step.action
        self._reward[stream, row] = step.reward
        self._terminated[stream, row] = step.terminated
        self._truncated[stream, row] = step.truncated
        self._is_step[stream, row] = True
        self._run[stream] += 1
        self._succeeded[stream] |= step.success
        if self._run[stream] >= self.spec.chunk_length:
            self._can_start[stream, (row - self.spec.chunk_length + 1) % self.capacity] = True
        self._head[stream] = after
        if step.terminated or step.truncated:
            self._end_episode(stream, row)
        self._size[stream] = min(max(self._size[stream], row + 2), self.capacity)

    def cut(self, stream: int = 0) -> None:
        """Ends the stream's open episode as truncated: what follows belongs to another episode."""
        if self._run[stream]:
            last = int(self._head[stream] - 1) % self.capacity
            self._truncated[stream, last] = True
            self._end_episode(stream, last)

    def _end_episode(self, stream: int, last: int) -> None:
        rows = (last - np.arange(min(self._run[stream], self.capacity - 1))) % self.capacity
        rows = rows[self._is_step[stream, rows]]
        self._can_start[stream, rows[: self.spec.chunk_length]] = True
        self._success[stream, rows] = self._succeeded[stream]
        self._finish_columns(stream, rows[::-1], bool(self._succeeded[stream]))
        self._run[stream], self._succeeded[stream] = 0, False
        self._head[stream] = (last + 2) % self.capacity

    def _clear(self, stream: int, row: int | np.ndarray) -> None:
        for flags in (self._is_step, self._can_start, self._success, self._terminated, self._truncated):
            flags[stream, row] = False

    def _clear_columns(
        self, stream: int, row: int | np.ndarray, after: int | np.ndarray
    ) -> None:
        """New steps were written to some rows, and the observations after them to others."""
        for name, column in self.columns.items():
            self._columns[name][stream, after] = column.fill
            if column.at == "row":
                self._columns[name][stream, row] = column.fill

    def _finish_columns(self, stream: int, rows: np.ndarray, success: bool) -> None:
        """An episode has ended; `rows` are its steps in order, as far as the ring still holds them."""
        for name, column in self.columns.items():
            if column.finish is not None:
                rewards = self._reward[stream, rows].astype(np.float64)
                terminated = bool(self._terminated[stream, rows[-1]])
                self._columns[name][stream, rows] = column.finish(rewards, terminated, success)

    def sample(self, rng: np.random.Generator, batch_size: int, *, discount: float) -> Batch:
        """`batch_size` chunks, uniformly over the rows that can start one (with replacement).

        The draw depends only on `rng` and on the stored data. Rewards are summed with the discount over the executed
        steps; the batch's own discount is discount^steps, and 0 after a termination.

        Raises:
            ValueError: nothing can be sampled yet.
        """
        streams, starts = self._draw(rng, batch_size)
        h, first = self.spec.chunk_length, streams * self.capacity
        rows = first[:, None] + (starts[:, None] + np.arange(h)) % self.capacity  # rows of all streams
        ended = _at(self._terminated, rows) | _at(self._truncated, rows)
        steps = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, h)
        valid = np.arange(h) < steps[:, None]
        start, last = rows[:, 0], rows[np.arange(batch_size), steps - 1]
        after = first + (last - first + 1) % self.capacity
        over = _at(self._terminated, last)
        over = over if self.bootstrap_timeouts else over | _at(self._truncated, last)
        powers = np.float64(discount) ** np.arange(h)
        return Batch(
            observation={name: _at(self._observation[name], start) for name in self.sampled},
            action=np.where(valid[..., None], _at(self._action, rows), _at(self._action, last)[:, None]),
            reward=(_at(self._reward, rows) * valid * powers).sum(axis=1).astype(np.float32),
            discount=np.where(over, 0.0, np.float64(discount) ** steps).astype(np.float32),
            next_observation={name: _at(self._observation[name], after) for name in self.sampled},
            valid=valid.astype(np.float32),
            prior=np.full(batch_size, self.prior, np.float32),
            success=_at(self._success, start).astype(np.float32),
            extra={
                name: _at(self._columns[name], start if column.at == "row" else after)
                for name, column in self.columns.items()
                if column.sampled
            },
        )

    def column(self, name: str) -> np.ndarray:
        """The values of a column [streams, capacity, *shape]; writing to it changes what is stored."""
        return self._columns[name]

    def next_rows(self) -> np.ndarray:
        """[streams, rows written so far] bool: whether a row holds the observation after some step."""
        return np.roll(self._is_step[:, : int(self._size.max())], 1, axis=1)

    def observation(self, streams: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The observations [b, ...] stored in some rows, as far as `sampled` names them."""
        return {name: self._observation[name][streams, rows] for name in self.sampled}

    def _draw(self, rng: np.random.Generator, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Uniform starts by rejection over the rows written so far: no index to keep, nothing to save."""
        if not self._can_start.any():
            raise ValueError("replay holds no complete chunk yet. Collect more steps before sampling.")
        bounds = np.cumsum(self._size)
        streams, starts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        while len(starts) < batch_size:
            flat = rng.integers(bounds[-1], size=2 * batch_size)
            stream = np.searchsorted(bounds, flat, side="right")
            row = flat - (bounds - self._size)[stream]
            keep = self._can_start[stream, row]
            streams, starts = np.concatenate([streams, stream[keep]]), np.concatenate([starts, row[keep]])
        return streams[:batch_size], starts[:batch_size]

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name.lstrip("_"): value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        arrays |= {f"observation/{name}": value for name, value in self._observation.items()}
        return arrays | {f"column/{name}": value for name, value in self._columns.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Everything stored, as arrays without the rows never written. Inverse of `load`."""
        used = int(self._size.max())
        return {name: value if value.ndim == 1 else value[:, :used] for name, value in self._arrays().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores `state` into a buffer of the same shape.

        Raises:
            ValueError: an array is missing or does not fit; nothing is changed then.
        """
        arrays = self._arrays()
        for name in arrays:
            if name not in state:
                raise ValueError(f"saved replay lacks {name!r}. The checkpoint was written by something else.")
        surplus = sorted(set(state) - set(arrays))
        if surplus:
            raise ValueError(
                f"saved replay has {surplus[0]!r}, which this buffer does not keep. The checkpoint was written by "
                "something else."
            )
        for name, array in arrays.items():
            saved, fits = state[name], array.shape if array.ndim == 1 else (array.shape[0], None, *array.shape[2:])
            if len(saved.shape) != len(fits) or any(f not in (None, s) for f, s in zip(fits, saved.shape, strict=True)):
                raise ValueError(f"saved replay {name!r} has shape {saved.shape}, this buffer needs {fits}.")
            if array.ndim > 1 and saved.shape[1] > self.capacity:
                raise ValueError(f"saved replay holds {saved.shape[1]} rows, the capacity is {self.capacity}.")
        if ((state["size"] < self.capacity) & (state["head"] < state["size"] - 1)).any():
            raise ValueError(
                f"saved replay is a full ring of {np.max(state['size'])} rows, the capacity is {self.capacity}. "
                "Once rows were overwritten the capacity must stay as it was."
            )
        for name, array in arrays.items():
            array[...] = self.columns[column].fill if (column := name.removeprefix("column/")) != name else 0
            array[(slice(None), slice(state[name].shape[1])) if array.ndim > 1 else ...] = state[name]


def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of an array [streams, capacity, ...], counted through all streams: one index is cheaper than two."""
    return values.reshape(-1, *values.shape[2:]).take(rows, axis=0)
