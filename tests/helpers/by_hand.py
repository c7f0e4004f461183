"""Actors whose answers a test writes by hand."""

import contextlib
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from exporl.actor.environment import ActorEnvironment
from exporl.distributed.remote_env import RemoteEnv
from exporl.serve.messages import packed, unpacked
from helpers.robots import Arm
from helpers.serving import until

GOOD = ActorEnvironment(Arm()).describe()
ACTION = GOOD["action"]
SEEN = {"pose/q": np.zeros(2), "force": np.zeros((1, 2), np.float32)}


def heard(connection) -> Any:
    return connection.recv(timeout=30)


def told(pool, *answers):
    """What the training says to somebody who gives these answers."""
    with connect(f"ws://{pool.address}", proxy=None) as connection:
        for answer in answers:
            call = unpacked(heard(connection))
            number = call["number"]
            connection.send(
                packed({"number": number, **answer}) if isinstance(answer, dict) else answer
            )
        said = heard(connection)
        if not isinstance(said, str):
            return said
        with pytest.raises(ConnectionClosed):
            heard(connection)
        return said


@contextlib.contextmanager
def acting(pool, *answers):
    """An environment whose actor is of the right kind, and answers its calls with these."""
    with connect(f"ws://{pool.address}", proxy=None) as connection:
        unpacked(heard(connection))
        connection.send(packed({"number": 1, **GOOD}))
        until(lambda: pool.places[0].present)
        env = RemoteEnv(pool)
        env.waits = False
        for number, answer in enumerate(answers, 1):  # they lie there when they are asked for
            connection.send(packed({"number": number, **answer}))
        yield env
