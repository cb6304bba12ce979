# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` with a git server that is down, refuses, or does its part: the slots are whole all the same."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.pools import World, make_template, sqlite, told
from tests.support.transports import listener, saying

TOKEN = "gitea-t0ken-of-the-admin"


class Gitea(BaseHTTPRequestHandler):
    """What of Gitea's API the module uses. `refusal`: the status of every POST, 0 to do as asked."""

    users: set[str] = set()
    repositories: set[str] = set()
    refusal = 0
    refused: set[str] = set()  # whose account it will not make
    quicker: set[str] = set()  # whose repository somebody else makes between our question and our request
    echo = ""  # what it says of the request
    moved = ""  # where it sends everybody

    def log_message(self, *_words: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.moved:
            self.answer(302)
            return
        parts = self.path.split("/")[3:]
        there = "/".join(parts[1:]) in (self.users if parts[0] == "users" else self.repositories)
        self.answer(200 if there else 404)

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = self.path.split("/")[3:]
        if self.refusal or self.headers["Authorization"] != f"token {TOKEN}":
            self.answer(self.refusal or 401)
        elif document.get("username") in self.refused:
            self.answer(422)
        elif parts == ["admin", "users"]:
            self.users.add(document["username"])
            self.answer(201)
        elif parts[2] in self.quicker:
            self.answer(409)
        else:
            self.repositories.add(f"{parts[2]}/{document['name']}")
            self.answer(201 if parts[2] in self.users else 404)

    def answer(self, status: int) -> None:
        body = json.dumps(
            {"message": f"user does not exist [uid: 0, name: ]{self.echo}"} if status >= 400 else {}
        ).encode()
        self.send_response(status)
        if self.moved:
            self.send_header("Location", self.moved + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def gitea() -> Iterator[type[Gitea]]:
    class Fresh(Gitea):
        users: set[str] = set()
        repositories: set[str] = set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    Fresh.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Fresh
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = sqlite(tmp_path / "app.db")
    made.make()
    (tmp_path / "users").mkdir()
    yield World(made, tmp_path / "users", make_template(tmp_path / "template"), size=3, secrets=[TOKEN])
    made.close()


def test_accounts_and_repositories(world: World, gitea: type[Gitea]) -> None:
    world.well()
    options = {"git_url": gitea.url, "git_token": TOKEN}  # type: ignore[attr-defined]
    foretold = world.call(check=True, **options)
    result = world.call(**options)
    assert told(foretold) == told(result)
    assert gitea.users == {"visitor-001", "visitor-002", "visitor-003"}
    assert gitea.repositories == {f"{name}/default-project" for name in gitea.users}
    assert not world.call(**options)["changed"]
    gitea.repositories.remove("visitor-002/default-project")
    again = world.call(**options)
    assert told(again) == [("create-git-repository", "visitor-002", "the git server has none")]


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("status", [404, 422, 500])
def test_a_server_that_refuses(world: World, gitea: type[Gitea], status: int, required: bool) -> None:
    gitea.refusal = status
    result = world.call(git_url=gitea.url, git_token=TOKEN, git_required=required)  # type: ignore[attr-defined]
    world.is_whole()
    assert bool(result.get("failed")) == required
    [found] = [at for at in result["findings"] if at["code"] == "git-refused"]
    assert found["severity"] == ("critical" if required else "warning")
    assert str(status) in found["message"]
    assert "user does not exist" in found["message"]
    again = world.call(git_url=gitea.url, git_token=TOKEN, git_required=required)  # type: ignore[attr-defined]
    assert not again["changed"], "nothing was made"


@pytest.mark.parametrize("required", [False, True])
def test_a_server_that_is_down(world: World, required: bool) -> None:
    result = world.call(git_url="http://127.0.0.1:9", git_token=TOKEN, git_required=required)
    world.is_whole()
    assert bool(result.get("failed")) == required
    assert [at["severity"] for at in result["findings"] if at["code"] == "git-unreachable"] == [
        "critical" if required else "warning"
    ]
    assert result["slots"]["allocatable"] == 3


@pytest.mark.parametrize("required", [False, True])
def test_one_that_is_refused_keeps_nobody_from_the_others(world: World, gitea: type[Gitea], required: bool) -> None:
    gitea.refused = {"visitor-001", "visitor-003"}
    result = world.call(git_url=gitea.url, git_token=TOKEN, git_required=required)  # type: ignore[attr-defined]
    assert gitea.repositories == {"visitor-002/default-project"}
    [found] = [at for at in result["findings"] if at["code"] == "git-refused"]
    assert found["subject"] == "visitor-001"
    assert "as for 1 more" in found["message"]
    assert bool(result.get("failed")) == required


def test_a_server_that_says_the_token_aloud(world: World, gitea: type[Gitea]) -> None:
    gitea.refusal, gitea.echo = 422, f" {TOKEN} {base64.b64encode(TOKEN.encode()).decode()}"
    result = world.call(git_url=gitea.url, git_token=TOKEN)  # type: ignore[attr-defined]
    assert "git-refused" in {at["code"] for at in result["findings"]}  # `call` looks whether it can be read


def test_somebody_else_makes_the_repository_at_this_moment(world: World, gitea: type[Gitea]) -> None:
    gitea.quicker = {"visitor-002"}
    result = world.call(git_url=gitea.url, git_token=TOKEN, git_required=True)  # type: ignore[attr-defined]
    assert not result.get("failed"), result["msg"]


def test_a_server_that_does_not_know_the_token(world: World, gitea: type[Gitea]) -> None:
    result = world.call(git_url=gitea.url, git_token="another")  # type: ignore[attr-defined]
    world.is_whole()
    [found] = [at for at in result["findings"] if at["code"] == "git-refused"]
    assert found["subject"] == gitea.url  # type: ignore[attr-defined]
    assert "git_token" in found["remedy"]


def test_the_token_goes_nowhere_else(world: World, gitea: type[Gitea]) -> None:
    """Whoever follows a redirection takes his headers along."""
    heard: list[str] = []

    class Elsewhere(Gitea):
        def do_GET(self) -> None:
            heard.append(str(self.headers))
            self.answer(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        gitea.moved = f"http://localhost:{other.server_address[1]}"
        result = world.call(git_url=gitea.url, git_token=TOKEN)  # type: ignore[attr-defined]
        other.shutdown()
    assert heard == []
    [found] = [at for at in result["findings"] if at["code"] == "git-refused"]
    assert gitea.moved in found["message"]


def test_a_slot_that_failed_is_told_beside_the_git_servers_refusal(world: World) -> None:
    (world.root / "visitor-002").write_text("in the way")
    result = world.call(git_url="http://127.0.0.1:9", git_required=True)
    assert result["failed"]
    assert {at["code"] for at in result["findings"] if at["severity"] == "critical"} >= {
        "git-unreachable",
        "slot-not-made",
    }
    assert "visitor-002" in result["msg"]


def test_no_url_is_told_before_anything_is_done(world: World) -> None:
    result = world.call(git_url="git@example.org:x")
    assert result["failed"]
    assert not result["changed"]
    assert "git_url" in result["msg"]


def test_a_git_server_that_does_not_speak_http(light: World) -> None:
    with listener(socket.AF_INET, ("127.0.0.1", 0), saying(b"SSH-2.0-OpenSSH_9.2\r\n")) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        result = light.call(git_url=url)
        assert not result.get("failed")
        [found] = [at for at in result["findings"] if at["code"] == "git-unreachable"]
        assert found["severity"] == "warning"
        assert light.call(git_url=url, git_required=True)["failed"]
    light.is_whole()
