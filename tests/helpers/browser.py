"""A headless Chromium, driven by its own protocol over two pipes: no package is needed for it."""

import base64
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One page, and everything that it complains about."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process, self._number, self._session = process, 0, None
        self.errors: list[str] = []
        self._loaded = 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What a command of the protocol answers; what happens meanwhile is noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found)
                return found["result"]

    def _read(self) -> dict[str, Any]:
        """The next message."""
        text = b""
        while not text.endswith(b"\0"):
            piece = self._process.stdout.read(1)
            assert piece, "the browser ended"
            text += piece
        found = json.loads(text[:-1])
        self._note(found.get("method"), found.get("params", {}))
        return found

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded += 1
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.errors.append(f"the page asks for {url}")

    def open(self, path: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Shows a file, until it is loaded and drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self._until_loaded("Page.navigate", url=path.resolve().as_uri())

    def reload(self) -> None:
        """Shows the page again."""
        self._until_loaded("Page.reload")

    def _until_loaded(self, method: str, **params: Any) -> None:
        before = self._loaded
        self.call(method, **params)
        self.wait_for_load(before + 1)

    def wait_for_load(self, count: int) -> None:
        """Until the page has been loaded so often, and drawn."""
        while self._loaded < count:
            self._read()
        self.settle()

    @property
    def loads(self) -> int:
        """How often a page has been loaded."""
        return self._loaded

    def settle(self) -> None:
        """Until two more pictures have been drawn: observers have then been told."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot: of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; the test is skipped where none is installed."""
    name = next((name for name in NAMES if shutil.which(name)), None)
    if name is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    options = (
        "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run "
        "--disable-extensions --disable-dev-shm-usage --remote-debugging-pipe"
    )
    # the browser reads commands from file 3 and writes answers to file 4
    command = f'exec "$0" {options} --user-data-dir="$1" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
    process = subprocess.Popen(
        ["sh", "-c", command, name, str(profile)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Browser(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
