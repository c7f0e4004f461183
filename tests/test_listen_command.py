"""`exporl train --listen`: a run whose environments join with `exporl actor`."""

import socket

import pytest

pytest.importorskip("websockets")

from exporl.cli.main import main
from exporl.envs.registry import make_task
from helpers.joining import actor_process

RUN = ["--data.demos", "0", "--data.prior-ratio", "0", "--train.online-steps", "8"]
RUN += ["--algo.hidden", "16", "16", "--algo.num-qs", "3"]
RUN += ["--train.batch-size", "8", "--train.utd-ratio", "2", "--train.update-after", "4"]
RUN += ["--train.offline-steps", "0", "--train.critic-pretrain-steps", "0"]
RUN += ["--eval.episodes", "1", "--eval.num-envs", "1", "--preset", "tiny"]
LISTEN = ["--task", "remote/arm", "--listen"]


@pytest.mark.slow
def test_a_run_with_an_actor_is_begun_and_resumed(tmp_path, capsys):
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{opened.getsockname()[1]}"
    key, run = tmp_path / "key.txt", tmp_path / "run"
    key.write_text("secret")
    listen = ["--listen", address, "--key-file", str(key)]
    for command in (
        ["rlpd", "--task", "remote/arm", "--run-dir", str(run), *RUN],
        ["--resume", str(run), "--train.online-steps", "12"],
    ):
        with actor_process(address, "Arm", "--key-file", str(key)) as actor:
            assert main(["train", *command, *listen]) == 0
            _, said = actor.communicate(timeout=120)
        assert actor.returncode == 0, said
    assert f"--address {address} --key-file FILE" in capsys.readouterr().err
    again = ["train", "rlpd", "--task", "remote/arm", "--run-dir", str(run), "--wait-for-actors"]
    assert main([*again, "0.1", *RUN, *listen]) == 2, "at once: no actor is there"
    assert f"{run} already holds a run" in capsys.readouterr().err
    assert main(["train", "--resume", str(run)]) == 2
    assert "add --listen HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--task", "remote/arm"], "the environments of remote/arm are actors on other machines"),
        (["--task", "probe/delay", "--listen", "localhost:0"], "--task remote/NAME"),
        (["--task", "remote/", "--listen", "localhost:0"], "give it a name of yours"),
        (["--task", "probe/delay", "--key-file", "k"], "--key-file has no effect without --listen"),
        (["--task", "probe/delay", "--open"], "--open has no effect without --listen"),
        ([*LISTEN, "localhost"], "--listen must be HOST:PORT, such as 0.0.0.0:8765"),
        ([*LISTEN, "localhost:99999"], "--listen must be HOST:PORT"),
        ([*LISTEN, "0.0.0.0:0"], "whoever reaches 0.0.0.0 could take part in the run"),
        ([*LISTEN, "localhost:0", "--key-file", "none.txt"], "none.txt cannot be read"),
        ([*LISTEN, "localhost:0", "--data.path", "none.npz"], "none.npz"),
        ([*LISTEN, "localhost:0", "--seeds", "2"], "--listen is for one run"),
        ([*LISTEN, "localhost:0", "--actors", "1"], "leave one"),
        ([*LISTEN, "localhost:0", "--wait-for-actors", "x"], "--wait-for-actors must be a number"),
        ([*LISTEN, "localhost:0", "--wait-for-actors", "0.1"], "0 of 1 actors joined at 127.0.0.1"),
    ],
)
def test_what_does_not_go_together_is_said(args, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "rlpd", *args]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_task_alone_says_where_its_environments_are():
    with pytest.raises(ValueError, match="actors on other machines, which `exporl train"):
        make_task("remote/arm")
