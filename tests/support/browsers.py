# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser for the tests: Debian's headless Chromium in a container, driven by the DevTools protocol.

It is told what to do, and says what happens, through a pipe, as JSON between NUL bytes: no WebSocket, so no package
that speaks it. A page's elements are found as a screen reader finds them, by role and name; they are clicked and typed
into by events of mouse and keyboard. Whatever goes wrong in a page is kept in `troubles`.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.databases import IMAGES
from tests.support.debs import locked
from tests.support.engine import Engine, unique

BROWSER = "shipshape-test/browser:1"
_RECIPE = """
FROM shipshape-base:bookworm
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
    chromium-headless-shell fonts-dejavu-core && apt-get clean && rm -rf /var/lib/apt/lists/*
"""
# The container is the sandbox: Chromium's own wants rights that a container does not have. 3 and 4 are where it looks
# for the pipe.
_START = (
    "exec chromium-headless-shell --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir=/tmp/profile "
    "about:blank 3<&0 4>&1 1>&2"
)
_PATIENCE = 60.0
_KEYS = {"\n": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}}
_CTRL = 2

Message = dict[str, Any]


def provide_browser(engine: Engine) -> str:
    """One image with Chromium, built once."""
    with locked("browser-image"):
        if engine.docker("image", "inspect", BROWSER, check=False).returncode:
            done = subprocess.run([IMAGES / "build", "--only", "base"], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            engine.docker("build", "-q", "--network", "host", "-t", BROWSER, "-", input=_RECIPE)
    return BROWSER


@contextmanager
def browser(engine: Engine) -> Iterator[Browser]:
    """A browser in the machine's own network, so that 127.0.0.1 is where a test has published something."""
    name = unique("browser")
    words = ["run", "-i", "--rm", "--init", "--name", name, "--network", "host", "--shm-size", "256m"]
    words += ["--user", "65534:65534", "--env", "HOME=/tmp", provide_browser(engine), "sh", "-c", _START]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["docker", *words], env=engine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        )
        try:
            yield Browser(process, said)
        finally:
            engine.sweep(name)
            process.communicate(timeout=20)


@dataclass
class Browser:
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    pages: dict[str, Page] = field(default_factory=dict)
    _rest: bytes = b""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def page(self) -> Page:
        """An empty page in a profile of its own: its cookies and its cache are no other page's."""
        profile = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=profile)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for area in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{area}.enable")
        page.resize(1280, 900)
        return page

    def send(self, method: str, session: str | None = None, **parameters: Any) -> Message:
        """A command, and its result. What happens meanwhile is told to the pages."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.process.stdin.flush()
        deadline = time.monotonic() + _PATIENCE
        while (answer := self.listen(deadline, method)).get("id") != number:
            pass
        assert "error" not in answer, f"{method} {parameters}: {answer['error']}"
        result: Message = answer["result"]
        return result

    def listen(self, deadline: float, what: str) -> Message:
        """The browser's next message."""
        assert self.process.stdout is not None
        while b"\0" not in self._rest:
            wait = max(0, deadline - time.monotonic())
            ready = select.select([self.process.stdout], [], [], wait)[0]
            assert ready, f"the browser did not finish within {_PATIENCE:.0f} s: {what}"
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            assert more, f"the browser has ended: {what}\n{self._log()}"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message: Message = json.loads(text)
        if "method" in message and message.get("sessionId") in self.pages:
            self.pages[message["sessionId"]].hear(message["method"], message["params"])
        return message

    def _log(self) -> str:
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace")[-4000:]


@dataclass
class Page:
    """One page, and what was seen of it: `troubles`, `requests` (their addresses), `console` (its lines)."""

    browser: Browser
    session: str
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    loads: int = 0
    _urls: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, **parameters: Any) -> Message:
        return self.browser.send(method, self.session, **parameters)

    def hear(self, event: str, told: Message) -> None:
        if event == "Page.loadEventFired":
            self.loads += 1
        elif event == "Network.requestWillBeSent":
            self._urls[told["requestId"]] = told["request"]["url"]
            self.requests.append(told["request"]["url"])
        elif event == "Network.responseReceived" and told["response"]["status"] >= 400:
            self.troubles.append(f"{told['response']['status']} {told['response']['url']}")
        elif event == "Network.loadingFailed":
            self.troubles.append(f"{told['errorText']} {self._urls.get(told['requestId'], '')}")
        elif event == "Runtime.consoleAPICalled":
            line = " ".join(str(part.get("value", part.get("description"))) for part in told["args"])
            self.console.append(line)
            if told["type"] in ("error", "warning", "assert"):
                self.troubles.append(f"console.{told['type']}: {line}")
        elif event == "Runtime.exceptionThrown":
            about = told["exceptionDetails"]
            self.troubles.append(f"{about['text']} {about.get('exception', {}).get('description', '')}")
        elif event == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"{told['entry']['source']}: {told['entry']['text']}")

    # -- going somewhere --------------------------------------------------------------------------------------------

    def visit(self, url: str) -> None:
        with self.loading(url):
            went = self.send("Page.navigate", url=url)
            assert not went.get("errorText"), f"{url}: {went['errorText']}"

    def reload(self) -> None:
        with self.loading("reload"):
            self.send("Page.reload")

    def follow(self, role: str, name: str) -> None:
        """Clicks what leads to another page, and waits until that is there."""
        with self.loading(f"{role} {name}"):
            self.click(role, name)

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        before, deadline = self.loads, time.monotonic() + _PATIENCE
        yield
        while self.loads == before:
            self.browser.listen(deadline, what)

    def wait_for(self, trouble: str) -> None:
        """Until something has gone wrong, of which that is told."""
        deadline = time.monotonic() + _PATIENCE
        while not any(trouble in told for told in self.troubles):
            self.browser.listen(deadline, f"{trouble} is not among {self.troubles}")

    # -- looking ----------------------------------------------------------------------------------------------------

    def evaluate(self, expression: str) -> Any:
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @property
    def text(self) -> str:
        """What there is to read on the page."""
        return str(self.evaluate("document.body.innerText"))

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    def names(self, role: str) -> list[str]:
        """The names of the elements of that role, in the page's order."""
        return [node["name"]["value"] for node in self._found(role=role)]

    def value(self, name: str) -> str:
        """What stands in the field of that name."""
        return str(self._of("textbox", name, "function () { return this.value }"))

    def is_seen(self, role: str, name: str) -> bool:
        """Whether there is anything of it to see: it has a size, and lies within the page's width."""
        boxes = self.send("DOM.getContentQuads", backendNodeId=self._one(role, name))["quads"]
        return any(len(set(box[::2])) > 1 and min(box[::2]) >= 0 and len(set(box[1::2])) > 1 for box in boxes)

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def picture(self, path: Path) -> Path:
        """The whole page, as it is to be seen."""
        taken = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    # -- doing ------------------------------------------------------------------------------------------------------

    def click(self, role: str, name: str) -> None:
        """By the mouse, in the element's middle; what something else lies upon cannot be clicked."""
        node = self._one(role, name)
        self.send("DOM.scrollIntoViewIfNeeded", backendNodeId=node)
        [quad, *_] = self.send("DOM.getContentQuads", backendNodeId=node)["quads"]
        at = {"x": sum(quad[::2]) / 4, "y": sum(quad[1::2]) / 4}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for event in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **at)

    def write(self, name: str, text: str) -> None:
        """Types at the end of the field of that name."""
        self.click("textbox", name)
        self._key({"key": "End", "code": "End", "windowsVirtualKeyCode": 35, "modifiers": _CTRL})
        for character in text:
            self._key(_KEYS.get(character, {"key": character, "text": character}))

    def _key(self, key: Message) -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", **key)
        self.send("Input.dispatchKeyEvent", type="keyUp", **{at: key[at] for at in key if at != "text"})

    # -- finding ----------------------------------------------------------------------------------------------------

    def _found(self, **wanted: str) -> list[Message]:
        root = self.send("DOM.getDocument", depth=0)["root"]["backendNodeId"]
        nodes = self.send("Accessibility.queryAXTree", backendNodeId=root, **wanted)["nodes"]
        return [node for node in nodes if not node["ignored"]]

    def _one(self, role: str, name: str) -> int:
        found = self._found(role=role, accessibleName=name)
        assert len(found) == 1, f"{len(found)} of {role} {name!r} on {self.url}:\n{self.text}"
        return int(found[0]["backendDOMNodeId"])

    def _of(self, role: str, name: str, function: str) -> Any:
        thing = self.send("DOM.resolveNode", backendNodeId=self._one(role, name))["object"]["objectId"]
        answer = self.send("Runtime.callFunctionOn", objectId=thing, functionDeclaration=function, returnByValue=True)
        return answer["result"].get("value")
