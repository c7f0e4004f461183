"""A suite that is killed at any moment ends as one that was not: real runs, real signals."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from exporl.cli.main import main
from helpers.suites import suite_file

SUITE = """
folder = "{folder}"
seeds = 1
preset = "tiny"
score = 0.3
options.train = { online_steps = 24, batch_size = 8, utd_ratio = 1, update_after = 4 }
options.eval = { every = 6, episodes = 4, num_envs = 2 }
options.log = { every = 6, save_every = 6 }
options.data = { demos = 6, demo_noise = 0.05 }

[algorithms.bc]
options.train.offline_steps = 20
options.base = { width = 16, num_blocks = 1, time_dim = 8, num_steps = 2 }
[algorithms.rlpd]
options.train.random_steps = 6
options.algo = { hidden = [16], num_qs = 2 }

[tasks."probe/delay"]
"""


def start(path):
    command = [sys.executable, "-m", "exporl.cli", "bench", str(path), "--jobs", "1"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_a_suite_killed_at_random_points_ends_with_the_same_table(tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    began = time.monotonic()
    with start(suite_file(whole, SUITE)) as process:
        out, _ = process.communicate(timeout=1_800)
    assert process.returncode == 0, out
    took = time.monotonic() - began
    rng, path = random.Random(time.time_ns()), suite_file(broken, SUITE)
    points = [rng.uniform(0.1, 0.9) * took for _ in range(2)]
    for point in points:
        with start(path) as process:
            try:
                process.wait(timeout=point)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
    with start(path) as process:
        out, _ = process.communicate(timeout=1_800)
    assert process.returncode == 0, (points, out)
    tables = []
    for suite in (whole / "suite.toml", path):
        assert main(["bench", str(suite), "--table"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] and "| probe/delay | bc | " in tables[0], points
