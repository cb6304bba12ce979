# SPDX-License-Identifier: GPL-3.0-or-later
"""What the second host looks like, asked over SSH of its own engine and files."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from testinfra.host import Host

FILES = os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]
testinfra_hosts = [f"ssh://second?sudo=true&ssh_config={FILES}/ssh_config"]


@pytest.fixture
def containers(host: Host) -> dict[str, dict[str, Any]]:
    ids = host.check_output("docker ps -q --filter label=com.docker.compose.project=small").split()
    found = json.loads(host.check_output(f"docker inspect {' '.join(ids)}"))
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}


def test_it_is_the_second_host(host: Host) -> None:
    assert host.check_output("hostname") == "second"


def test_both_services_run_there(containers: dict[str, dict[str, Any]]) -> None:
    states = {name: (one["State"]["Status"], one["RestartCount"]) for name, one in containers.items()}
    assert states == {"web": ("running", 0), "worker": ("running", 0)}


def test_the_container_has_the_values_that_the_inventory_gave(containers: dict[str, dict[str, Any]]) -> None:
    assert "GREETING=good evening" in containers["web"]["Config"]["Env"]


def test_the_page_is_served_there(host: Host) -> None:
    assert "Deployed" in host.check_output("wget -q -O - http://127.0.0.1:8080/")


def test_files_are_whole_and_root_owns_them(host: Host) -> None:
    page = host.file("/srv/small/www/index.html")
    assert page.user == "root"
    assert page.content_string.endswith("looked at.\n")
    assert host.file("/srv/small/.env.production").mode == 0o600


def test_nothing_temporary_is_left(host: Host) -> None:
    found = host.check_output("find /tmp /var/tmp /srv /home/deployer -name '*shipshape*' -newer /etc/hostname -type f")
    assert found == ""
