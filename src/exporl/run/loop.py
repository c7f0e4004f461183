"""The training loop: imitation, then reinforcement learning online. It names no algorithm and no
task."""

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from exporl.acting.guard import Guard
from exporl.acting.rollout import Rollout
from exporl.algos import Algorithm
from exporl.data.episodes import fingerprint
from exporl.data.mixture import Mixture, pack, unpack
from exporl.data.proposals import proposal_age, renew_proposals
from exporl.data.replay import Replay
from exporl.envs.registry import make_task
from exporl.envs.task import Task
from exporl.files import checkpoint
from exporl.files.atomic import append_line, cut_back, size_of, write_text
from exporl.files.run_files import CHECKPOINTS, CONFIG, EVAL, METRICS, REPORT, SUMMARY
from exporl.parallel.background import BackgroundLearning
from exporl.randomness import SAMPLE, run_rng
from exporl.report.page import write_report
from exporl.run.config import RunConfig, to_json
from exporl.run.directory import open_run, summarize
from exporl.run.learner import to_device
from exporl.run.metrics import MetricsWriter, recent_episodes
from exporl.run.phases import (
    PRETRAIN_SCAN,
    acting_mode,
    check_phases,
    crossed,
    programs,
    update_calls_due,
)
from exporl.run.progress import Progress, Silent
from exporl.run.session import Session, Share
from exporl.run.stopping import Interrupted, stop_on_signals
from exporl.speed.compile_ahead import compile_ahead
from exporl.types import Batch, Phase


class Trainer(Session):
    """A run in progress; every random draw follows from (seed, counter)."""

    def __init__(
        self,
        config: RunConfig[Any],
        run_dir: Path,
        progress: Progress,
        resume: bool,
        stop: threading.Event | None = None,
        share: Share = None,
        task: Task | None = None,
    ):
        self._started = time.perf_counter()
        super().__init__(config, run_dir, progress, share or self._compile_ahead, task)
        check_phases(config, self.algorithm, has_data=bool(self.episodes))
        self.metrics = MetricsWriter(run_dir / METRICS)
        self.data = fingerprint(self.episodes)
        self.prior, self.online_replay = self.replays()
        sources: list[tuple[Replay, float]] = [(self.online_replay, 1.0)]
        if self.prior is not None:
            ratio = config.data.prior_ratio
            sources = [(self.prior, ratio), (self.online_replay, 1 - ratio)]
        for replay, _ in sources:
            replay.sampled = tuple(name for name, _, _ in self.network_spec.observation)
        self.mixture = Mixture(sources)
        self.mixture.counts(config.train.batch_size)  # refuses impossible shares at once
        self.rollout = Rollout(
            [self.make_env() for _ in range(config.num_envs)],
            self.algorithm.act,
            reward=self.task.reward,
            chunk_length=config.chunk_length,
            action_dim=self.spec.action_dim,
            execute_length=config.actions_played,
            seed=config.seed,
            guard=self._guard(),
        )
        self.offline_steps = self.critic_steps = 0
        self.last_eval = -1
        self.train_s = 0.0
        self.first_update_s: float | None = None
        self._prefetched: Batch | None = None
        self._stop = stop or threading.Event()
        self._background: BackgroundLearning | None = None
        if resume:
            self._restore()

    def _compile_ahead(self, algorithm: Algorithm) -> Algorithm:
        train = self.config.train
        columns = self.columns(algorithm)
        return compile_ahead(
            algorithm, self.network_spec, programs(train), train.batch_size, columns
        )

    def _guard(self) -> Guard | None:
        measure = self.config.train.guard
        if measure == "off":
            return None
        if measure == "auto":
            measure = "success" if self.task.reward_range == (0.0, 1.0) else "return"
        return Guard(measure)

    def run(self) -> None:
        """All phases. Stops at the next step boundary after SIGINT or SIGTERM, with a checkpoint.

        Raises:
            Interrupted: stopped by a signal; resuming goes on exactly there.
        """
        with stop_on_signals(self._stop, self.progress.say):
            self.pretrain()
            self.pretrain_critic()
            self.online()

    def pretrain(self) -> None:
        """Imitation on prior data: `offline_steps` steps of the base policy."""
        total, log = self.config.train.offline_steps, self.config.log
        if self.offline_steps >= total:
            return
        assert self.prior is not None
        source = Mixture([(self.prior, 1.0)])
        self.progress.phase("imitation", total, self.offline_steps)
        while self.offline_steps < total:
            steps = min(PRETRAIN_SCAN, total - self.offline_steps)
            metrics = self._update(source, steps, "pretrain")
            self.metrics.add(metrics)
            before, self.offline_steps = self.offline_steps, self.offline_steps + steps
            if crossed(before, self.offline_steps, log.every) or self.offline_steps == total:
                line = self.metrics.flush(
                    phase="pretrain", offline_steps=self.offline_steps, env_steps=0
                )
                self.progress.advance(0, f"loss {line.get('base/loss', float('nan')):.3f}")
            self.progress.advance(steps, "")
            self._boundary(before, self.offline_steps, self.offline_steps == total)

    def pretrain_critic(self) -> None:
        """Critic (and edit policy) on prior data alone, backed up with the on-the-fly policy."""
        train = self.config.train
        if self.critic_steps >= train.critic_pretrain_steps:
            return
        assert self.prior is not None
        source, u = Mixture([(self.prior, 1.0)]), train.utd_ratio * train.update_every
        self.progress.phase("critic pretraining", train.critic_pretrain_steps, self.critic_steps)
        while self.critic_steps < train.critic_pretrain_steps:
            self.metrics.add(self._update(source, u, "critic_pretrain"))
            before, self.critic_steps = self.critic_steps, self.critic_steps + u
            done = self.critic_steps >= train.critic_pretrain_steps
            if crossed(before, self.critic_steps, self.config.log.every) or done:
                self.metrics.flush(
                    phase="critic_pretrain", critic_steps=self.critic_steps, env_steps=0
                )
            self.progress.advance(u, "")
            self._boundary(before, self.critic_steps, done)

    def online(self) -> None:
        """Acting and learning: one environment step, its updates, then log, evaluate, save where
        due."""
        rollout, total = self.rollout, self.config.train.online_steps
        self.progress.phase(self.config.algorithm, total, rollout.env_steps)
        self.metrics.speed(rollout.env_steps)
        self._evaluate_if_due()
        background = contextlib.nullcontext()
        if self.config.train.asynchronous:
            background = BackgroundLearning(self._update_online, self.learner.acting)
        with background as self._background:
            while rollout.env_steps < total:
                before = rollout.env_steps
                self._step()
                self._learn(before)
                self._keep_books(before)

    def _step(self) -> None:
        """One step of every environment, into the replay."""
        background = self._background
        acting = self.learner.acting() if background is None else background.acting()
        steps = self.rollout.step(acting, acting_mode(self.config.train, self.rollout.env_steps))
        with contextlib.nullcontext() if background is None else background.lock:
            for stream, step in steps:
                self.online_replay.add(step, stream)

    def _learn(self, before: int) -> None:
        """The update calls due since `before` environment steps; they are left out while there is
        nothing to sample."""
        due = 0
        if self.mixture.ready:
            due = update_calls_due(self.config.train, before, self.rollout.env_steps)
        if self._background is not None:
            self._background.owe(due)
        else:
            for _ in range(due):
                self._update_online()

    def _update_online(self) -> Any:
        train = self.config.train
        self.metrics.add(
            metrics := self._update(self.mixture, train.utd_ratio * train.update_every, "online")
        )
        return metrics

    def _settle(self) -> None:
        """Before anything reads the learner: learning beside acting makes the update calls due,
        then rests."""
        if self._background is not None:
            self._background.settle()

    def _keep_books(self, before: int) -> None:
        """Progress, metrics, evaluation and checkpoint, where due since `before` environment
        steps."""
        steps = self.rollout.env_steps
        self.progress.advance(steps - before, "")
        final = steps >= self.config.train.online_steps
        if crossed(before, steps, self.config.log.every) or final:
            self._log_online()
        self._evaluate_if_due()
        self._boundary(before, steps, final)

    def _update(self, source: Mixture, num_minibatches: int, phase: Phase) -> Any:
        needs = self.algorithm.needs
        if needs.proposals and phase != "pretrain":
            renew_proposals(
                [replay for replay, _ in source.sources],
                self.learner.propose,
                needs.refresh,
                self.learner.updates,
            )
        batches, self._prefetched = self._prefetched or self._sample(source, num_minibatches), None
        metrics = self.learner.update(batches, phase)
        # while the device is busy with the update
        if phase == "online" and self.config.train.prefetch:
            self._prefetched = self._sample(source, num_minibatches)
        if self.first_update_s is None:
            jax.block_until_ready(metrics)
            self.first_update_s = time.perf_counter() - self._started
        return metrics

    def _sample(self, source: Mixture, num_minibatches: int) -> Batch:
        """The minibatches of the next update call, on their way to the device."""
        train, rng = self.config.train, run_rng(self.config.seed, SAMPLE, self.learner.updates)
        return to_device(
            source.sample(rng, num_minibatches, train.batch_size, discount=train.discount)
        )

    def _log_online(self) -> None:
        self._settle()
        rollout = self.rollout
        fields: dict[str, Any] = {"phase": "online", "env_steps": rollout.env_steps}
        fields |= {"updates": self.learner.updates, **recent_episodes(rollout.outcomes)}
        fields["mode"] = acting_mode(self.config.train, rollout.env_steps - 1)
        speed = self.metrics.speed(rollout.env_steps)
        if self._background is not None:
            fields["rollout/staleness_updates"] = self._background.staleness()
        if rollout.guard is not None:
            fields |= self._guard_fields()
        if self.algorithm.needs.proposals:
            age = proposal_age(self.online_replay, self.learner.updates)
            fields |= {"backup/staleness": age} if np.isfinite(age) else {}
        fields |= {"time/env_steps_per_s": speed, "time/train_s": self._seconds()}
        self.metrics.flush(**fields)
        success = "no episode ended yet"
        if "rollout/success_rate" in fields:
            success = f"last 20 episodes {100 * fields['rollout/success_rate']:.0f}%"
        self.progress.advance(0, f"{speed:.0f} env steps/s, {success}")

    def _guard_fields(self) -> dict[str, Any]:
        """What the guard thinks of both policies, and whom it chose."""
        assert self.rollout.guard is not None
        recent = self.rollout.outcomes[-20:]
        found = self.rollout.guard.estimates(self.rollout.outcomes)
        fields: dict[str, Any] = {f"guard/{arm}": value for arm, value in found.items()}
        if recent:
            fields["guard/base_episodes"] = float(np.mean([each.arm == "base" for each in recent]))
        return fields | {"deployed": self.rollout.deployed}

    def _evaluation_due(self) -> bool:
        steps, options = self.rollout.env_steps, self.config.eval
        if self.last_eval < 0 or (
            steps >= self.config.train.online_steps and self.last_eval != steps
        ):
            return True
        if options.at:
            return any(self.last_eval < at <= steps for at in options.at)
        return crossed(self.last_eval, steps, options.every)

    def _evaluations(self) -> dict[str, Any]:
        """Results by name: "policy" is what is deployed; with a guard "unguarded" is the policy in
        any case."""
        options, results = self.config.eval, {}
        self.deployed = self.rollout.deployed
        if self.algorithm.has_base and (options.base or self.deployed == "base"):
            results["base"] = self.evaluate(mode="base").to_json()
        if self.deployed == "explore" or self.rollout.guard is not None:
            policy = self.evaluate(mode="evaluate").to_json()
            results |= {"policy": policy}
            if self.rollout.guard is not None:
                results["unguarded"] = policy
        if self.deployed == "base":
            results["policy"] = results["base"]
        if options.unedited and self.algorithm.has_base:
            results["unedited"] = self.evaluate(mode="unedited").to_json()
        return results

    def _evaluate_if_due(self) -> None:
        if not self._evaluation_due():
            return
        steps, options = self.rollout.env_steps, self.config.eval
        self._settle()
        self._seconds()
        began = time.perf_counter()
        record: dict[str, Any] = {"env_steps": steps, "updates": self.learner.updates}
        if self.rollout.guard is not None:
            record["deployed"] = self.rollout.deployed
        record |= self._evaluations()
        took = time.perf_counter() - began
        self._started += took
        record |= {"time/train_s": self._seconds(), "time/eval_s": took, "phase": "online"}
        append_line(self.run_dir / EVAL, record)
        self.metrics.speed(steps)
        self.last_eval = steps
        rates = {who: record[who]["success_rate"] for who in ("policy", "base") if who in record}
        text = ", ".join(f"{name} {100 * rate:.0f}%" for name, rate in rates.items())
        self.progress.say(f"step {steps}: evaluation success {text} ({options.episodes} episodes)")

    def _seconds(self) -> float:
        """Seconds of training so far, evaluation excluded, over all resumptions."""
        now = time.perf_counter()
        self.train_s += now - self._started
        self._started = now
        return self.train_s

    def _boundary(self, before: int, after: int, final: bool) -> None:
        stopping = self._stop.is_set() and not final
        if final or stopping or crossed(before, after, self.config.log.save_every):
            self.save()
        if self._stop.is_set():
            raise Interrupted(
                f"stopped after {self.rollout.env_steps} environment steps; everything is saved"
            )

    def save(self) -> None:
        """Writes a checkpoint of everything: learner, replay, environments, counters."""
        self._settle()
        arrays, rollout = self.rollout.state()
        record = {
            "config": to_json(self.config),
            "updates": self.learner.updates,
            "offline_steps": self.offline_steps,
            "critic_steps": self.critic_steps,
            "last_eval": self.last_eval,
            "train_s": self._seconds(),
            "first_update_s": self.first_update_s,
            "rollout": rollout,
            "deployed": self.rollout.deployed,
            "data": self.data,
            "metrics": self.metrics.pending(),
            "files": {name: size_of(self.run_dir / name) for name in (METRICS, EVAL)},
        }
        parts = {
            "learner": self.learner.arrays(),
            "replay": self.online_replay.state(),
            "rollout": arrays,
        }
        if self._prefetched is not None:  # drawn before the newest rows: it cannot be drawn again
            parts["prefetched"] = pack(self._prefetched)
        if self.prior is not None and (kept := self.prior.column_state()):
            parts["prior"] = kept
        step = self.offline_steps + self.critic_steps + self.rollout.env_steps
        checkpoint.save(self.run_dir / CHECKPOINTS, step, parts, record, self.config.log.keep)

    def _restore(self) -> None:
        found = checkpoint.load_newest(self.run_dir / CHECKPOINTS)
        if found is None:
            self.progress.say("no checkpoint yet: starting from the beginning")
            for name in (METRICS, EVAL):  # lines of what is about to be made again
                (self.run_dir / name).unlink(missing_ok=True)
            return
        parts, record, problems = found
        for problem in problems:
            self.progress.say(f"skipped a damaged checkpoint: {problem}")
        if record["data"] != self.data:
            raise ValueError(
                "the prior data is not what this run was started with. Restore the file, or start a"
                " new run."
            )
        self.learner.load(parts["learner"], record["updates"])
        self.online_replay.load(parts["replay"])
        for env in self.rollout.load(parts["rollout"], record["rollout"]):
            self.online_replay.cut(env)
            self.progress.say(
                f"environment {env} is not deterministic: its open episode was ended, a new one "
                "started"
            )
        self.offline_steps, self.critic_steps = record["offline_steps"], record["critic_steps"]
        self.last_eval, self.train_s = record["last_eval"], record["train_s"]
        self.first_update_s = record["first_update_s"]
        self.metrics.load(record["metrics"])
        if "prefetched" in parts:
            self._prefetched = jax.device_put(unpack(parts["prefetched"]))
        if self.prior is not None:
            self.prior.load_columns(parts.get("prior", {}))
        for name, size in record["files"].items():  # later lines are about to be made again
            cut_back(self.run_dir / name, size)
        self._started = time.perf_counter()


def train(
    config: RunConfig[Any],
    run_dir: Path,
    progress: Progress | None = None,
    *,
    resume: bool = False,
    stop: threading.Event | None = None,
    share: Share = None,
    task: Task | None = None,
) -> dict[str, Any]:
    """Trains a run from its configuration; the one loop for every algorithm and task.

    Args:
        config: what to do.
        run_dir: where everything goes: config.json, metrics.jsonl, eval.jsonl, checkpoints,
            summary.json, report.html.
        progress: what to report to; nothing by default.
        resume: go on from the newest checkpoint in `run_dir`.
        stop: stops the run as a signal does, once set.
        share: gives the run another algorithm record that computes the same; `seeds` joins runs
            this way.
        task: used instead of the one that `config.task` names; a name `module:function` lets other
            processes find it.

    Returns:
        The summary that is also written to summary.json.

    Raises:
        ValueError: contradictory options, unusable data, or a resumption with another
            configuration.
        FileExistsError: the directory already holds a run and `resume` is off.
        Interrupted: stopped by a signal, after saving.
    """
    run_dir = Path(run_dir)
    task = task or make_task(config.task, config.reward)
    open_run(config, run_dir, resume=resume)
    try:
        trainer = Trainer(config, run_dir, progress or Silent(), resume, stop, share, task)
    except (ValueError, OSError):
        if not resume:  # nothing was learnt yet: leave no half-made run behind
            (run_dir / CONFIG).unlink(missing_ok=True)
        raise
    trainer.run()
    summary = summarize(run_dir)
    summary |= {"train_s": trainer.train_s, "first_update_s": trainer.first_update_s}
    write_text(run_dir / SUMMARY, json.dumps(summary, indent=1))
    write_report([run_dir], run_dir / REPORT)
    return summary
