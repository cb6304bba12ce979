# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions of role engine, as tables."""

from __future__ import annotations

import json

import pytest

from tests.support.roles import program

look = program("engine", "look.py")

UP = {"answers": True, "version": "26.1.5", "live_restore": False, "running": 3}
IDLE = {**UP, "running": 0}
LIVE = {**UP, "live_restore": True}
DOWN = {"answers": False, "version": "", "live_restore": False, "running": 0}


@pytest.mark.parametrize(
    ("keys", "engine", "allowed", "verdict"),
    [
        ([], UP, False, "none"),
        (["log-driver"], DOWN, False, "none"),
        (["live-restore", "labels"], UP, False, "reload"),
        (["log-driver"], IDLE, False, "restart"),
        (["log-driver"], UP, False, "withheld"),
        (["log-driver", "live-restore"], UP, False, "withheld"),
        (["log-driver"], LIVE, False, "restart"),
        (["log-driver"], UP, True, "restart"),
        (["data-root"], LIVE, False, "withheld"),
        (["data-root"], IDLE, False, "restart"),
        (["data-root"], LIVE, True, "restart"),
    ],
)
def test_an_engine_with_containers_is_restarted_only_when_they_survive(keys, engine, allowed, verdict):
    decided, reason = look.restart_verdict(keys, engine, allowed)
    assert decided == verdict
    assert bool(reason) == (verdict == "withheld")


@pytest.mark.parametrize(
    ("present", "wanted", "result", "keys"),
    [
        ({}, {}, {}, []),
        ({"debug": True}, {}, {"debug": True}, []),
        ({"debug": True}, {"debug": True}, {"debug": True}, []),
        ({"debug": True}, {"debug": False}, {"debug": False}, ["debug"]),
        ({"log-opts": {"a": "1"}}, {"log-opts": {"b": "2"}}, {"log-opts": {"a": "1", "b": "2"}}, ["log-opts"]),
        ({"log-opts": {"a": "1"}}, {"log-opts": {"a": "1"}}, {"log-opts": {"a": "1"}}, []),
        ({"dns": ["9.9.9.9"]}, {"dns": ["1.1.1.1"]}, {"dns": ["1.1.1.1"]}, ["dns"]),
    ],
)
def test_the_configuration_is_merged_key_by_key(present, wanted, result, keys):
    before = json.dumps(present)
    assert look.merged(present, wanted) == (result, keys)
    assert json.dumps(present) == before


@pytest.mark.parametrize(
    ("wanted", "installed", "reachable", "channel"),
    [
        ("auto", {"docker-ce"}, False, "docker"),
        ("auto", {"docker.io"}, True, "distro"),
        ("auto", set(), True, "docker"),
        ("auto", set(), False, "distro"),
        ("distro", {"docker-ce"}, True, "distro"),
        ("docker", {"docker.io"}, False, "docker"),
    ],
)
def test_auto_keeps_what_is_installed_and_asks_the_repository_otherwise(wanted, installed, reachable, channel):
    assert look.resolve_channel(wanted, installed, lambda: reachable) == channel


DEB822 = """Types: deb
URIs: http://m.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://m.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg
"""
ONE_LINE = (
    "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n# deb http://no.example bookworm main\n"
)
INLINE_KEY = "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nSigned-By:\n -----BEGIN PGP\n"


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], {}),
        (
            [DEB822],
            {
                "main": ("http://m.example/debian", "/k.gpg"),
                "security": ("http://m.example/debian-security", "/k.gpg"),
            },
        ),
        ([ONE_LINE], {"main": ("http://m.example/debian", "/k.gpg")}),
        ([INLINE_KEY], {"main": ("http://m.example/debian", "")}),
        ([f"Enabled: no\n{INLINE_KEY}"], {}),
        (["Types: deb\nURIs: http://m.example/other\nSuites: stable\n"], {}),
    ],
)
def test_the_newer_release_comes_over_the_machines_own_mirror(texts, found):
    assert look.mirrors(texts) == found


def test_of_the_newer_release_only_dockers_packages_are_taken():
    files = look.trixie_files(look.mirrors([DEB822]))
    pins = files["/etc/apt/preferences.d/shipshape-docker"]
    assert pins.count("Package: *\n") == pins.count("Pin-Priority: -10\n") == 2
    assert pins.count("Package: docker.io docker-cli docker-compose docker-buildx\n") == 2
    sources = files["/etc/apt/sources.list.d/shipshape-docker.sources"]
    assert "URIs: http://m.example/debian\nSuites: trixie\n" in sources
    assert "URIs: http://m.example/debian-security\nSuites: trixie-security\n" in sources


def test_dockers_repository_is_named_for_this_release():
    [text] = look.docker_files("https://d.example/linux/", "ubuntu", "noble", "arm64").values()
    assert "URIs: https://d.example/linux/ubuntu\nSuites: noble\nComponents: stable\nArchitectures: arm64\n" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', ("debian", "12", "bookworm")),
        ('PRETTY_NAME="x"\nID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n', ("ubuntu", "24.04", "noble")),
        ("ID=debian\n", ("debian", "", "")),
        ("", ("", "", "")),
    ],
)
def test_the_release_is_read_from_its_file(text, expected):
    assert look.os_release(text) == expected


def seen(**tools):
    found = {"dockerd": "/usr/sbin/dockerd", "docker": "/usr/bin/docker", "compose": "2.26.1", "buildx": "0.13"}
    return {"tools": {**found, **tools}, "engine": UP, "installed": ["docker.io"], "problems": []}


WANTED = {"channel": "auto", "repository": "https://d.example/linux"}


@pytest.fixture
def system(monkeypatch):
    """Lets a test say which files the machine has; nothing else is read or asked."""
    files: dict[str, str] = {}
    monkeypatch.setattr(look, "_read", lambda path: files.get(str(path)))
    monkeypatch.setattr(look, "_answers", lambda url: False)
    monkeypatch.setattr(look, "_source_texts", lambda: [DEB822])
    return files


def test_a_complete_engine_is_left_alone_whatever_the_system(system):
    system["/etc/os-release"] = "ID=arch\n"
    machine = seen()
    assert look.plan_packages(WANTED, machine)["packages"] == []
    assert machine["problems"] == []


def test_an_unknown_system_without_compose_is_named(system):
    system["/etc/os-release"] = "ID=arch\n"
    machine = seen(compose=None)
    look.plan_packages(WANTED, machine)
    [problem] = machine["problems"]
    assert "arch" in problem
    assert "lacks compose" in problem


def test_only_what_is_not_installed_is_asked_for(system):
    system["/etc/os-release"] = "ID=ubuntu\nVERSION_ID=22.04\nVERSION_CODENAME=jammy\n"
    plan = look.plan_packages(WANTED, seen(compose=None, buildx=None))
    assert plan["packages"] == ["docker-compose-v2", "docker-buildx", "iptables"]
    assert plan["files"] == {}


def test_debian_12_needs_a_mirror(system, monkeypatch):
    system["/etc/os-release"] = "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n"
    monkeypatch.setattr(look, "_source_texts", list)
    machine = seen(compose=None)
    look.plan_packages(WANTED, machine)
    assert "no Debian mirror" in machine["problems"][0]


def test_installed_packages_whose_tools_do_not_run_are_named(system):
    system["/etc/os-release"] = "ID=ubuntu\nVERSION_ID=22.04\nVERSION_CODENAME=jammy\n"
    machine = seen(compose=None)
    machine["installed"] = [*look.UBUNTU_PACKAGES, "iptables"]
    look.plan_packages(WANTED, machine)
    assert "apt-get install --reinstall docker.io docker-compose-v2 docker-buildx" in machine["problems"][0]


def test_what_could_not_be_restarted_stays_due_until_the_engine_is_another_process(tmp_path, monkeypatch):
    record = tmp_path / "pending.json"
    monkeypatch.setattr(look, "PENDING", str(record))
    process = {"pid": 7, "started": "123"}
    assert look.pending_keys(process) == []
    record.write_text(json.dumps({"process": process, "keys": ["log-driver"]}))
    assert look.pending_keys(process) == ["log-driver"]
    assert look.pending_keys({"pid": 8, "started": "456"}) == []
    assert look.pending_keys(None) == []
    record.write_text("{")
    assert look.pending_keys(process) == []


def test_a_daemon_json_that_is_no_json_stops_the_role_only_when_it_has_to_be_changed(tmp_path, monkeypatch):
    path = tmp_path / "daemon.json"
    path.write_text("{,}")
    monkeypatch.setattr(look, "DAEMON_JSON", str(path))
    for config, problems in (({}, 0), ({"debug": True}, 1)):
        machine = seen()
        look.plan_daemon({"config": config, "restart_allowed": False}, machine)
        assert len(machine["problems"]) == problems
