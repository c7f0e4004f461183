"""The training loop: imitation, then reinforcement learning online. It names no algorithm and no
task."""

import contextlib
import functools
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from exporl.acting.rollout import Actors
from exporl.data.episodes import fingerprint
from exporl.data.mixture import Mixture, pack, unpack
from exporl.data.proposals import proposal_age
from exporl.data.sealing import Sealing
from exporl.envs.task import Task
from exporl.external.base import PolicyFailed
from exporl.files import checkpoint
from exporl.files.atomic import append_line, cut_back
from exporl.files.beside import LINES, remember_lines, remember_objects
from exporl.files.run_files import CHECKPOINTS, EVAL, METRICS
from exporl.parallel.background import BackgroundLearning
from exporl.run.actors import MakeActors, actors_here
from exporl.run.build import Share, build, replays
from exporl.run.callbacks import Callback, Callbacks, Notes
from exporl.run.config import RunConfig, to_json
from exporl.run.divergence import finite, value_watch
from exporl.run.endings import saving_where_others_fail
from exporl.run.learning import InStep, Learning
from exporl.run.metrics import MetricsWriter, delays, guard_fields, recent_episodes, time_fields
from exporl.run.pace import expected_seconds
from exporl.run.phases import (
    PRETRAIN_SCAN,
    acting_mode,
    check_phases,
    crossed,
    evaluation_due,
    online_updates,
    programs,
    update_calls_due,
)
from exporl.run.plan import never_happens, plan
from exporl.run.progress import Progress
from exporl.run.saved import find_resumable
from exporl.run.session import Evaluator
from exporl.run.stopping import Interrupted
from exporl.run.stopwatch import Speed, Stopwatch
from exporl.types import Metrics, Phase


class Trainer:
    """A run in progress; every random draw follows from (seed, counter).

    As a context it closes the environments in the end.
    """

    def __init__(
        self,
        config: RunConfig[Any],
        run_dir: Path,
        progress: Progress,
        resume: bool,
        stop: threading.Event | None = None,
        share: Share = None,
        task: Task | None = None,
        callbacks: Sequence[Callback] = (),
        base: Any = None,
        actors: MakeActors | None = None,
    ):
        self.clock = Stopwatch()
        self.config, self.run_dir, self.progress = config, run_dir, progress
        self.stop = stop or threading.Event()
        """Once set, the run stops at the next step boundary, after a checkpoint."""
        saved = find_resumable(config, run_dir, progress.say) if resume else None
        data, ahead, say = saved and saved.record["data"], programs(config.train), progress.say
        parts = build(
            config, run_dir, say, task=task, share=share, ahead=ahead, data=data, base=base
        )
        check_phases(config, parts.algorithm, has_data=bool(parts.episodes))
        first = plan(config, parts.algorithm, expected_seconds(config))
        for sentence in (first, *never_happens(config)):
            progress.say(sentence)
        self.parts, self.learner = parts, parts.learner
        watching = [Notes(progress, config.reward), value_watch(config, parts.spec, progress.say)]
        self.callbacks = Callbacks([*watching, *callbacks])
        self.data, self.beside = fingerprint(parts.episodes), remember_objects(run_dir)
        self.prior, self.online_replay = replays(parts, progress.say)
        self.sealing = Sealing(self.online_replay, run_dir / CHECKPOINTS)
        ratio, rows = config.data.prior_ratio, config.train.batch_size
        self.mixture = Mixture.of_both(self.prior, self.online_replay, ratio, rows)
        self.metrics, self.speed = MetricsWriter(run_dir / METRICS), Speed(self.clock)
        self.offline_steps = self.critic_steps = 0
        self.last_eval = -1
        self.first_update_s: float | None = None
        minibatches = config.train.utd_ratio * config.train.update_every
        self.in_step = self.learning_from(self.mixture, minibatches, "online")
        self.learning: Learning = self.in_step
        self.evaluator = Evaluator(parts)
        self.actors: Actors = (actors or actors_here)(parts, self._cut)
        if resume:
            try:
                self._restore(saved)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> "Trainer":
        """Nothing to begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Closes the environments. What that raises does not hide why the run ends."""
        with contextlib.suppress(*([] if kind is None else [Exception])):
            self.close()

    def close(self) -> None:
        """Closes the environments of acting and of evaluation."""
        with contextlib.ExitStack() as closing:
            closing.callback(self.parts.watch.close)
            closing.callback(self.evaluator.close)
            closing.callback(self.actors.close)

    def learning_from(self, source: Mixture, num_minibatches: int, phase: Phase) -> InStep:
        """Update calls of one phase."""
        made = self._count_update
        return InStep(self.learner, source, self.config, phase, num_minibatches, made)

    def _count_update(self, metrics: Metrics) -> None:
        self.metrics.add(metrics)
        if self.first_update_s is None:
            jax.block_until_ready(metrics)
            self.first_update_s = self.clock.seconds

    def _cut(self, stream: int) -> None:
        """Ends the open episode of a stream as truncated."""
        with self.learning.lock:
            self.online_replay.cut(stream)

    # The phases.

    def pretrain(self) -> None:
        """Imitation on prior data: `offline_steps` steps of the base policy."""
        total = self.config.train.offline_steps
        if self.offline_steps >= total:
            return
        assert self.prior is not None
        source = Mixture([(self.prior, 1.0)])
        self.progress.phase("imitation", total, self.offline_steps)
        while self.offline_steps < total:
            steps = min(PRETRAIN_SCAN, total - self.offline_steps)
            self.learning_from(source, steps, "pretrain").owe(1)
            before, self.offline_steps = self.offline_steps, self.offline_steps + steps
            final = self.offline_steps == total
            if crossed(before, self.offline_steps, self.config.log.every) or final:
                self._log(phase="pretrain", offline_steps=self.offline_steps, env_steps=0)
            self.progress.advance(steps, "")
            self._boundary(before, self.offline_steps, final)

    def pretrain_critic(self) -> None:
        """Critic (and edit policy) on prior data alone, backed up with the on-the-fly policy."""
        train = self.config.train
        if self.critic_steps >= train.critic_pretrain_steps:
            return
        assert self.prior is not None
        steps = train.utd_ratio * train.update_every
        learning = self.learning_from(Mixture([(self.prior, 1.0)]), steps, "critic_pretrain")
        self.progress.phase("critic pretraining", train.critic_pretrain_steps, self.critic_steps)
        while self.critic_steps < train.critic_pretrain_steps:
            with saving_where_others_fail(self.save):
                learning.owe(1)
            before, self.critic_steps = self.critic_steps, self.critic_steps + steps
            final = self.critic_steps >= train.critic_pretrain_steps
            if crossed(before, self.critic_steps, self.config.log.every) or final:
                self._log(phase="critic_pretrain", critic_steps=self.critic_steps, env_steps=0)
            self.progress.advance(steps, "")
            self._boundary(before, self.critic_steps, final)

    def online(self) -> None:
        """Acting and learning: one step of every environment, the updates that it makes due, then
        log, evaluate, save where due."""
        total = self.config.train.online_steps
        self.progress.phase(self.config.algorithm, total, self.actors.env_steps)
        self.speed.start(self.actors.env_steps)
        saving = saving_where_others_fail(self._save_after_failure)
        with self._online_learning() as self.learning, saving:
            self._evaluate_if_due()
            while self.actors.env_steps < total:
                before = self.actors.env_steps
                self._act()
                self.learning.owe(self._calls_due(before))
                self._keep_books(before)

    def _online_learning(self) -> Learning:
        if not self.config.train.asynchronous:
            return self.in_step
        return BackgroundLearning(functools.partial(self.in_step.owe, 1), self.learner.acting)

    def _act(self) -> None:
        """One step of every environment, into the replay."""
        mode = acting_mode(self.config.train, self.actors.env_steps)
        steps = self.actors.step(self.learning.acting(), mode)
        with self.learning.lock:
            for stream, step in steps:
                self.online_replay.add(step, stream)
        self.callbacks.on_step(self.actors.env_steps, steps)

    def _calls_due(self, before: int) -> int:
        """The update calls due since `before` environment steps; they are left out while there is
        nothing to sample."""
        if not self.mixture.ready:
            return 0
        return update_calls_due(self.config.train, before, self.actors.env_steps)

    # The books.

    def _keep_books(self, before: int) -> None:
        """Progress, metrics, evaluation and checkpoint, where due since `before` environment
        steps."""
        steps = self.actors.env_steps
        self.progress.advance(steps - before, "")
        final = steps >= self.config.train.online_steps
        if crossed(before, steps, self.config.log.every) or final:
            self.learning.settle()
            self._log(**self._online_fields())
        self._evaluate_if_due()
        self._boundary(before, steps, final)

    @property
    def online_updates(self) -> int:
        """Minibatches learnt from since acting began."""
        calls, train = self.learner.updates, self.config.train
        return online_updates(train, calls, self.offline_steps, self.critic_steps)

    def _log(self, **fields: Any) -> None:
        self.callbacks.on_log_line(self.metrics.flush(**fields))

    def _online_fields(self) -> dict[str, Any]:
        """What a line of metrics says beside what updates report."""
        actors = self.actors
        fields: dict[str, Any] = {"phase": "online", "env_steps": actors.env_steps}
        fields |= {"updates": self.online_updates, **recent_episodes(actors.outcomes)}
        fields["mode"] = acting_mode(self.config.train, actors.env_steps - 1)
        if actors.guard is not None:
            fields |= guard_fields(actors.guard, actors.outcomes) | {"deployed": actors.deployed}
        kept = self.parts.algorithm.needs.proposals
        age = proposal_age(self.online_replay, self.learner.updates) if kept else math.nan
        fields |= actors.metrics() | delays(self.learning.staleness(), age)
        speed = self.speed.per_second(actors.env_steps)
        return fields | time_fields(self.clock.seconds, env_steps_per_s=speed)

    def _evaluate_if_due(self) -> None:
        steps, actors = self.actors.env_steps, self.actors
        if not evaluation_due(self.config, self.last_eval, steps):
            return
        self.learning.settle()
        record: dict[str, Any] = {"env_steps": steps, "updates": self.online_updates}
        guarded = actors.guard is not None
        record |= {"deployed": actors.deployed} if guarded else {}
        with self.clock.paused():
            began = time.perf_counter()
            record |= self.evaluator.during_training(actors.deployed, guarded=guarded)
            took = time.perf_counter() - began
        record |= time_fields(self.clock.seconds, eval_s=took) | {"phase": "online"}
        append_line(self.run_dir / EVAL, record)
        self.last_eval = steps
        self.callbacks.on_evaluation(record)

    def _boundary(self, before: int, after: int, final: bool) -> None:
        stopping = self.stop.is_set() and not final
        if final or stopping or crossed(before, after, self.config.log.save_every):
            self.save()
        if self.stop.is_set():
            raise Interrupted(
                f"stopped after {self.actors.env_steps} environment steps; everything is saved"
            )

    def save(self) -> None:
        """Writes a checkpoint of everything: learner, replay, environments, counters. What is not
        finite raises FloatingPointError and never replaces the last one."""
        self.learning.settle()
        self._write_checkpoint()

    def _save_after_failure(self) -> None:
        """`save`, also where learning has ended with the failure of a base policy from outside."""
        with contextlib.suppress(PolicyFailed):
            self.learning.settle()
        self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        arrays, actors = self.actors.state()
        record = {
            "config": to_json(self.config),
            "updates": self.learner.updates,
            "offline_steps": self.offline_steps,
            "critic_steps": self.critic_steps,
            "last_eval": self.last_eval,
            "train_s": self.clock.seconds,
            "first_update_s": self.first_update_s,
            "rollout": actors,
            "deployed": self.actors.deployed,
            "data": self.data,
            "metrics": self.metrics.pending(),
            "beside": self.beside,
            **remember_lines(self.run_dir),
        }
        parts = {
            "learner": finite(self.learner.arrays()),
            "replay": self.sealing.seal(),
            "rollout": arrays,
        }
        # drawn before the newest rows: it cannot be drawn again
        if self.in_step.prefetched is not None:
            parts["prefetched"] = pack(self.in_step.prefetched)
        if self.prior is not None and (kept := self.prior.column_state()):
            parts["prior"] = kept
        step = self.offline_steps + self.critic_steps + self.actors.env_steps
        folder = self.run_dir / CHECKPOINTS
        grown = {"replay": self.sealing.segments}
        path = checkpoint.save(folder, step, parts, record, self.config.log.keep, grown)
        self.callbacks.on_checkpoint(path)

    def _restore(self, found: checkpoint.Found | None) -> None:
        if found is None:
            self.progress.say("no checkpoint yet: starting from the beginning")
            for name in LINES:  # of what is about to be made again
                (self.run_dir / name).unlink(missing_ok=True)
            return
        parts, record = found.parts, found.record
        self.learner.load(parts["learner"], record["updates"])
        self.sealing.load(parts["replay"], found.placed.get("replay"))
        for env in self.actors.load(parts["rollout"], record["rollout"]):
            self.online_replay.cut(env)
            self.progress.say(
                f"environment {env} is not deterministic: its open episode was ended, a new one "
                "started"
            )
        self.offline_steps, self.critic_steps = record["offline_steps"], record["critic_steps"]
        self.last_eval, self.first_update_s = record["last_eval"], record["first_update_s"]
        self.metrics.load(record["metrics"])
        if "prefetched" in parts:
            self.in_step.prefetched = jax.device_put(unpack(parts["prefetched"]))
        if self.prior is not None:
            self.prior.load_columns(parts.get("prior", {}))
        for name in LINES:  # later ones are about to be made again
            cut_back(self.run_dir / name, record["files"][name])
        self.clock.restart(record["train_s"])
