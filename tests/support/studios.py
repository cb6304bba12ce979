# SPDX-License-Identifier: GPL-3.0-or-later
"""The example application as plain Compose runs it, for the tests that use it as visitors and operators do."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from tests.support.engine import Engine, unique

STUDIO = Path(__file__).resolve().parents[2] / "examples/studio"
ENVIRONMENT = """\
POSTGRES_USER=studio
POSTGRES_DB=studio
POSTGRES_PASSWORD='p@ss/w#rd'
DATABASE_URL=postgresql://studio:p%40ss%2Fw%23rd@db:5432/studio
DJANGO_SECRET_KEY=tests-only
DJANGO_ALLOWED_HOSTS=127.0.0.1
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Ask until the answer is true; the last answer is part of the failure."""
    deadline = time.monotonic() + seconds
    while not (seen := what()):
        assert time.monotonic() < deadline, f"still {seen!r} after {seconds:.0f} s"
        time.sleep(0.3)
    return seen


@dataclass
class Studio:
    engine: Engine
    name: str
    folder: Path
    url: str

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.compose(self.folder, *words, check=check)

    def container(self, service: str) -> dict[str, Any]:
        return self.engine.containers(self.name, service)[0]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def enqueue(self, kind: str, payload: str) -> int:
        """Puts a task into the queue as a browser would; its number."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        page = browser.open(self.url, timeout=15).read().decode()
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', page)
        assert token, page
        fields = {"csrfmiddlewaretoken": token[1], "kind": kind, "payload": payload}
        request = urllib.request.Request(
            f"{self.url}/tasks/", urllib.parse.urlencode(fields).encode(), {"Origin": self.url}
        )
        page = browser.open(request, timeout=15).read().decode()
        return max(int(number) for number in re.findall(r'href="/tasks/(\d+)"', page))

    def has_state(self, task: int, state: str) -> bool:
        return f'class="state {state}"' in self.get(f"/tasks/{task}")[1]

    def health_check(self, *words: str, **environment: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [
                STUDIO / "health-check.sh",
                "--project",
                self.name,
                "--url",
                f"{self.url}/healthz",
                "--window",
                "1",
                *words,
            ],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)

    def well(self) -> bool:
        return self.health_check()[0] == 0

    def own_tests(self, which: str, leases: int = 640) -> str:
        """What the application's own tests say, run in its image on a database of their own on the stack's server."""
        url = next(line for line in ENVIRONMENT.splitlines() if line.startswith("DATABASE_URL")).split("=", 1)[1]
        environment = {"TEST_DATABASE_URL": url, "STUDIO_TEST_LEASES": str(leases)}
        words = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        tests = ["-v", f"{STUDIO / 'app/tests'}:/app/tests:ro", *words]
        command = ["python", "manage.py", "test", which, "--settings", "tests.settings"]
        done = self.compose("run", "--rm", "--no-deps", *tests, "web", *command, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@contextmanager
def deployed(folder: Path) -> Iterator[Studio]:
    """One stack, its files in `folder`; nothing of it stays."""
    done = subprocess.run([STUDIO / "images/build"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    name, port = unique("studio-test"), free_port()
    for part in ("app", "proxy", "console"):
        shutil.copytree(STUDIO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(STUDIO / "compose.yaml", folder)
    (folder / ".env.production").write_text(ENVIRONMENT)
    engine = Engine(
        env={
            "COMPOSE_PROJECT_NAME": name,
            "STUDIO_WEB_IMAGE": f"{name}-web",
            "STUDIO_PUBLISH": f"127.0.0.1:{port}",
            "STUDIO_CONSOLE_PUBLISH": f"127.0.0.1:{free_port()}",
        }
    )
    stack = Studio(engine, name, folder, f"http://127.0.0.1:{port}")
    try:
        stack.compose("up", "-d", "--wait", "db", "web", "worker", "proxy")
        until(stack.well)
        yield stack
    finally:
        stack.compose("--profile", "infra", "down", "-v", "-t", "2", check=False)
        engine.sweep(name)
