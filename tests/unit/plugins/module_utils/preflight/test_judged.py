# SPDX-License-Identifier: GPL-3.0-or-later
"""The decisions of `preflight`, each as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import project_from
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight import (
    engine,
    envfiles,
    ports,
    project,
    resources,
    scripts,
    sockets,
    variables,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight.ports import Port
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight.seen import Seen, graded, seen, verdict
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import CRITICAL, INFO, WARNING


def model(services: dict[str, Any]) -> Any:
    return project_from({"name": "p", "services": {name: {"image": "a", **at} for name, at in services.items()}})


def told(found: Iterable[Seen]) -> set[tuple[str, str, str]]:
    return {(at.finding.severity, at.finding.subject, at.finding.code) for at in found}


# -- how bad it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("services", "optional", "severity"),
    [
        (["web"], [], CRITICAL),
        (["web"], ["web"], WARNING),
        (["web", "worker"], ["web"], CRITICAL),
        (["web", "worker"], ["web", "worker"], WARNING),
        ([], ["web"], CRITICAL),
    ],
)
def test_severity(services: list[str], optional: list[str], severity: str) -> None:
    [finding] = graded([seen(CRITICAL, "x", "c", "m", services=services)], optional)
    assert finding.severity == severity


def test_the_worst_comes_first_and_nothing_twice() -> None:
    found = [seen(level, level, "c", "m") for level in (INFO, WARNING, CRITICAL, WARNING)]
    assert [at.severity for at in graded(found, [])] == [CRITICAL, WARNING, INFO]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, ""),
        (1, "s0: m. r."),
        (2, "s0: m. r. 1 further critical finding, see findings: s1: c."),
        (8, "s0: m. r. 7 further critical findings, see findings: s1: c; s2: c; s3: c; s4: c; s5: c; and 2 more."),
    ],
)
def test_the_verdict_names_the_first_and_counts_the_others(count: int, words: str) -> None:
    found = [seen(CRITICAL, f"s{number}", "c", "m", "r").finding for number in range(count)]
    assert verdict([*found, seen(WARNING, "w", "c", "m").finding]) == words


# -- the project ------------------------------------------------------------------------------------------------------

RAW = {
    "services": {
        "web": {"depends_on": {"db": {}}},
        "db": {},
        "turn": {"profiles": ["turn", "calls"]},
        "api": {"depends_on": {"turn": {"required": True}}},
        "soft": {"depends_on": {"turn": {"required": False}}},
        "lost": {"profiles": ["x"], "depends_on": {"nobody": {}}},
    }
}


@pytest.mark.parametrize(
    ("profiles", "services", "chosen"),
    [
        ([], [], {"web", "db", "api", "soft"}),
        (["calls"], [], {"web", "db", "api", "soft", "turn"}),
        (["*"], [], {"web", "db", "api", "soft", "turn", "lost"}),
        ([], ["web"], {"web", "db"}),
        ([], ["turn"], {"turn"}),
        ([], ["unheard-of"], set()),
    ],
)
def test_who_is_meant(profiles: list[str], services: list[str], chosen: set[str]) -> None:
    assert project.selected(RAW, profiles, services) == chosen


def test_who_is_out_of_reach() -> None:
    found = list(project.out_of_reach(RAW, {"web", "api", "soft", "lost"}))
    assert told(found) == {
        (CRITICAL, "api", "dependency-not-selected"),
        (CRITICAL, "lost", "dependency-undefined"),
        (CRITICAL, "web", "dependency-not-selected"),
    }
    assert "calls or turn" in next(at.finding.message for at in found if at.finding.subject == "api")


# -- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain $$HOME", []),
        ("$A-$B", [("A", ""), ("B", "")]),
        ("${A}", [("A", "")]),
        ("${A:-b}${C-}", [("A", ":-"), ("C", "-")]),
        ("${A:-${B}}", [("A", ":-"), ("B", "")]),
        ("${A:?say ${B}}", [("A", ":?")]),
        ("${A:+yes}", [("A", ":+")]),
        ("100$ and $1", []),
    ],
)
def test_references(text: str, found: list[tuple[str, str]]) -> None:
    assert [(at.name, at.operator) for at in variables.references(text)] == found


@pytest.mark.parametrize(
    ("text", "values", "code"),
    [
        ("$A", {}, "variable-unset"),
        ("$A", {"A": ""}, "variable-empty"),
        ("$A", {"A": "1"}, ""),
        ("${A:-}", {}, ""),
        ("${A?}", {"A": ""}, ""),
        ("${A:?}", {"A": ""}, "variable-required"),
        ("${A?}", {}, "variable-required"),
    ],
)
def test_variables(text: str, values: dict[str, str], code: str) -> None:
    uses = variables.uses({"services": {"web": {"image": text}, "other": {"image": "$NOT_MEANT"}}}, {"web"})
    assert {at.finding.code for at in variables.judged(uses, values)} == ({code} if code else set())


# -- env files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("changeme", True),
        ("CHANGE_ME!", True),
        ("<your key>", True),
        ("TODO", True),
        ("todo: ask Ann", True),
        ("postgresql://app:changeme@db/app", True),
        ("xxxx", True),
        ("your-key-here", True),
        ("s3cret", False),
        ("", False),
        ("a<b>c", False),
        ("changemeister", False),
        ("postgresql://app:real@db/changeme", False),
    ],
)
def test_placeholders(value: str, is_one: bool) -> None:
    assert envfiles.placeholder(value) is is_one


@pytest.mark.parametrize(
    ("wish", "given", "filling", "found"),
    [
        ("A", {"web": {"A": "1"}}, {}, set()),
        ("A", {"web": {}}, {"A": "1"}, set()),
        ("A", {"web": {"A": None}}, {}, {(CRITICAL, "environment", "env-missing")}),
        ("web:A", {"web": {}, "db": {"A": "1"}}, {}, {(CRITICAL, "web", "env-missing")}),
        ("gone:A", {"web": {}}, {}, set()),
        ("A", {"web": {"A": "1"}, "db": {"A": " "}}, {}, {(CRITICAL, "db", "env-empty")}),
        ("A", {"web": {"A": "TODO"}}, {}, {(CRITICAL, "web", "env-placeholder")}),
        ("A", {}, {"A": ""}, {(CRITICAL, "environment", "env-empty")}),
    ],
)
def test_required(wish: str, given: dict[str, Any], filling: dict[str, str], found: set[Any]) -> None:
    assert told(envfiles.required([wish], given, filling)) == found


# -- ports ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (Port("", 80), Port("127.0.0.1", 80), True),
        (Port("127.0.0.1", 80), Port("127.0.0.1", 80), True),
        (Port("127.0.0.1", 80), Port("127.0.0.2", 80), False),
        (Port("0.0.0.0", 80), Port("::1", 80), True),
        (Port("", 80), Port("", 81), False),
        (Port("", 53, "udp"), Port("", 53, "tcp"), False),
    ],
)
def test_clashes(one: Port, other: Port, clash: bool) -> None:
    assert one.clashes(other) is other.clashes(one) is clash


def test_sockets_as_the_kernel_tells_them() -> None:
    lines = [
        "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1",
        "1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 4712 1",
        "2: 00000000000000000000000000000000:0050 0:0 0A 0:0 0:0 0 0 0 4713 1",
        "3: 0000000000000000FFFF00000100007F:0051 0:0 0A 0:0 0:0 0 0 0 4714 1",
    ]
    assert dict(sockets.parsed(lines, "tcp", "0A")) == {
        Port("127.0.0.1", 8080): 4711,
        Port("", 80): 4713,
        Port("127.0.0.1", 81): 4714,
    }


def published(*numbers: str, scale: int = 1) -> dict[str, Any]:
    return {"scale": scale, "ports": [{"target": 80, "published": number} for number in numbers]}


@pytest.mark.parametrize(
    ("services", "found"),
    [
        ({"a": published("80")}, set()),
        ({"a": published("80"), "b": published("80")}, {(CRITICAL, "a, b", "port-conflict")}),
        ({"a": published("80"), "b": published("80", scale=0)}, set()),
        ({"a": published("80", scale=2)}, {(CRITICAL, "a", "port-conflict")}),
        ({"a": published("80-81", scale=2)}, set()),
        ({"a": published("", scale=2)}, set()),
    ],
)
def test_ports_among_themselves(services: dict[str, Any], found: set[Any]) -> None:
    assert told(ports.judged(model(services), [])) == found


# -- disk and memory --------------------------------------------------------------------------------------------------

GB = 1 << 30


@pytest.mark.parametrize(
    ("free", "inodes", "load", "found"),
    [
        (10 * GB, None, resources.Load(), set()),
        (GB // 2, None, resources.Load(), {(WARNING, "disk-space-low")}),
        (2 * GB, None, resources.Load(GB, 1), {(CRITICAL, "disk-space-low")}),
        (6 * GB, 10**6, resources.Load(GB, 1), set()),
        (6 * GB, 40_000, resources.Load(0, 1), {(WARNING, "disk-inodes-low")}),
        (6 * GB, 1_000, resources.Load(0, 1), {(CRITICAL, "disk-inodes-low")}),
    ],
)
def test_disk(free: int, inodes: int | None, load: resources.Load, found: set[Any]) -> None:
    seen_here = resources.disk(resources.Room("/d", free, inodes), load, GB)
    assert {(at.finding.severity, at.finding.code) for at in seen_here} == found


@pytest.mark.parametrize(
    ("services", "found"),
    [
        ({"a": {"mem_limit": str(GB)}}, set()),
        ({"a": {"mem_limit": "1024"}}, {(CRITICAL, "a", "memory-limit-invalid")}),
        (
            {"a": {"mem_limit": str(GB), "mem_reservation": str(2 * GB)}},
            {(CRITICAL, "a", "memory-limit-invalid")},
        ),
        ({"a": {"mem_limit": str(9 * GB)}}, {(WARNING, "a", "memory-limit-above-machine")}),
        ({"a": {"mem_limit": str(3 * GB), "scale": 3}}, {(WARNING, "memory", "memory-overcommitted")}),
        (
            {"a": {"deploy": {"resources": {"reservations": {"memory": str(9 * GB)}}}}},
            {(WARNING, "memory", "memory-overcommitted")},
        ),
    ],
)
def test_memory(services: dict[str, Any], found: set[Any]) -> None:
    assert told(resources.memory(model(services), 8 * GB)) == found


# -- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (["/start.sh"], [(0, "/start.sh")]),
        (["./start.sh", "web"], [(0, "/app/start.sh")]),
        (["tini", "--", "/start.sh"], [(0, "/start.sh")]),
        (["sh", "/start.sh"], [(1, "/start.sh")]),
        (["/bin/sh", "-e", "bin/start.sh"], [(1, "/app/bin/start.sh")]),
        (["sh", "-c", "/start.sh"], []),
        (["python", "/start.py"], []),
    ],
)
def test_programs(command: list[str], found: list[tuple[int, str]]) -> None:
    assert scripts.programs(command, "/app") == found


@pytest.mark.parametrize(
    ("line", "program"),
    [
        (b"#!/bin/sh\n", "/bin/sh"),
        (b"#! /usr/bin/env -S bash -e\n", "bash"),
        (b"#!/usr/bin/env FOO=1 python3\r\n", "python3"),
        (b"echo\n", ""),
    ],
)
def test_interpreters(line: bytes, program: str) -> None:
    assert scripts.Script("web", "/s", "/s", True, True, 0o755, line).interpreter == program


# -- the engine -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "compose", "api", "codes"),
    [
        ("26.1.5+dfsg1", "2.26.1-4", "auto", set()),
        ("20.10.24", "2.26.0", "1.41", set()),
        ("19.03.8", "2.26.1", "auto", {"engine-too-old"}),
        ("26.1.5", "2.5.0", "auto", {"compose-too-old"}),
        ("26.1.5", "5.0.0", "1.46", {"engine-api-version"}),
        ("26.1.5", "", "1.23", {"engine-api-version"}),
    ],
)
def test_versions(version: str, compose: str, api: str, codes: set[str]) -> None:
    answer = {"Version": version, "ApiVersion": "1.45", "MinAPIVersion": "1.24"}
    assert {at.finding.code for at in engine.versions(answer, compose, api)} == codes


@pytest.mark.parametrize(
    ("timestamp", "words"),
    [
        ("2026-11-23T10:00:00Z", ""),
        ("2026-11-23T11:00:05.5+01:00", ""),
        ("2026-11-23T09:59:56Z", ""),
        ("2026-11-23T10:00:30Z", ""),  # the task took so long
        ("2026-11-23T09:59:30Z", "30 s behind"),
        ("2026-11-23T10:01:00Z", "30 s ahead"),
        ("soon", ""),
    ],
)
def test_clock(timestamp: str, words: str) -> None:
    at = engine.seconds_of("2026-11-23T10:00:00Z")
    assert at is not None
    found = engine.clock(timestamp, at, at + 30)
    assert bool(found) == bool(words)
    assert all(words in entry.message for entry in found)
