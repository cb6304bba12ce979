# SPDX-License-Identifier: GPL-3.0-or-later
"""checklist.yml on the deployed example: all nine boxes, and each of them broken once, as the only one that fails.

What is broken is broken in the project's files on the target, so that it is still broken after the reset and the
restart that the list itself begins with.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.support.engine import Engine, unique
from tests.support.playbook import _CALLBACK

# A deploy and a run of the list take a minute or so, and there are ten of them: `make faults` runs it.
pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
STUDIO = ROOT / "examples/studio"
BOXES = ("build", "reset", "restart", "logs", "database", "directories", "workspaces", "visit", "writer")
WEB, POOL = "    command: [web]\n", "    command: [pool]\n"
TEMPLATE = "app/studio/apps/visitors/templates/visitors/writer.html"
LEASE = "from studio.apps.visitors.leases import allocate; allocate('somebody')"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    """A deployed studio, and the inventory that it was deployed with."""

    engine: Engine
    name: str
    folder: Path
    port: int
    before: dict[Path, str] = field(default_factory=dict)

    @property
    def dest(self) -> Path:
        return self.folder / "srv" / self.name

    def write(self) -> None:
        environment = {
            "POSTGRES_USER": "studio",
            "POSTGRES_DB": "studio",
            "POSTGRES_PASSWORD": "only-here",
            "DATABASE_URL": "postgresql://studio:only-here@db:5432/studio",
            "DJANGO_SECRET_KEY": "tests-only",
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
            "STUDIO_WEB_IMAGE": f"{self.name}-web",
            "STUDIO_PUBLISH": f"127.0.0.1:{self.port}",
        }
        template = self.dest / "app/studio/apps/visitors/workspace"
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "deploy_project_src": str(STUDIO),
            "deploy_project_name": self.name,
            "deploy_dest": str(self.dest),
            "deploy_env": environment,
            "deploy_verify_url": f"http://127.0.0.1:{self.port}/healthz",
            "stack_stability": 2,
            "checklist_stability": 2,
            "checklist_environment": "demo",
            "checklist_workspace": {"path": "scitex/writer", "marker": "01_manuscript", "template": str(template)},
        }
        inventory = {"deploy": {"hosts": {"localhost": None}, "vars": variables}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        (self.folder / "callbacks").mkdir()
        (self.folder / "callbacks/recorder.py").write_text(_CALLBACK, encoding="utf-8")

    def play(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "results.jsonl").unlink(missing_ok=True)
        return subprocess.run(
            ["ansible-playbook", f"shipshape.deploy.{name}", "-i", "inventory.yml", "--skip-tags", "engine", *words],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
                "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callbacks"),
                "ANSIBLE_CALLBACKS_ENABLED": "recorder",
                "ANSIBLE_NOCOLOR": "1",
                "RECORDER": str(self.folder / "results.jsonl"),
            },
            capture_output=True,
            text=True,
            timeout=600,
        )

    def checklist(self, *words: str) -> tuple[int, dict[str, tuple[str, str]], str]:
        """The exit code, each box's result and evidence, and all that was printed."""
        done = self.play("checklist", *words)
        output = done.stdout + done.stderr
        records = [json.loads(line) for line in (self.folder / "results.jsonl").read_text().splitlines()]
        shown = [record["msg"] for record in records if record["name"].endswith("Show the list")]
        assert shown, output
        boxes = {}
        for name, line in zip(BOXES, shown[-1], strict=True):
            found = re.fullmatch(
                r"\[([ x])\] \d [^:]+: (passed|failed|refused|not judged|left out)(?: \((.*)\))?", line, re.DOTALL
            )
            assert found, line
            assert (found[1] == "x") == (found[2] == "passed")
            boxes[name] = (found[2], found[3] or "")
        return done.returncode, boxes, output

    def change(self, path: str, old: str, new: str) -> None:
        place = self.dest / path
        text = place.read_text(encoding="utf-8")
        self.before.setdefault(place, text)
        assert old in text, f"{old!r} is not in {path}"
        place.write_text(text.replace(old, new), encoding="utf-8")

    def restore(self) -> None:
        for place, text in self.before.items():
            place.write_text(text, encoding="utf-8")

    def web_first(self, command: str) -> None:
        """Has web run something before it serves: after the reset, and after the pool was looked after."""
        words = ["sh", "-c", f"{command}; exec /app/entrypoint.sh web"]
        self.change("compose.yaml", WEB, f"    command: {json.dumps(words)}\n")

    def inside(self, *words: str) -> str:
        return self.engine.docker("exec", f"{self.name}-web-1", *words).stdout

    def sql(self, statement: str) -> str:
        words = ["psql", "-U", "studio", "-d", "studio", "-tAc", statement]
        return self.engine.docker("exec", f"{self.name}-db-1", *words).stdout.strip()


@pytest.fixture(scope="module")
def deployed(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for image in ("base", "postgres", "caddy"):
        done = subprocess.run([STUDIO / "images/build", "--only", image], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    site = Site(engine, unique("list"), tmp_path_factory.mktemp("list"), free_port())
    site.write()
    try:
        done = site.play("deploy")
        assert done.returncode == 0, done.stdout + done.stderr
        yield site
    finally:
        engine.sweep(site.name)
        shutil.rmtree(site.dest, ignore_errors=True)


@pytest.fixture
def site(deployed: Site) -> Iterator[Site]:
    yield deployed
    deployed.restore()


def only(boxes: dict[str, tuple[str, str]], name: str, result: str = "failed") -> str:
    """The one box that is not ticked; its evidence."""
    unticked = {box: seen for box, seen in boxes.items() if seen[0] != "passed"}
    assert {box: seen[0] for box, seen in unticked.items()} == {name: result}, json.dumps(unticked, indent=1)
    return boxes[name][1]


def test_all_nine_boxes_are_ticked_and_it_is_so(site: Site) -> None:
    started = site.engine.containers(site.name, "web")[0]["State"]["StartedAt"]
    site.sql("UPDATE project_app_visitorallocation SET is_active = true, session_key = 'x' WHERE visitor_number = 9")
    site.inside("sh", "-c", "echo private >/data/users/visitor-009/leftover.txt")
    code, boxes, output = site.checklist()
    assert code == 0, output
    assert {seen[0] for seen in boxes.values()} == {"passed"}
    assert all(evidence for _, evidence in boxes.values())
    # What is so, asked of the things themselves. The list's own visitor had the first slot, and has given it back.
    assert "visitor-001 lent to it, 0 before and 1 after" in boxes["visit"][1]
    assert boxes["visit"][1].endswith("visitor-001 given back")
    assert site.engine.containers(site.name, "web")[0]["State"]["StartedAt"] > started
    counted = "SELECT count(*), count(*) FILTER (WHERE is_active) FROM project_app_visitorallocation"
    assert site.sql(counted) == "32|0"
    assert site.sql("SELECT count(*) FROM auth_user WHERE username ~ '^visitor-0[0-3][0-9]$'") == "32"
    find = (
        "ls -d /data/users/visitor-0??/default-project/scitex/writer/01_manuscript | wc -l; ls /data/users/visitor-009"
    )
    assert site.inside("sh", "-c", find).split() == ["32", "default-project"]
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/writer/", timeout=15) as page:
        assert "visitor-001" in page.read().decode()


def test_what_is_left_out_is_said_and_check_mode_touches_nothing(site: Site) -> None:
    site.sql("UPDATE project_app_visitorallocation SET is_active = false")  # whoever has visited before
    ids = {one["Id"] for one in site.engine.containers(site.name)}
    chosen = json.dumps({"checklist_boxes": ["logs", "database", "directories"]})
    code, boxes, output = site.checklist("-e", chosen)
    assert code == 0, output
    assert [name for name, seen in boxes.items() if seen[0] == "passed"] == ["logs", "database", "directories"]
    code, boxes, output = site.checklist("--check")
    assert code == 0, output
    unjudged = ("build", "reset", "restart", "visit", "writer")
    assert {name: seen[0] for name, seen in boxes.items() if seen[0] != "passed"} == dict.fromkeys(
        unjudged, "not judged"
    ), output
    assert {one["Id"] for one in site.engine.containers(site.name)} == ids
    assert site.sql("SELECT count(*) FROM project_app_visitorallocation WHERE is_active") == "0"


def test_1_an_image_that_cannot_be_built(site: Site) -> None:
    site.change("app/Dockerfile", "USER studio\n", "RUN echo nothing works >&2 && false\nUSER studio\n")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "web" in only(boxes, "build")


def test_2_a_reset_is_refused_in_production(site: Site) -> None:
    site.inside("sh", "-c", "echo precious >/data/users/visitor-009/kept.txt")
    code, boxes, output = site.checklist("-e", "checklist_environment=production")
    assert code != 0
    assert "production" in only(boxes, "reset", "refused") or "force" in boxes["reset"][1]
    assert site.inside("cat", "/data/users/visitor-009/kept.txt") == "precious\n"
    assert "reset refused" in output


def test_3_a_container_that_does_not_stay(site: Site) -> None:
    site.change("compose.yaml", WEB, '    command: [sh, -c, "exit 3"]\n')
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "web" in only(boxes, "restart")


def test_4_a_line_that_was_not_said_since_the_last_start(site: Site) -> None:
    silent = "create_visitor_pool | grep -v ready; echo Visitor pool not so ready"
    site.change("compose.yaml", POOL, f"    command: {json.dumps(['sh', '-c', f'python manage.py {silent}'])}\n")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert f"{site.name}-pool-1" in only(boxes, "logs")


def test_5_a_slot_that_is_lent(site: Site) -> None:
    site.web_first(f'python manage.py shell -v 0 -c "{LEASE}"')
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "1 lent" in only(boxes, "database")


def test_6_a_directory_that_is_missing(site: Site) -> None:
    site.web_first("rm -r /data/users/visitor-017")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "visitor-017 without default-project" in only(boxes, "directories")


def test_7_a_workspace_that_is_missing(site: Site) -> None:
    site.web_first("rm -r /data/users/visitor-032/default-project/scitex/writer/01_manuscript/*")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "visitor-032 without scitex/writer/01_manuscript" in only(boxes, "workspaces")


def test_8_a_page_that_says_high_traffic_with_status_200(site: Site) -> None:
    site.change(TEMPLATE, "<h1>Manuscript</h1>", "<h1>Manuscript</h1><p>High Traffic</p>")
    code, boxes, _ = site.checklist()
    assert code != 0
    # The page is the writer's, too, and has no button: box 9 is not judged, for no visitor got in.
    assert {name: seen[0] for name, seen in boxes.items() if seen[0] != "passed"} == {
        "visit": "failed",
        "writer": "not judged",
    }
    assert "High Traffic" in boxes["visit"][1]


def test_8_a_redirect_to_the_login_is_no_visit(site: Site) -> None:
    site.change("proxy/Caddyfile", ":8080 {\n", ":8080 {\n\tredir /writer/ /auth/login/ 302\n")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert {name: seen[0] for name, seen in boxes.items() if seen[0] != "passed"} == {
        "visit": "failed",
        "writer": "not judged",
    }
    assert f"redirect to http://127.0.0.1:{site.port}/auth/login/" in boxes["visit"][1]
    assert "make the pool" in boxes["visit"][1]


def test_8_a_page_that_lends_nothing_is_no_visit(site: Site) -> None:
    chosen = json.dumps({"checklist_visit_url": f"http://127.0.0.1:{site.port}/"})
    code, boxes, _ = site.checklist("-e", chosen)
    assert code != 0
    assert {name for name, seen in boxes.items() if seen[0] != "passed"} == {"visit", "writer"}
    assert "no slot was lent" in boxes["visit"][1]


def test_only_looking_leaves_all_as_it_was_though_visitors_are_there(site: Site) -> None:
    site.inside("python", "manage.py", "reset_visitor_pool", "--force")  # whatever the boxes before have left
    site.inside("python", "manage.py", "shell", "-v", "0", "-c", LEASE)
    table = "SELECT visitor_number, session_key FROM project_app_visitorallocation WHERE is_active"
    chosen = {"checklist_boxes": ["logs", "database", "directories", "workspaces", "visit", "writer"]}
    # The page's address without its last slash: the site's own redirect is no login.
    chosen["checklist_visit_url"] = f"http://127.0.0.1:{site.port}/writer"
    for _ in range(2):
        code, boxes, output = site.checklist("-e", json.dumps(chosen), "-e", "checklist_environment=production")
        assert code == 0, output
        assert "1 lent, 31 free" in boxes["database"][1]
        assert boxes["visit"][1].endswith("visitor-002 given back")
        assert site.sql(table) == "1|somebody"


def test_9_a_page_that_wants_a_workspace_created(site: Site) -> None:
    site.change(TEMPLATE, "<h1>Manuscript</h1>", "<h1>Manuscript</h1><button>Create Writer Workspace</button>")
    code, boxes, _ = site.checklist()
    assert code != 0
    assert "Create Writer Workspace" in only(boxes, "writer")
