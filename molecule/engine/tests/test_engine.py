# SPDX-License-Identifier: GPL-3.0-or-later
"""What the bare host looks like afterwards: asked of its engine and its files."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["docker://shipshape-molecule-engine"]


def test_the_engine_runs_containers(host: Host) -> None:
    assert host.check_output("docker run --rm shipshape-test/busybox:1 echo here") == "here"


def test_containers_reach_each_other_by_name(host: Host) -> None:
    host.check_output(
        "docker network create pair && docker run -d --name other --network pair shipshape-test/busybox:1 sleep 60"
    )
    assert "1 packets received" in host.check_output(
        "docker run --rm --network pair shipshape-test/busybox:1 ping -c 1 -w 5 other"
    )
    host.check_output("docker rm -f other && docker network rm pair")


def test_compose_and_buildx_are_there(host: Host) -> None:
    assert host.check_output("docker compose version --short").startswith("2.")
    assert "buildx" in host.check_output("docker buildx version")


def test_only_dockers_packages_come_from_the_newer_release(host: Host) -> None:
    policy = host.check_output("apt-cache policy bash docker.io")
    bash, docker = policy.split("docker.io:")
    assert "deb13" not in bash.split("Candidate:")[1].splitlines()[0]
    assert host.check_output("dpkg-query -W -f '${Version}' libc6").startswith("2.36")
    assert docker.split("Installed:")[1].split()[0].startswith("26.")


def test_daemon_json_holds_what_was_there_and_what_was_asked_for(host: Host) -> None:
    assert json.loads(host.file("/etc/docker/daemon.json").content_string) == {
        "labels": ["place=bare"],
        "log-opts": {"max-size": "10m"},
        "log-driver": "local",
        "live-restore": True,
    }


def test_the_container_that_ran_all_along_still_runs(host: Host) -> None:
    assert host.check_output("docker inspect --format '{{.State.Running}} {{.RestartCount}}' box") == "true 0"


def test_the_engine_has_a_pid_file_and_a_log(host: Host) -> None:
    pid = host.file("/var/run/docker.pid").content_string.strip()
    assert host.file(f"/proc/{pid}/comm").content_string.strip() == "dockerd"
    assert host.file("/var/log/docker.log").size > 0


def test_the_python_environment_works(host: Host) -> None:
    assert (
        host.check_output(
            "/opt/shipshape/venv/bin/python -c 'import docker, jmespath, psycopg; print(docker.from_env().ping())'"
        )
        == "True"
    )
