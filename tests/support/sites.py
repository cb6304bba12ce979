# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that does as it likes, its pool in SQLite, and role checklist played on it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.playbook import Played, play
from tests.support.pools import World, make_template, sqlite

SIZE = 4
LOOKS = ["database", "directories", "workspaces", "visit", "writer"]


@dataclass
class Site:
    """An application: what it answers to whom is one function, `answer`."""

    world: World
    port: int = 0
    answer: Callable[[Site, str, str], tuple[int, dict[str, str], str]] | None = None
    sessions: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def lend(self) -> tuple[int, str]:
        """A slot for a new visitor, as another process would take it."""
        own = World(sqlite(Path(self.world.database.url.removeprefix("sqlite:///"))), self.world.root, Path(), SIZE)
        found = own.visit()
        own.database.close()
        assert found is not None
        self.sessions[found[1]] = found[0]
        return found[:2]

    def lent(self) -> list[int]:
        rows = self.world.sql("SELECT visitor_number FROM project_app_visitorallocation WHERE is_active ORDER BY 1")
        return [number for (number,) in rows]


def works(site: Site, path: str, session: str) -> tuple[int, dict[str, str], str]:
    number, headers = site.sessions.get(session), {}
    if number is None:
        number, key = site.lend()
        headers = {"Set-Cookie": f"sessionid={key}; Path=/; HttpOnly"}
    return 200, headers, f"<p>You write as visitor-{number:03d}</p>"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "users"
    root.mkdir()
    database = sqlite(tmp_path / "app.db")
    database.make()
    world = World(database, root, make_template(tmp_path), SIZE)
    assert not world.call().get("failed")
    made = Site(world)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookie = SimpleCookie(self.headers.get("Cookie", ""))
            session = cookie["sessionid"].value if "sessionid" in cookie else ""
            made.asked.append(self.path)
            assert made.answer is not None
            status, headers, body = made.answer(made, self.path, session)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
    database.close()


def variables(site: Site, boxes: list[str], **more: Any) -> dict[str, Any]:
    return {
        "checklist_boxes": boxes,
        "checklist_service": "",
        "checklist_data_service": "",
        "checklist_database_url": site.world.database.url,
        "checklist_data_root": str(site.world.root),
        "checklist_size": SIZE,
        "checklist_workspace": {
            "path": "scitex/writer",
            "marker": "01_manuscript",
            "template": str(site.world.template),
        },
        "checklist_url": site.url,
        **more,
    }


def read(played: Played) -> dict[str, tuple[str, str]]:
    """Each box that was looked at: its result and the evidence."""
    shown = [record["msg"] for record in played.results if record["name"].endswith("Show the list")]
    assert shown, played.output
    boxes = {}
    names = ("build", "reset", "restart", "logs", "database", "directories", "workspaces", "visit", "writer")
    for name, line in zip(names, shown[-1], strict=True):
        found = re.fullmatch(r"\[[ x]\] \d [^:]+: ([a-z ]+?)(?: \((.*)\))?", line, re.DOTALL)
        assert found, line
        if found[1] != "left out":
            boxes[name] = (found[1], found[2] or "")
    return boxes


def go(
    site: Site, folder: Path, boxes: list[str], *options: str, **more: Any
) -> tuple[int, dict[str, tuple[str, str]], str]:
    task = {"ansible.builtin.import_role": {"name": "shipshape.deploy.checklist"}}
    played = play(folder / "play", task, options=list(options), vars=variables(site, boxes, **more))
    return played.rc, read(played), played.output


def results(boxes: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: seen[0] for name, seen in boxes.items()}
