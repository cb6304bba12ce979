# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host looks like after the story, asked of the engine and the files and not of our own report."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

HERE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
DEST = HERE / "srv/shipshape-molecule"
testinfra_hosts = ["local://"]


@pytest.fixture
def containers(host: Host) -> dict[str, dict[str, Any]]:
    ids = host.check_output("docker ps -q --filter label=com.docker.compose.project=shipshape-molecule").split()
    found = json.loads(host.check_output(f"docker inspect {' '.join(ids)}"))
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}


def test_both_services_run_and_have_never_restarted(containers: dict[str, dict[str, Any]]) -> None:
    states = {name: (one["State"]["Status"], one["RestartCount"]) for name, one in containers.items()}
    assert states == {"web": ("running", 0), "worker": ("running", 0)}


def test_names_are_those_of_compose(containers: dict[str, dict[str, Any]]) -> None:
    assert {one["Name"] for one in containers.values()} == {"/shipshape-molecule-web-1", "/shipshape-molecule-worker-1"}


def test_only_the_changed_service_was_replaced(containers: dict[str, dict[str, Any]]) -> None:
    before = dict(line.split("=") for line in (HERE / "before").read_text(encoding="utf-8").split())
    assert containers["web"]["Id"] == before["web"]
    assert containers["worker"]["Id"] != before["worker"]
    assert containers["worker"]["Config"]["Cmd"] == ["sleep", "7200"]


def test_nothing_else_is_left(host: Host) -> None:
    names = host.check_output(
        "docker ps -a --format '{{.Names}}' --filter label=com.docker.compose.project=shipshape-molecule"
    ).split()
    assert len(names) == 2


def test_the_volume_kept_its_data(host: Host) -> None:
    assert host.run("docker exec shipshape-molecule-worker-1 test -e /data/kept").rc == 0


def test_the_container_has_the_values_that_the_inventory_gave(containers: dict[str, dict[str, Any]]) -> None:
    environment = dict(entry.split("=", 1) for entry in containers["web"]["Config"]["Env"])
    assert environment["GREETING"] == "good morning"
    assert environment["PASSWORD"] == 'a\'b $c "d"'


def test_secrets_are_for_their_owner_only(host: Host) -> None:
    assert host.file(str(DEST / ".env.production")).mode == 0o600


def test_the_page_is_served(host: Host) -> None:
    assert "Deployed" in host.check_output("curl -fsS http://127.0.0.1:18471/")


def test_the_script_is_there_and_runs(host: Host) -> None:
    assert host.run(str(HERE / "health-check")).rc == 0


@pytest.mark.parametrize("slot", ["visitor-001", "visitor-002", "visitor-003"])
def test_every_slot_of_the_visitor_pool_has_its_workspace(host: Host, slot: str) -> None:
    marker = HERE / "pool/users" / slot / "default-project/scitex/writer/01_manuscript"
    assert host.file(str(marker / ".keep")).is_file


def test_every_slot_can_be_lent() -> None:
    rows = sqlite3.connect(HERE / "pool/pool.db").execute(
        "SELECT visitor_number, is_active FROM shipshape_visitor_allocation ORDER BY 1"
    )
    assert rows.fetchall() == [(1, 0), (2, 0), (3, 0)]


def test_plain_compose_finds_nothing_to_do(host: Host, containers: dict[str, dict[str, Any]]) -> None:
    assert host.run(f"docker compose --project-directory {DEST} --env-file {DEST}/.env.production up -d").rc == 0
    after = host.check_output(
        "docker ps -q --no-trunc --filter label=com.docker.compose.project=shipshape-molecule"
    ).split()
    assert set(after) == {one["Id"] for one in containers.values()}
