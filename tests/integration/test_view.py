# SPDX-License-Identifier: GPL-3.0-or-later
"""The filtered view of the engine by itself: what it shows, what it refuses, and that it is as good as the engine.

Bodies, chunks and upgrades are tried against an engine of our own making, which can count every byte and wait at any
point; everything else against the real one.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import Connection
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import Endpoint
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view import View
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Place, Scene
from tests.support.engine import BUSYBOX, SOCKET, Engine, Project
from tests.support.modules import TREE
from tests.support.stacks import Stack, api, codes, service

MEGABYTE = 1 << 20
PIECE = bytes(range(256)) * 4096  # 1 MB in which no two neighbouring bytes are equal


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("view", timeout=60)
        self.path = address.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """(status, JSON of the answer) of one request."""
    connection = UnixConnection(address)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else None
    finally:
        connection.close()


def view_of(host: str = SOCKET, scene: Scene | None = None) -> View:
    return View(Connection(Endpoint(host=host)), scene or Scene({}, {}))


@contextmanager
def view_process(host: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A view in a process of its own, so that its memory can be measured and its death arranged."""
    script = (
        "import sys\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import Connection\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import Endpoint\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view import View\n"
        "from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Scene\n"
        "with View(Connection(Endpoint(host=sys.argv[1])), Scene({}, {})) as view:\n"
        "    print(view.address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        if process.poll() is None:
            process.communicate(timeout=20)


def peak(process: subprocess.Popen[str]) -> int:
    """The most memory that the process ever held, in bytes."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as handle:
        [line] = [line for line in handle if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# -- an engine of our own making --------------------------------------------------------------------------------------


class FakeEngine(BaseHTTPRequestHandler):
    """Digests what it is sent, sends what it is asked for, and speaks freely after an upgrade."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        if "upgrade" in self.headers.get("Connection", "").lower():
            self._upgraded()
            return
        digest, total = hashlib.sha256(), 0
        for piece in self._body():
            digest.update(piece)
            total += len(piece)
        self._json({"sha256": digest.hexdigest(), "bytes": total, "headers": dict(self.headers.items())})

    def do_GET(self) -> None:
        what, _, number = self.path.strip("/").partition("/")
        if what == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(int(number)):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
            self.wfile.write(b"0\r\n\r\n")
        elif what == "sized":
            self.send_response(200)
            self.send_header("Content-Length", str(int(number) * len(PIECE)))
            self.end_headers()
            for _ in range(int(number)):
                self.wfile.write(PIECE)
        elif what == "slow":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            self.go_on.wait(30)
            self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")
        elif what == "break":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        elif what == "drop":
            self.close_connection = True

    def _upgraded(self) -> None:
        """Repeats in capitals what it hears, and has the last word when the other side has ended."""
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", self.headers["Upgrade"])
        self.end_headers()
        self.close_connection = True
        while piece := self.rfile.read1(65536):  # type: ignore[attr-defined]
            self.wfile.write(piece.upper())
        self.wfile.write(b"<END>")

    def _body(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            left = int(self.headers.get("Content-Length") or 0)
            while left:
                piece = self.rfile.read(min(left, 65536))
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _json(self, document: Any) -> None:
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class FakeServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="sv-")
    FakeEngine.go_on.clear()
    server = FakeServer(f"{folder}/s", FakeEngine)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"unix://{folder}/s"
    finally:
        FakeEngine.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
        shutil.rmtree(folder)


# -- what it shows and what it refuses --------------------------------------------------------------------------------


@pytest.fixture
def standing(engine: Engine, busybox: str, prefix: str) -> str:
    """The id of a container that stands where another is to come."""
    labels = ["--label", "com.docker.compose.service=web", "--label", f"com.docker.compose.project={prefix}"]
    return engine.docker("run", "-d", "--name", f"{prefix}-web-1", *labels, busybox, "sleep", "600").stdout.strip()


def scene_of(prefix: str, standing: str) -> Scene:
    place = Place(1, f"{prefix}-web-1", replaces=standing)
    return Scene({"web": {1: place}}, {"web": {"our.label": "here"}}, frozenset({standing}))


def creation(prefix: str, service: str = "web", number: str = "1") -> dict[str, Any]:
    labels = {"com.docker.compose.service": service, "com.docker.compose.container-number": number}
    labels["com.docker.compose.project"] = prefix
    return {"Image": BUSYBOX, "Cmd": ["sleep", "600"], "Labels": labels}


def test_it_hides_what_is_replaced_and_renames_what_is_created(prefix: str, standing: str) -> None:
    scene = scene_of(prefix, standing)
    filters = f"filters={json.dumps({'label': [f'com.docker.compose.project={prefix}']})}".replace(" ", "")
    filters = filters.replace('"', "%22").replace("{", "%7B").replace("}", "%7D")
    with view_of(scene=scene) as view:
        assert ask(view.address, "GET", f"/v1.44/containers/json?all=1&{filters}") == (200, [])
        status, made = ask(view.address, "POST", f"/v1.44/containers/create?name={prefix}-web-1", creation(prefix))
        assert status == 201, made
        [listed] = ask(view.address, "GET", f"/containers/json?all=1&{filters}")[1]
        assert (listed["Id"], listed["Names"]) == (made["Id"], [f"/{prefix}-web-1"])
        assert ask(view.address, "GET", f"/v1.44/containers/{made['Id']}/json")[1]["Name"] == f"/{prefix}-web-1"
        assert view.refused == []
    real = api(SOCKET).inspect_container(made["Id"])
    assert real["Name"] == f"/{prefix}-web-1.shipshape-new"
    assert real["Config"]["Labels"]["our.label"] == "here"
    old = api(SOCKET).inspect_container(standing)
    assert (old["Name"], old["State"]["Running"]) == (f"/{prefix}-web-1", True)
    assert scene.created[made["Id"]].place.name == f"{prefix}-web-1"


REFUSED = [
    ("DELETE", "/containers/{id}"),
    ("DELETE", "/v1.44/containers/{id}?force=1"),
    ("POST", "/containers/{id}/stop"),
    ("POST", "/v1.45/containers/{id}/start"),
    ("POST", "/containers/{id}/kill"),
    ("POST", "/containers/{id}/restart"),
    ("POST", "/containers/{id}/rename?name=other"),
    ("POST", "/containers/{id}/update"),
    ("POST", "/containers/{id}/exec"),
    ("POST", "/exec/0123/start"),
    ("PUT", "/containers/{id}/archive?path=/"),
    ("DELETE", "/networks/bridge"),
    ("DELETE", "/volumes/some"),
    ("DELETE", "/images/some"),
    ("POST", "/containers/prune"),
    ("POST", "/swarm/init"),
    ("POST", "/v9.99/containers/{id}/some-new-thing"),
    ("PATCH", "/containers/{id}"),
    ("POST", "//containers/{id}/stop"),
    ("POST", "/v1.44/../containers/{id}/stop"),
    ("POST", "/containers/{id}/%73top"),
]


def test_it_refuses_whatever_creating_does_not_need(prefix: str, standing: str) -> None:
    before = api(SOCKET).inspect_container(standing)
    with view_of(scene=scene_of(prefix, standing)) as view:
        for method, path in REFUSED:
            status, said = ask(view.address, method, path.replace("{id}", standing))
            assert status == 403, (method, path, status, said)
            assert "shipshape.deploy" in said["message"]
        assert len(view.refused) == len(REFUSED)
        for request, (method, path) in zip(view.refused, REFUSED, strict=True):
            # (Python's HTTP server takes two slashes at the beginning for one.)
            assert request == f"{method} {path.replace('{id}', standing).partition('?')[0]}".replace("//", "/")
        # A method that nobody has heard of does not get through either.
        connection = UnixConnection(view.address)
        connection.request("FROBNICATE", f"/containers/{standing}/stop")
        assert connection.getresponse().status in (403, 501)
        connection.close()
    after = api(SOCKET).inspect_container(standing)
    assert (after["Name"], after["State"]) == (before["Name"], before["State"])


@pytest.mark.parametrize(("service", "number"), [("other", "1"), ("web", "2"), ("web", "x"), ("", "")])
def test_it_refuses_a_container_that_is_not_in_the_plan(prefix: str, standing: str, service: str, number: str) -> None:
    with view_of(scene=scene_of(prefix, standing)) as view:
        status, _ = ask(view.address, "POST", f"/containers/create?name={prefix}-x", creation(prefix, service, number))
        assert status == 403
        assert len(view.refused) == 1
    assert len(api(SOCKET).containers(all=True, filters={"name": f"^/{prefix}"})) == 1


def test_a_refusal_with_a_body_does_not_upset_what_follows(fake: str) -> None:
    """The unread body must not be taken for the next request on the same connection."""
    with view_of(fake) as view:
        connection = UnixConnection(view.address)
        hidden = b"POST /build HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        connection.request("POST", "/containers/x/stop", hidden)
        assert connection.getresponse().read()
        connection.request("GET", "/chunked/1")
        assert connection.getresponse().read() == PIECE
        connection.close()
        assert view.refused == ["POST /containers/x/stop"]


# -- bodies -----------------------------------------------------------------------------------------------------------


def sent(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def test_large_bodies_pass_through_whole_and_are_not_held_in_memory(fake: str) -> None:
    count = 300
    digest = hashlib.sha256()
    for piece in sent(count):
        digest.update(piece)
    wanted = {"sha256": digest.hexdigest(), "bytes": count * MEGABYTE}
    with view_process(fake) as (address, process):
        assert ask(address, "POST", "/build")[0] == 200
        idle = peak(process)
        connection = UnixConnection(address)
        for headers in ({"Content-Length": str(count * MEGABYTE)}, {"Transfer-Encoding": "chunked"}):
            connection.putrequest("POST", "/images/load")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent(count), encode_chunked="Transfer-Encoding" in headers)
            got = json.loads(connection.getresponse().read())
            assert {name: got[name] for name in wanted} == wanted
            assert headers.items() <= got["headers"].items()
        for kind in ("sized", "chunked"):
            connection.request("GET", f"/{kind}/{count}")
            answer, down = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(MEGABYTE):
                down.update(piece)
            assert down.hexdigest() == wanted["sha256"], kind
        connection.close()
        grown = (peak(process) - idle) // MEGABYTE
        assert grown < 80, f"{grown} MB more for a body of {count} MB"


def test_answers_are_passed_on_as_they_come(fake: str) -> None:
    with view_of(fake) as view:
        connection = UnixConnection(view.address)
        connection.request("GET", "/slow")
        answer = connection.getresponse()
        assert answer.read1(100) == b"first", "the beginning was kept back until the end had come"
        FakeEngine.go_on.set()
        assert answer.read() == b"second"
        connection.close()


def test_an_engine_that_breaks_off_is_an_error_and_not_a_short_answer(fake: str) -> None:
    with view_of(fake) as view:
        status, said = ask(view.address, "GET", "/drop")
        assert status == 502
        assert "engine" in said["message"]
        connection = UnixConnection(view.address)
        connection.request("GET", "/break")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            connection.getresponse().read()
        connection.close()


def test_after_an_upgrade_both_sides_speak_freely(fake: str) -> None:
    with view_of(fake) as view:
        connection = UnixConnection(view.address)
        connection.putrequest("POST", "/session")
        for name, value in (("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Content-Length", "0")):
            connection.putheader(name, value)
        connection.endheaders()
        stream = connection.sock
        # What is said at once after the request must not be lost.
        stream.sendall(b"hello ")
        reader = stream.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += reader.readline()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"upgrade: h2c" in head.lower()
        assert reader.read(6) == b"HELLO "
        big = b"abcdefgh" * MEGABYTE
        threading.Thread(target=lambda: (stream.sendall(big), stream.shutdown(socket.SHUT_WR)), daemon=True).start()
        assert reader.read(len(big)) == big.upper()
        assert reader.read() == b"<END>", "the other side has the last word after ours has ended"
        stream.close()


def test_sixty_at_once(engine: Engine) -> None:
    """Compose asks for all services side by side, each over a connection of its own."""
    count = 60
    barrier = threading.Barrier(count)
    answers: list[Any] = []

    def one() -> None:
        connection = UnixConnection(view.address)
        barrier.wait()
        for _ in range(3):
            connection.request("GET", "/containers/json?limit=1")
            answer = connection.getresponse()
            answers.append((answer.status, isinstance(json.loads(answer.read()), list)))
        connection.close()

    with view_of() as view:
        threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert answers == [(200, True)] * (3 * count)


def test_docker_itself_works_through_an_empty_view(engine: Engine, project: Project) -> None:
    """Load, an image out of BuildKit, and a listing: with the real command line, as Compose does it."""
    (project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY big /big\n", encoding="utf-8")
    (project.folder / "big").write_bytes(os.urandom(24 * MEGABYTE))
    image = f"{project.name}-built:1"
    project.write({"services": {"web": {"image": image, "build": "."}}})
    with view_of() as view:
        through = Engine(host=view.address)
        assert through.docker("version", "--format", "{{.Server.Version}}").stdout
        through.compose(project.folder, "--project-name", project.name, "build", "--quiet")
        saved = project.folder / "image.tar"
        through.docker("save", "-o", str(saved), image)
        engine.docker("rmi", image)
        through.docker("load", "-i", str(saved))
        assert view.refused == []
    assert saved.stat().st_size > 24 * MEGABYTE
    assert engine.docker("run", "--rm", image, "wc", "-c", "/big").stdout.split()[0] == str(24 * MEGABYTE)
    classic = Engine(env={"DOCKER_BUILDKIT": "0"})
    with view_of() as view:
        classic.host = view.address
        classic.docker("build", "-q", "-t", f"{project.name}-classic:1", str(project.folder))
    assert engine.docker("image", "inspect", f"{project.name}-classic:1").returncode == 0


# -- the socket -------------------------------------------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="svt-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_the_socket_is_private_and_gone_afterwards(temporary: Path) -> None:
    before = os.umask(0)
    try:
        with view_of() as view:
            path = Path(view.address.removeprefix("unix://"))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert ask(view.address, "GET", "/version")[0] == 200
    finally:
        os.umask(before)
    assert list(temporary.iterdir()) == []
    with pytest.raises(OSError):
        ask(view.address, "GET", "/version")
    with pytest.raises(ZeroDivisionError), view_of():
        raise ZeroDivisionError
    assert list(temporary.iterdir()) == [], "an exception left the socket behind"


def test_what_a_killed_view_left_is_swept_by_the_next(temporary: Path) -> None:
    (temporary / "shipshape-view-notes").mkdir()
    (temporary / f"shipshape-view-{os.getpid()}-living").mkdir()
    with view_process(SOCKET) as (address, process):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        left = Path(address.removeprefix("unix://")).parent
        assert left.exists()
    with view_of():
        assert not left.exists()
        assert (temporary / "shipshape-view-notes").exists(), "not every name that begins like ours is ours"
        assert (temporary / f"shipshape-view-{os.getpid()}-living").exists(), "another view is still at work there"


def test_a_long_temporary_directory_does_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket's path may have 107 bytes."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with view_of() as view:
        assert ask(view.address, "GET", "/version")[0] == 200


# -- a Compose that nobody has seen -----------------------------------------------------------------------------------

ODD = """#!{python}
import http.client, os, socket, sys
words = sys.argv[1:]
if words[:1] == ["compose"] and "create" in words:
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    connection.request("{method}", "{path}", "{{}}", {{"Content-Type": "application/json"}})
    answer = connection.getresponse()
    if "{manner}" == "fails":
        sys.exit("Error response from daemon: " + answer.read().decode())
os.execv("{docker}", ["docker", *words])
"""


ODD_REQUESTS = [
    ("POST", "/v1.45/containers/{id}/stop"),
    ("DELETE", "/v1.45/containers/{id}?force=1"),
    ("POST", "/v2.0/everything/better"),
    ("POST", "/v1.45/containers/create?name=unheard-of"),
]


@pytest.mark.parametrize("manner", ["fails", "goes-on"])
def test_a_compose_that_does_more_than_create_is_stopped(project: Project, tmp_path: Path, manner: str) -> None:
    stack = Stack(project)
    stack.write({"web": service(), "db": service()})
    stack.deploy()
    before = stack.snapshot()
    stack.write({"web": service(environment={"A": "1"}), "db": service()})
    odd = tmp_path / "bin" / "docker"
    odd.parent.mkdir()
    stack.env["PATH"] = f"{odd.parent}:{os.environ['PATH']}"
    for method, path in ODD_REQUESTS:
        words = {"method": method, "path": path.replace("{id}", stack.container("web")["Id"]), "manner": manner}
        words |= {"python": sys.executable, "docker": shutil.which("docker") or ""}
        odd.write_text(ODD.format(**words), encoding="utf-8")
        odd.chmod(0o755)
        result = stack.fails()
        assert "compose-unexpected-request" in codes(result), (method, path, result)
        named = "unheard-of" if "create" in path else f"{method} {path.partition('{')[0]}"
        assert named in result["msg"]
        assert result["changed"] is False
        assert stack.snapshot() == before, (method, path)
    del stack.env["PATH"]
    assert stack.deploy()["changed"], "with a Compose that we know it goes on"
