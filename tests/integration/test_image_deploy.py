# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml on a project whose image is built from an entrypoint: a changed one, and one that says what is not so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.engine import BUSYBOX, Engine, Project

ROOT = Path(__file__).resolve().parents[2]
SERVES = "mkdir -p /tmp/www && echo {page} > /tmp/www/index.html\nexec httpd -f -p 8080 -h /tmp/www\n"
# As the seed's: what fails is swallowed, and the line that everybody looks for is printed all the same.
LIES = "(false) 2>/dev/null || true\necho 'Visitor pool ready'\nmkdir -p /tmp/www\nexec httpd -f -p 8080 -h /tmp/www\n"


@dataclass
class Site:
    """A user's directory: an inventory, and beside it a project of one service."""

    folder: Path
    name: str
    engine: Engine

    def entrypoint(self, script: str) -> None:
        path = self.folder / "shop/entrypoint.sh"
        path.write_text(f"#!/bin/sh\n{script}", encoding="utf-8")
        path.chmod(0o755)

    def write(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (self.folder / "shop").mkdir()
        dockerfile = f'FROM {BUSYBOX}\nCOPY entrypoint.sh /entrypoint.sh\nENTRYPOINT ["/entrypoint.sh"]\n'
        (self.folder / "shop/Dockerfile").write_text(dockerfile, encoding="utf-8")
        web = {"build": ".", "init": True, "ports": [f"127.0.0.1:{port}:8080"]}
        (self.folder / "shop/compose.yaml").write_text(yaml.safe_dump({"services": {"web": web}}), encoding="utf-8")
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "deploy_project_src": "./shop",
            "deploy_dest": str(self.folder / "srv" / self.name),
            "deploy_verify_url": f"http://127.0.0.1:{port}/",
            "verify_timeout": 4,
            "verify_delay": 1,
            "stack_stability": 0.5,
        }
        inventory = {"deploy": {"hosts": {"localhost": None}, "vars": variables}}
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def deploy(self) -> tuple[int, str]:
        done = subprocess.run(
            ["ansible-playbook", "shipshape.deploy.deploy", "-i", "inventory.yml", "--skip-tags", "engine"],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def container(self) -> tuple[str, str]:
        """Id of the container, and what its entrypoint holds."""
        (document,) = self.engine.containers(self.name, "web")
        inside = self.engine.docker("exec", document["Id"], "cat", "/entrypoint.sh").stdout
        return document["Id"], inside


@pytest.fixture
def site(project: Project) -> Site:
    made = Site(project.folder, project.name, project.engine)
    made.write()
    return made


def test_a_changed_entrypoint_is_built_and_a_lying_one_fails(site: Site) -> None:
    site.entrypoint(SERVES.format(page="one"))
    code, said = site.deploy()
    assert code == 0, said
    first, _ = site.container()

    code, said = site.deploy()
    assert (code, site.container()[0]) == (0, first), said
    assert "changed=0" in said, said

    site.entrypoint(SERVES.format(page="two"))
    code, said = site.deploy()
    second, inside = site.container()
    assert (code, second != first, "echo two" in inside) == (0, True, True), said
    code, said = site.deploy()
    assert (code, "changed=0" in said) == (0, True), said

    site.entrypoint(LIES)
    code, said = site.deploy()
    assert "Visitor pool ready" in site.engine.docker("logs", site.container()[0]).stdout, (
        "the log says that all is well"
    )
    assert code != 0, f"a log line is no proof: {said}"
    assert "404" in said
