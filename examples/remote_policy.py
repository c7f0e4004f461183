"""A policy that is served elsewhere as base policy: EXPO around a WebSocket.

The server is a small one, with openpi's messages and seeds; yours may be `exporl serve RUN`, or
openpi's own. From this folder: python remote_policy.py. Also `exporl train expo --task probe/bandit
--preset tiny --base ws://localhost:8000` where a server listens there.
"""

import threading
from pathlib import Path

import numpy as np
from websockets.sync.server import serve

import exporl
from exporl.serve.messages import packed, unpacked


def converse(connection):
    """One client: what there is to know of the policy, then an answer to every observation."""
    connection.send(packed({"action_horizon": 1, "expo": {"extras": ["expo/seed"]}}))
    for message in connection:
        rng = np.random.default_rng(unpacked(message)["expo/seed"])
        action = rng.choice([-0.5, 0.5]) + 0.1 * rng.standard_normal()
        connection.send(packed({"actions": np.full((1, 1), action, np.float32)}))


if __name__ == "__main__":
    with serve(converse, "localhost", 0) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"ws://localhost:{server.socket.getsockname()[1]}"
        preset = exporl.preset_config("expo", "tiny", "probe/bandit")
        steps = {"train.offline_steps": 0, "train.online_steps": 200, "train.utd_ratio": 2}
        warmup = {"train.critic_warmup_steps": 100, "train.update_after": 50, "eval.episodes": 10}
        # kept samples, of which few are renewed per update: every one is a request
        cached = {"algo.backup": "cached", "algo.num_base_samples": 4, "algo.cache_refresh": 4}
        base = {"base.policy": address}
        config = exporl.override(preset, {**base, **steps, **warmup, **cached})
        print(exporl.train(config, Path("runs/remote")))
        server.shutdown()
