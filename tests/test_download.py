"""Downloads from real servers on this machine and from folders: mirrors, resumption, digests, and
no network."""

import http.server
import json
import threading

import pytest

from exporl.cli.main import main
from exporl.data import download
from exporl.data.download import DATASETS, LOCK, DownloadError, Source, digest, fetch, find_dataset

CONTENT = bytes(range(256)) * 5000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT at /good and below; /half drops the connection midway once; /plain ignores
    ranges."""

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.log.append((self.path, wanted))
        if "missing" in self.path:
            self.send_error(404)
            return
        start = (
            int(wanted.split("=")[1].split("-")[0]) if wanted and "plain" not in self.path else 0
        )
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "half" in self.path and not start:
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.log = []
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def source(*urls, sha256=None) -> Source:
    return Source("set/file.bin", urls, sha256)


def test_first_download_records_its_digest_and_the_next_must_agree(server, tmp_path):
    said = []
    path = fetch(source(f"{server.url}/good"), tmp_path, say=said.append)
    assert path == tmp_path / "set" / "file.bin" and path.read_bytes() == CONTENT
    lock = json.loads((tmp_path / LOCK).read_text())
    assert lock["set/file.bin"]["sha256"] == digest(path) and "no published value" in said[-1]
    fetch(source(f"{server.url}/good"), tmp_path)
    assert len(server.log) == 1
    path.write_bytes(b"altered")
    with pytest.raises(ValueError, match=r"has SHA-256 .*, expected .* Remove it"):
        fetch(source(f"{server.url}/good"), tmp_path)


def test_a_dropped_connection_is_resumed(server, tmp_path):
    half = source(f"{server.url}/half")
    with pytest.raises(
        DownloadError, match=r"ended after 640,000 of 1,280,000 bytes; run it again to go on"
    ):
        fetch(half, tmp_path)
    assert (tmp_path / "set" / "file.bin.part").stat().st_size == 640_000
    assert fetch(half, tmp_path).read_bytes() == CONTENT
    assert server.log[-1] == ("/half", "bytes=640000-")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["file.bin"]


@pytest.mark.parametrize("part", [CONTENT[:100], CONTENT + b"more"])
def test_servers_that_cannot_continue_start_again(server, tmp_path, part):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin.part").write_bytes(part)
    place = "plain" if len(part) < len(CONTENT) else "good"
    assert fetch(source(f"{server.url}/{place}"), tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_order(server, tmp_path):
    said = []
    fetch(source(f"{server.url}/missing", f"{server.url}/good"), tmp_path, say=said.append)
    assert "/missing: HTTP 404" in said[0]
    assert [path for path, _ in server.log] == ["/missing", "/good"]


def test_a_wrong_digest_is_refused_and_the_next_mirror_tried(server, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "file.bin").write_bytes(b"something else")
    (tmp_path / "sum").write_bytes(CONTENT)
    right = digest(tmp_path / "sum")
    wanted = source(f"{server.url}/good", sha256=right)
    assert fetch(wanted, tmp_path / "data", mirrors=[str(tmp_path / "bad")]).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"SHA-256 is .*, expected 0000"):
        fetch(source(f"{server.url}/good", sha256="0000"), tmp_path / "other")
    assert list((tmp_path / "other" / "set").iterdir()) == []


@pytest.mark.parametrize("as_url", [False, True])
def test_folders_are_mirrors_and_offline_uses_nothing_else(server, tmp_path, as_url):
    folder = tmp_path / "disk"
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "file.bin").write_bytes(CONTENT)
    mirror = folder.as_uri() if as_url else str(folder)
    fetch(source(f"{server.url}/good"), tmp_path / "data", mirrors=[mirror], offline=True)
    with pytest.raises(DownloadError) as refused:
        fetch(source(f"{server.url}/good"), tmp_path / "empty", offline=True)
    text = str(refused.value)
    assert "not tried, --offline" in text and f"{server.url}/good by hand" in text
    assert str(tmp_path / "empty" / "set" / "file.bin") in text and server.log == []


def test_a_file_put_there_by_hand_is_taken(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(CONTENT)
    fetch(source("http://127.0.0.1:9/none"), tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["set/file.bin"]["from"] == "found in place"
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(ValueError, match=r"downloads.lock.json is damaged"):
        fetch(source("http://127.0.0.1:9/none"), tmp_path)


def test_the_table():
    assert all(
        url.startswith("http") for sources in DATASETS.values() for s in sources for url in s.urls
    )
    assert len({s.path for sources in DATASETS.values() for s in sources}) == sum(
        map(len, DATASETS.values())
    )
    with pytest.raises(ValueError, match="Did you mean 'robomimic/can-mh-v141'"):
        find_dataset("robomimic/can-mh-v14")


def test_the_command(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(download.DATASETS, "test/set", (source(f"{server.url}/good"),))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "download", "--list"]) == 0
    assert "d4rl/door-human-v1" in capsys.readouterr().out
    assert main(["data", "download", "test/set", "--offline"]) == 2
    error = capsys.readouterr().err
    assert f"Fetch {server.url}/good by hand" in error and "Traceback" not in error
    assert main(["data", "download", "test/set"]) == 0
    assert (tmp_path / "data" / "set" / "file.bin").read_bytes() == CONTENT
    assert main(["data", "download"]) == 2
    assert "name a data set" in capsys.readouterr().err
