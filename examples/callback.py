"""Whatever should happen while a run goes on: a callback. This one keeps the failures of training
and stops once the policy is good enough.

From this folder: python callback.py
"""

import threading
from pathlib import Path

import exporl


class UntilGood(exporl.Callback):
    def __init__(self, stop, enough):
        self.stop, self.enough, self.failures = stop, enough, []

    def on_step(self, env_steps, steps):
        self.failures += [env_steps for _, step in steps if step.terminated and not step.success]

    def on_evaluation(self, record):
        if record["policy"]["success_rate"] >= self.enough:
            self.stop.set()


if __name__ == "__main__":
    stop = threading.Event()
    watcher = UntilGood(stop, enough=0.9)
    options = {"train.offline_steps": 500, "eval.every": 100, "eval.episodes": 20}
    options |= {"train.critic_warmup_steps": 100, "train.update_after": 20, "log.every": 50}
    options |= {"algo.edit_scale": 0.3, "algo.initial_temperature": 0.02}
    options |= {"algo.critic_learning_rate": 3e-3, "algo.edit_learning_rate": 3e-3}
    config = exporl.override(exporl.preset_config("expo", "tiny", "probe/delay"), options)
    try:
        exporl.train(config, Path("runs/watched"), stop=stop, callbacks=[watcher])
    except exporl.Interrupted as reason:
        print(f"{reason}; {len(watcher.failures)} episodes failed")
