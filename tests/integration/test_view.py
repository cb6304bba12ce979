# SPDX-License-Identifier: GPL-3.0-or-later
"""The filtered view of the engine by itself: what it shows, what it refuses, and what becomes of its socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.successor import Place
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Scene
from tests.support.engine import BUSYBOX, SOCKET, Engine, Project
from tests.support.stacks import Stack, api, codes, service
from tests.support.views import PIECE, UnixConnection, ask, view_of, view_process

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


def test_a_refusal_with_a_body_does_not_upset_what_follows(fake_engine: str) -> None:
    """The unread body must not be taken for the next request on the same connection."""
    with view_of(fake_engine) as view:
        connection = UnixConnection(view.address)
        hidden = b"POST /build HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
        connection.request("POST", "/containers/x/stop", hidden)
        assert connection.getresponse().read()
        connection.request("GET", "/chunked/1")
        assert connection.getresponse().read() == PIECE
        connection.close()
        assert view.refused == ["POST /containers/x/stop"]


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
