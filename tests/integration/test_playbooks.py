# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml and status.yml, run as a user runs them, on a small project of two services.

The runs are made once, in the order in which a user makes them; each test looks at one of them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.engine import Engine, unique

ROOT = Path(__file__).resolve().parents[2]
SECRET = "Tr0ub4dor&3-horse"
# The forms in which a reader would recognise it, without the characters that are the same in all of them.
SECRET_FORMS = (SECRET, "Tr0ub4dor%263-horse", "Tr0ub4dor\\u00263-horse", "VHIwdWI0ZG9yJjMtaG9yc2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Run:
    rc: int
    output: str

    def recap(self, word: str) -> int:
        found = re.search(rf"^localhost\s.*\b{word}=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found.group(1))

    def summary(self) -> list[str]:
        """The lines that the deploy ends with, without the seconds and without what the page answered."""
        found = re.search(
            r"^TASK \[Say what was done\].*?\"msg\": (\[.*?^    \])", self.output, re.MULTILINE | re.DOTALL
        )
        assert found, self.output
        lines = [re.sub(r", [0-9.]+ s$", "", line) for line in json.loads(found.group(1))]
        return [line for line in lines if " answered " not in line]


@dataclass
class Site:
    """A user's directory on the controller: an inventory and, beside it, a project."""

    folder: Path
    name: str
    port: int
    engine: Engine

    @property
    def dest(self) -> Path:
        return self.folder / "srv" / self.name

    @property
    def source(self) -> Path:
        return self.folder / "shop"

    def write(self, image: str) -> None:
        self.web: dict[str, Any] = {
            "image": image,
            "init": True,
            "command": ["httpd", "-f", "-p", "8080", "-h", "/www"],
            "env_file": [".env.production"],
            "volumes": ["./www:/www:ro"],
            "ports": ["127.0.0.1:${PORT}:8080"],
        }
        self.worker: dict[str, Any] = {
            "image": image,
            "init": True,
            "command": ["sleep", "3600"],
            "depends_on": ["web"],
        }
        (self.source / "www").mkdir(parents=True)
        (self.source / "www/index.html").write_text("Deployed.\n", encoding="utf-8")
        self.compose()
        (self.folder / "health-check.sh").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "deploy_project_src": "./shop",
            "deploy_dest": str(self.dest),
            "deploy_env": {"PORT": self.port, "PASSWORD": SECRET},
            "deploy_scripts": [{"src": "health-check.sh", "dest": str(self.folder / "bin-health-check")}],
            "deploy_verify_url": f"http://127.0.0.1:{self.port}/",
            "stack_stability": 1,
        }
        inventory = {"deploy": {"hosts": {"localhost": None}, "vars": variables}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def compose(self, **worker: Any) -> None:
        """The project's Compose file, with something else about the worker."""
        definition = {"services": {"web": self.web, "worker": {**self.worker, **worker}}}
        (self.source / "compose.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")

    def play(self, name: str, *words: str) -> Run:
        """Runs a playbook by its full name, from a directory that is neither the project's nor the collection's."""
        done = subprocess.run(
            ["ansible-playbook", f"shipshape.deploy.{name}", "-i", str(self.folder / "inventory.yml"), *words],
            cwd=self.folder.parent,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def ids(self) -> dict[str, str]:
        found = self.engine.containers(self.name)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one["Id"] for one in found}


@dataclass
class Story:
    site: Site
    runs: dict[str, Run]
    ids: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def story(engine: Engine, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    site = Site(tmp_path_factory.mktemp("site"), unique("play"), free_port(), engine)
    site.write(busybox)
    told = Story(site, {}, {})
    try:
        told.runs["plan"] = site.play("deploy", "--check", "--diff")
        told.ids["plan"] = site.ids()
        told.runs["planned files"] = Run(int(site.dest.exists()), "")
        told.runs["first"] = site.play("deploy", "-vvv", "--diff")
        told.ids["first"] = site.ids()
        told.runs["second"] = site.play("deploy", "-vvv", "--diff")
        told.ids["second"] = site.ids()
        told.runs["status"] = site.play("status")
        told.runs["second plan"] = site.play("deploy", "--check", "--diff", "-vvv")
        told.runs["wrong url"] = site.play(
            "deploy", "--tags", "verify", "-e", f"verify_timeout=2 deploy_verify_url=http://127.0.0.1:{site.port}/nope"
        )
        site.compose(command=["sleep", "7200"], env_file=["host.env", "www/host.env"])
        for name in ("host.env", "www/host.env"):
            (site.dest / name).write_text("ONLY_ON=the-target\n", encoding="utf-8")
        told.runs["changed plan"] = site.play("deploy", "--check", "--diff", "-vvv")
        told.ids["changed plan"] = site.ids()
        told.runs["changed"] = site.play("deploy")
        told.ids["changed"] = site.ids()
        site.compose(command=["sh", "-c", "echo no database at db:5432; exit 3"])
        told.runs["failed"] = site.play("deploy", "-vvv")
        told.ids["failed"] = site.ids()
        yield told
    finally:
        engine.sweep(site.name)


def test_the_first_plan_says_what_would_be_done(story):
    plan = story.runs["plan"]
    assert plan.rc == 0, plan.output
    assert plan.recap("changed") > 0
    assert "+services:" in plan.output, "the diff does not show the file that is new"
    assert story.site.name in plan.output


def test_a_plan_changes_nothing(story):
    assert story.ids["plan"] == {}
    assert story.runs["planned files"].rc == 0, "the plan has made the project's directory"
    assert "changed=0" not in story.runs["plan"].output


def test_the_deploy_serves_the_page(story):
    first = story.runs["first"]
    assert first.rc == 0, first.output
    assert set(story.ids["first"]) == {"web", "worker"}
    page = subprocess.run(
        ["curl", "-fsS", f"http://127.0.0.1:{story.site.port}/"], capture_output=True, text=True, check=True
    )
    assert page.stdout == "Deployed.\n"


def test_the_deploy_ends_with_the_url_and_what_was_done(story):
    end = story.runs["first"].output.rpartition("TASK [Say what was done]")[2]
    assert f"http://127.0.0.1:{story.site.port}/ answered 200" in end
    assert f"{story.site.name}-web" in end
    assert "health-check" in end


def test_the_container_got_the_secret(story):
    (web,) = story.site.engine.containers(story.site.name, "web")
    assert f"PASSWORD={SECRET}" in web["Config"]["Env"]


def test_a_second_deploy_changes_nothing(story):
    second = story.runs["second"]
    assert second.rc == 0, second.output
    assert second.recap("changed") == 0
    assert story.ids["second"] == story.ids["first"]
    assert "Nothing had to be changed." in second.output


def test_a_plan_with_nothing_to_do_says_so(story):
    plan = story.runs["second plan"]
    assert plan.rc == 0, plan.output
    assert plan.recap("changed") == 0
    assert "Nothing would change." in plan.output


def test_few_tasks(story):
    """Every task costs every host a third of a second: part A allows 30."""
    assert story.runs["second"].output.count("\nTASK [") <= 30


def test_status_shows_each_service(story):
    status = story.runs["status"]
    assert status.rc == 0, status.output
    assert status.recap("changed") == 0
    assert re.search(r'"web +running +1 +none"', status.output), status.output
    assert re.search(r'"worker +running +1 +none"', status.output), status.output


def test_a_page_that_does_not_answer_fails_the_deploy_with_one_clear_line(story):
    wrong = story.runs["wrong url"]
    assert wrong.rc != 0
    assert f"http://127.0.0.1:{story.site.port}/nope answered 404, expected 200" in wrong.output
    assert "Next: " in wrong.output
    assert "Traceback" not in wrong.output


def test_a_plan_is_what_the_deploy_then_does(story):
    """The plan is made from files that are not on the target yet, and some that are only there."""
    plan = story.runs["changed plan"]
    assert plan.rc == 0, plan.output
    assert story.runs["changed"].rc == 0, story.runs["changed"].output
    assert f"containers: recreate {story.site.name}-worker-1" in " ".join(plan.summary())
    assert plan.summary() == story.runs["changed"].summary()
    assert story.ids["changed plan"] == story.ids["second"]


def test_a_plan_leaves_nothing_behind(story):
    assert list(Path(tempfile.gettempdir()).glob("shipshape-plan-*/*" + story.site.name)) == []


def test_a_change_replaces_only_what_it_concerns(story):
    assert story.ids["changed"]["web"] == story.ids["first"]["web"]
    assert story.ids["changed"]["worker"] != story.ids["first"]["worker"]


def test_a_deploy_that_fails_says_why_and_leaves_the_old_containers_running(story):
    failed = story.runs["failed"]
    assert failed.rc != 0
    (line,) = [line for line in failed.output.splitlines() if line.startswith("[ERROR]")]
    assert f"{story.site.name}-worker-1" in line
    assert "exited with code 3" in line
    assert "no database at db:5432" in line
    assert story.ids["failed"] == story.ids["changed"]
    assert "answered 200" not in failed.output, "the deploy went on after its failure"


def test_one_host_that_fails_ends_the_deploy_before_the_next_batch(story):
    site = story.site
    services = {"bad": {"web": {"imaeg": "x"}}, "good": {"web": {**site.worker, "depends_on": []}}}
    for name, one in services.items():
        (site.folder / name).mkdir()
        (site.folder / name / "compose.yaml").write_text(yaml.safe_dump({"services": one}), encoding="utf-8")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "stack_stability": 1}
    dests = {name: site.folder / f"{site.name}-{name}" for name in ("a", "b", "c")}
    sources = {"a": "bad", "b": "good", "c": "good"}
    hosts = {
        name: {**local, "deploy_dest": str(dest), "deploy_project_src": sources[name]} for name, dest in dests.items()
    }
    (site.folder / "hosts.yml").write_text(yaml.safe_dump({"deploy": {"hosts": hosts}}), encoding="utf-8")
    run = site.play("deploy", "-i", str(site.folder / "hosts.yml"), "-e", "deploy_serial=2", "--limit", "a,b,c")
    assert run.rc != 0
    assert "imaeg" in run.output
    assert [name for name, dest in dests.items() if dest.exists()] == ["a", "b"]
    # What is wrong with a was seen before anything of its batch was touched.
    assert [site.engine.containers(f"{site.name}-{name}") for name in "abc"] == [[], [], []]


@pytest.mark.parametrize(
    ("playbook", "inventory", "said"),
    [
        ("deploy", {"servers": {"hosts": {"a": None}}}, "No host matches 'deploy'"),
        ("status", {"servers": {"hosts": {"a": None}}}, "No host matches 'deploy'"),
        ("deploy", {"deploy": {"hosts": {"a": {"deploy_dest": "/x"}, "b": None}}}, "deploy_dest is not set for b."),
    ],
)
def test_an_inventory_that_cannot_mean_anything_is_refused(tmp_path, playbook, inventory, said):
    """Ansible itself skips a play without hosts, and ends with 0."""
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    run = Site(tmp_path, "", 0, Engine()).play(playbook)
    assert run.rc != 0
    assert said in run.output


def test_a_slip_in_a_variables_name_is_told(tmp_path):
    """It would be a deploy without that part, and a success."""
    variables = {"ansible_connection": "local", "deploy_dest": "/x", "deploy_verfiy_url": "http://x/", "deployer": "me"}
    inventory = {"deploy": {"hosts": {"a": variables}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    run = Site(tmp_path, "", 0, Engine()).play("deploy", "--tags", "none")
    assert run.rc == 0, run.output
    assert "reads deploy_verfiy_url. " in run.output
    assert "deploy_verify_url" in run.output


def test_variables_that_are_read_are_no_slip(story):
    assert "look for a slip" not in story.runs["first"].output


@pytest.mark.parametrize(
    "run", ["plan", "first", "second", "status", "second plan", "wrong url", "changed plan", "changed", "failed"]
)
def test_no_run_shows_the_secret(story, run):
    assert [form for form in SECRET_FORMS if form in story.runs[run].output] == []
