"""Replay: a ring of whole environment steps per stream, sampled in chunks.

Chunks never cross an episode's end.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from exporl.data.columns import Column, Columns, values_at
from exporl.data.episodes import Episode
from exporl.data.step_checks import check_rewards, check_saved, check_step, check_steps, step_of
from exporl.files.mapped import Zeros
from exporl.types import Batch, Spec, Step


def rows_needed(spec: Spec, lengths: Iterable[int]) -> int:
    """Rows that hold episodes of so many steps.

    Each has one more observation, and the head needs a row.
    """
    return max(sum(length + 1 for length in lengths) + 1, spec.chunk_length + 2)


class Replay:
    """Whole steps, one ring per stream (environment or robot), every observation stored once.

    The observation after a step is the next row's; the observation after an episode's last step is
    a row of its own. A row can start a chunk once the chunk is complete: `chunk_length` steps, or
    fewer if the episode ended (by termination or time limit). So chunks cross neither episode ends
    nor the write head.

    Columns keep more per row. One with a `finish` is written when an episode ends: to the rows that
    the ring still holds of it, computed from the rewards of these rows; the rows of an open episode
    hold the column's `fill`.
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
        zeros: Zeros = np.zeros,
    ):
        """An empty buffer.

        Args:
            spec: shapes of observations and action chunks.
            capacity: rows per stream: steps plus one per episode. The oldest are overwritten.
            num_streams: independent writers; chunks never mix them.
            prior: marks sampled rows as prior data.
            bootstrap_timeouts: False stores time-outs as terminal, as the EXPO release does on
                robosuite.
            columns: what else is kept per row, by name.
            zeros: makes the arrays of observations, which may lie in files (`files.mapped`).

        Raises:
            ValueError: the capacity cannot hold one chunk, or a column cannot be kept.
        """
        least = spec.chunk_length + 2
        if capacity < least:
            raise ValueError(
                f"capacity must be at least chunk_length + 2 = {least}, got {capacity}."
            )
        self.spec, self.capacity, self.num_streams = spec, capacity, num_streams
        self.prior, self.bootstrap_timeouts = prior, bootstrap_timeouts
        rows = (num_streams, capacity)
        self._observation = {
            name: zeros((*rows, *shape), dtype) for name, shape, dtype in spec.observation
        }
        self.sampled = tuple(self._observation)
        """Observation entries that are read out; others (images that no network looks at) only stay
        stored."""
        self._action = np.zeros((*rows, spec.action_dim), np.float32)
        self._reward = np.zeros(rows, np.float32)
        self._terminated = np.zeros(rows, bool)
        self._truncated = np.zeros(rows, bool)
        self._success = np.zeros(rows, bool)
        self._is_step = np.zeros(rows, bool)
        self._can_start = np.zeros(rows, bool)
        outcome = (self._terminated, self._truncated, self._success)
        self._flags = (self._is_step, self._can_start, *outcome)
        self.columns = Columns(columns or {}, num_streams, capacity)
        self._head = np.zeros(num_streams, np.int64)
        self._size = np.zeros(num_streams, np.int64)
        self._run = np.zeros(num_streams, np.int64)
        self._succeeded = np.zeros(num_streams, bool)
        self.holder = np.zeros(rows, np.int32)
        """Which file holds a row since it was written (`data.sealing`); 0: none yet."""

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
        checked: bool = False,
    ) -> "Replay":
        """Prior data in one stream.

        Rewards are stored in the learning convention, observations through `transform` (if any).
        With `rows` (`rows_needed`) given, episodes are taken one at a time and none is kept: an
        iterator that gives them away is never held beside the replay. `checked` as in
        `add_episode`.

        Raises:
            ValueError: an episode does not fit the spec; names episode, step and field.
        """
        if rows is None:
            episodes = list(episodes)
            rows = rows_needed(spec, map(len, episodes))
        replay = cls(spec, rows, prior=True, bootstrap_timeouts=bootstrap_timeouts, columns=columns)
        for index, episode in enumerate(episodes):
            try:
                replay.add_episode(episode, reward, transform=transform, checked=checked)
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

    @property
    def used(self) -> int:
        """Rows per stream that have been written, in the stream that has most."""
        return int(self._size.max())

    def add_episode(
        self,
        episode: Episode,
        reward: Callable[[float], float],
        stream: int = 0,
        *,
        transform: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
        checked: bool = False,
    ) -> None:
        """Adds a recorded episode as adding its steps one by one would.

        One that did not terminate is truncated.

        Args:
            episode: as recorded.
            reward: turns recorded rewards into the learning convention.
            stream: where it goes; it continues that stream's open episode if there is one.
            transform: applied to all observations of the episode at once (normalisation).
            checked: the episode is known to fit the spec (`validate_episodes`), and `transform`
                keeps it so: only the rewards in the learning convention are checked.

        Raises:
            ValueError: what `add` refuses, with the number of the step, or arrays of different
                lengths; nothing is stored then.
        """
        observations = (
            episode.observations if transform is None else transform(episode.observations)
        )
        rewards = np.array([reward(float(paid)) for paid in episode.rewards], np.float64)
        steps = len(episode)
        if checked:
            check_rewards(rewards)
        else:
            check_steps(self.spec, observations, episode.actions, rewards, episode.successes)
        if self._run[stream] or not 0 < steps < self.capacity:
            for t in range(steps):
                self.add(step_of(episode, observations, rewards, t), stream)
            return
        rows = (self._head[stream] + np.arange(steps + 1)) % self.capacity
        taken = rows[:-1]
        self._clear(stream, rows)
        self.columns.clear(stream, taken, rows[1:])
        for name, values in self._observation.items():
            values[stream, rows] = observations[name]
        self._action[stream, taken] = episode.actions
        self._reward[stream, taken] = rewards
        self._is_step[stream, taken] = self._can_start[stream, taken] = True
        self._success[stream, taken] = episode.success
        self._terminated[stream, taken[-1]] = episode.terminated
        self._truncated[stream, taken[-1]] = not episode.terminated
        self._finish_columns(stream, taken)
        self._head[stream] = (rows[-1] + 1) % self.capacity
        self._size[stream] = min(max(self._size[stream], taken.max() + 2), self.capacity)

    def add(self, step: Step, stream: int = 0) -> None:
        """Appends one step to a stream, overwriting its oldest rows when full.

        Raises:
            ValueError: wrong shape, NaN or infinity, or an action outside [-1, 1]; nothing is
                stored then.
        """
        check_step(self.spec, step)
        row = int(self._head[stream])
        after = (row + 1) % self.capacity
        self._clear(stream, row)
        self._clear(stream, after)
        self.columns.clear(stream, row, after)
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
        self._finish_columns(stream, rows[::-1])
        self._run[stream], self._succeeded[stream] = 0, False
        self._head[stream] = (last + 2) % self.capacity

    def _clear(self, stream: int, row: int | np.ndarray) -> None:
        self.holder[stream, row] = 0
        for flags in self._flags:
            flags[stream, row] = False

    def _finish_columns(self, stream: int, rows: np.ndarray) -> None:
        """`rows` are the steps, in order, of an episode whose end is stored by now."""
        self.columns.finish(
            stream,
            rows,
            self._reward[stream, rows],
            terminated=bool(self._terminated[stream, rows[-1]]),
            success=bool(self._success[stream, rows[-1]]),
        )

    def sample(self, rng: np.random.Generator, batch_size: int, *, discount: float) -> Batch:
        """`batch_size` chunks, uniformly over the rows that can start one (with replacement).

        The draw depends only on `rng` and on the stored data. Rewards are summed with the discount
        over the executed steps; the batch's own discount is discount^steps, and 0 after a
        termination.

        Raises:
            ValueError: nothing can be sampled yet.
        """
        streams, starts = self._draw(rng, batch_size)
        h, first = self.spec.chunk_length, streams * self.capacity
        rows = first[:, None] + (starts[:, None] + np.arange(h)) % self.capacity  # of all streams
        ended = values_at(self._terminated, rows) | values_at(self._truncated, rows)
        steps = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, h)
        valid = np.arange(h) < steps[:, None]
        start, last = rows[:, 0], rows[np.arange(batch_size), steps - 1]
        after = first + (last - first + 1) % self.capacity
        over = values_at(self._terminated, last)
        if not self.bootstrap_timeouts:
            over = over | values_at(self._truncated, last)
        action, last_action = values_at(self._action, rows), values_at(self._action, last)
        powers = np.float64(discount) ** np.arange(h)
        reward = (values_at(self._reward, rows) * valid * powers).sum(axis=1)
        return Batch(
            observation=self._observed(start),
            action=np.where(valid[..., None], action, last_action[:, None]),
            reward=reward.astype(np.float32),
            discount=np.where(over, 0.0, np.float64(discount) ** steps).astype(np.float32),
            next_observation=self._observed(after),
            valid=valid.astype(np.float32),
            prior=np.full(batch_size, self.prior, np.float32),
            success=values_at(self._success, start).astype(np.float32),
            extra=self.columns.of_chunks(start, after),
        )

    def _observed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values_at(self._observation[name], rows) for name in self.sampled}

    def observation(self, streams: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The observations [b, ...] stored in some rows, as far as `sampled` names them."""
        return self._observed(streams * self.capacity + rows)

    def column(self, name: str) -> np.ndarray:
        """The values of a column [streams, capacity, *shape]; writing to it changes the replay."""
        return self.columns.values[name]

    def final_rows(self) -> np.ndarray:
        """Which rows [streams, used] change no more before they are overwritten, but for columns
        that others write: those of episodes that are over."""
        final = np.arange(self.used) < self._size[:, None]
        for stream in np.flatnonzero(self._run):
            open_rows = min(int(self._run[stream]) + 1, self.capacity)
            final[stream, (self._head[stream] - np.arange(open_rows)) % self.capacity] = False
        return final

    def next_rows(self) -> np.ndarray:
        """Whether a row holds the observation after some step: [streams, used]."""
        return np.roll(self._is_step[:, : self.used], 1, axis=1)

    def _draw(self, rng: np.random.Generator, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Uniform starts by rejection over the rows written so far: no index to keep or save."""
        if not self._can_start.any():
            raise ValueError(
                "replay holds no complete chunk yet. Collect more steps before sampling."
            )
        bounds = np.cumsum(self._size)
        streams, starts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        while len(starts) < batch_size:
            flat = rng.integers(bounds[-1], size=2 * batch_size)
            stream = np.searchsorted(bounds, flat, side="right")
            row = flat - (bounds - self._size)[stream]
            keep = self._can_start[stream, row]
            streams = np.concatenate([streams, stream[keep]])
            starts = np.concatenate([starts, row[keep]])
        return streams[:batch_size], starts[:batch_size]

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything stored: [streams, capacity, ...] per row, [streams] per stream."""
        arrays = {
            name.lstrip("_"): value
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray) and name != "holder"
        }
        arrays |= {f"observation/{name}": value for name, value in self._observation.items()}
        return arrays | {f"column/{name}": value for name, value in self.columns.values.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Everything stored, as arrays without the rows never written. Inverse of `load`.

        Columns are called "column/<name>".
        """
        return {
            name: value if value.ndim == 1 else value[:, : self.used]
            for name, value in self._arrays().items()
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores `state` into a buffer of the same shape with the same columns.

        Raises:
            ValueError: an array is missing, surplus or does not fit; nothing is changed then.
        """
        arrays = self._arrays()
        check_saved(state, arrays, self.capacity)
        if ((state["size"] < self.capacity) & (state["head"] < state["size"] - 1)).any():
            raise ValueError(
                f"saved replay is a full ring of {np.max(state['size'])} rows, the capacity is "
                f"{self.capacity}. Once rows were overwritten the capacity must stay as it was."
            )
        self.holder[...] = 0
        fills = {f"column/{name}": fill for name, fill in self.columns.fills.items()}
        untouched = not self.used
        for name, array in arrays.items():
            if not untouched:  # rows never written take no memory, and no writing to a disk
                array[...] = fills.get(name, 0)
            array[(slice(None), slice(state[name].shape[1])) if array.ndim > 1 else ...] = state[
                name
            ]

    def column_state(self) -> dict[str, np.ndarray]:
        """What adding the same data again would not bring back: the columns that others write.

        Part of `state`. Inverse of `load_columns`.
        """
        state = self.state()
        return {f"column/{name}": state[f"column/{name}"] for name in self.columns.owned}

    def load_columns(self, state: Mapping[str, Any]) -> None:
        """Restores `column_state` into a buffer that holds the same data.

        Raises:
            ValueError: a column is missing, surplus or does not fit; nothing is changed then.
        """
        arrays = {f"column/{name}": self.columns.values[name] for name in self.columns.owned}
        check_saved(state, arrays, self.capacity)
        for name, array in arrays.items():
            array[:, : state[name].shape[1]] = state[name]
