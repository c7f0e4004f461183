"""The unmodified openpi-client against our server, in an environment of its own: it needs numpy
before 2. `make .venv/openpi/.installed` makes the environment."""

import json
import subprocess
from pathlib import Path

import pytest

from helpers.serving import GOOD, Arithmetic, serving, wanted

PYTHON = Path(__file__).parent.parent / ".venv" / "openpi" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not (PYTHON.parent.parent / ".installed").is_file(),
    reason="openpi-client 0.1.2 is not installed: the index was out of reach, or has no numpy "
    "before 2 for this Python (make .venv/openpi/.installed tries again)",
)
pytest.importorskip("websockets")

SCRIPT = """
import importlib.metadata, json, sys
import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

host, port, key = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
policy = WebsocketClientPolicy(host=host, port=port, api_key=key)
metadata = policy.get_server_metadata()
good = {"state": np.array([1.0, 2.0, 3.0]), "force": np.eye(2, dtype=np.float32),
        "observation/image": np.zeros((8, 8, 3), np.uint8), "prompt": "lift"}
first = policy.infer({**good, "expo/seed": np.int64(5)})
again = policy.infer({**good, "expo/seed": 5})
broker = ActionChunkBroker(policy, metadata["action_horizon"])
played = [broker.infer(good) for _ in range(4)]
try:
    policy.infer({"state": good["state"]})
    error = ""
except RuntimeError as raised:
    error = str(raised)
print(json.dumps({
    "versions": [importlib.metadata.version(name) for name in ("openpi-client", "numpy")],
    "metadata": metadata,
    "type": str(first["actions"].dtype),
    "first": first["actions"].tolist(),
    "same": bool((first["actions"] == again["actions"]).all()),
    "said": {name: first[name] for name in sorted(first) if name.startswith("expo/")},
    "timing": sorted(again["server_timing"]),
    "played": [each["actions"].tolist() for each in played],
    "error": error,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "secret"], ids=["open", "key"])
def test_the_real_client(key):
    policy = Arithmetic()
    with serving(policy, api_key=key or None) as running:
        command = [PYTHON, "-c", SCRIPT, "127.0.0.1", str(running.port), key]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["versions"][0] == "0.1.2" and found["versions"][1].startswith("1.")
    assert found["metadata"]["expo"]["observation"]["force"] == {
        "shape": [2, 2],
        "dtype": "float32",
    }
    assert found["type"] == "float32" and found["same"]
    assert found["first"] == wanted(GOOD, 5).tolist()
    assert found["said"] == {
        "expo/checkpoint": policy.checkpoint_name,
        "expo/edited": True,
        "expo/index": 3,
        "expo/q": 13.0,
        "expo/seed": 5,
    }
    assert found["timing"] == ["infer_ms", "prev_total_ms"]
    # the third and fourth requests of the connection: a chunk of three, and the next one
    assert found["played"] == [*wanted(GOOD, 2).tolist(), wanted(GOOD, 3)[0].tolist()]
    assert found["error"].startswith("Error in inference server:\nthe observation lacks 'force'")


@pytest.mark.slow
def test_the_real_client_with_a_wrong_key():
    with serving(Arithmetic(), api_key="secret") as running:
        command = [PYTHON, "-c", SCRIPT, "127.0.0.1", str(running.port), "wrong"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("server rejected WebSocket connection: HTTP 401")
