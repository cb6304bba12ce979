# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `visitor_pool` with a git server that is down, refuses, or does its part: the slots are whole all the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.pools import World, make_template, sqlite, told

TOKEN = "gitea-t0ken-of-the-admin"


class Gitea(BaseHTTPRequestHandler):
    """What of Gitea's API the module uses. `refusal`: the status of every POST, 0 to do as asked."""

    users: set[str] = set()
    repositories: set[str] = set()
    refusal = 0

    def log_message(self, *_words: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = self.path.split("/")[3:]
        there = "/".join(parts[1:]) in (self.users if parts[0] == "users" else self.repositories)
        self.answer(200 if there else 404)

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = self.path.split("/")[3:]
        if self.refusal or self.headers["Authorization"] != f"token {TOKEN}":
            self.answer(self.refusal or 401)
        elif parts == ["admin", "users"]:
            self.users.add(document["username"])
            self.answer(201)
        else:
            self.repositories.add(f"{parts[2]}/{document['name']}")
            self.answer(201 if parts[2] in self.users else 404)

    def answer(self, status: int) -> None:
        body = json.dumps({"message": "user does not exist [uid: 0, name: ]"} if status >= 400 else {}).encode()
        self.send_response(status)
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


@pytest.mark.parametrize("required", [False, True])
def test_a_server_that_is_down(world: World, required: bool) -> None:
    result = world.call(git_url="http://127.0.0.1:9", git_token=TOKEN, git_required=required)
    world.is_whole()
    assert bool(result.get("failed")) == required
    assert [at["severity"] for at in result["findings"] if at["code"] == "git-unreachable"] == [
        "critical" if required else "warning"
    ]
    assert result["slots"]["allocatable"] == 3
