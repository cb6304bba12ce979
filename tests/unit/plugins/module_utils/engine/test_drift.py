# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.applied import keyed, label
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.disk import MountedFile
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.drift import (
    Drift,
    baked_drift,
    completed,
    container_drift,
    content_drift,
    definition_drift,
    filesystem_drift,
    image_drift,
    missing,
    needs_hashes,
    network_drift,
    orphan,
    runtime_drift,
    state_drift,
    surplus,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import BakedState
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    OTHER_IMAGE_ID,
    container,
    needs,
    project,
    seen,
)

P = project()
WEB = P.services["web"]
HASH = "com.docker.compose.config-hash"


def test_an_unchanged_container_has_no_drift():
    at = container(made_from=P)
    assert container_drift(P, WEB, at, seen(at), {}) == []


def test_a_changed_definition_is_named_by_field():
    at = container(made_from=project({"web": {"command": ["old"]}}))
    new = project({"web": {"command": ["new"]}})
    assert definition_drift(new, new.services["web"], at, {}) == [
        Drift("web", "p-web-1", "desired", "command", ["new"], ["old"], "recreate")
    ]


@pytest.mark.parametrize(
    ("before", "after", "wanted", "found"),
    [
        ({"A": "hunter22"}, {"A": "hunter23"}, "***", "***"),
        ({"A": "hunter22", "B": "1"}, {"B": "1"}, None, "***"),
        ({"B": "1"}, {"A": "hunter22", "B": "1"}, "***", None),
    ],
)
def test_a_value_that_may_be_secret_is_never_shown(before, after, wanted, found):
    new = project({"web": {"environment": after}})
    at = container(made_from=project({"web": {"environment": before}}))
    assert definition_drift(new, new.services["web"], at, {}) == [
        Drift("web", "p-web-1", "desired", "environment.A", wanted, found, "recreate")
    ]


@pytest.mark.parametrize(
    ("hashes", "label", "differs"),
    [({"web": "1"}, {HASH: "1"}, False), ({"web": "1"}, {HASH: "2"}, True), ({"web": "1"}, {}, True)],
)
def test_plain_compose_s_container_is_judged_by_its_hash(hashes, label, differs):
    found = definition_drift(P, WEB, container(labels=label), hashes)
    assert [entry.field for entry in found] == (["definition"] if differs else [])


def test_hashes_are_asked_for_only_where_a_container_bears_no_label_of_ours():
    assert not needs_hashes(seen(container(made_from=P)))
    assert not needs_hashes(seen())
    assert needs_hashes(seen(container(made_from=P), container("p-web-2")))
    assert needs_hashes(seen(container(labels={"io.shipshape.deploy.applied": '{"v": 2}'})))


@pytest.mark.parametrize(
    ("images", "differs"),
    [({"a": OTHER_IMAGE_ID}, True), ({}, False), ({"b": OTHER_IMAGE_ID}, False)],
    ids=["moved on", "unknown to the engine", "another reference"],
)
def test_image_drift(images, differs):
    at = container()
    found = image_drift(WEB, at, seen(at, images=images or {"-": "-"}))
    assert found == ([Drift("web", "p-web-1", "image", "a", "2" * 12, "1" * 12, "recreate")] if differs else [])


@pytest.mark.parametrize(
    ("state", "found", "action"),
    [
        ({"status": "running"}, None, None),
        ({"status": "running", "health": "healthy"}, None, None),
        ({"status": "running", "health": "starting"}, None, None),
        ({"status": "running", "health": "unhealthy"}, "unhealthy", "watch"),
        ({"status": "restarting"}, "restarting", "watch"),
        ({"status": "paused"}, "paused", "unpause"),
        ({"status": "created"}, "created", "start"),
        ({"status": "exited", "code": 1}, "exited (1)", "start"),
        ({"status": "exited", "code": 137}, "exited (137)", "start"),
        ({"status": "dead"}, "dead", "recreate"),
        ({"status": "removing"}, "removing", "recreate"),
    ],
)
def test_state_drift(state, found, action):
    assert [(entry.found, entry.action) for entry in state_drift(WEB, container(**state), 0.0)] == (
        [(found, action)] if found else []
    )


JOB = project({"web": {}, "app": {"depends_on": needs("web", condition="service_completed_successfully")}})
SERVER = project({"web": {"ports": [{"target": 80}]}})


@pytest.mark.parametrize(
    ("found", "state", "seen_to_end", "is_done"),
    [
        (P, {}, True, True),
        # Who was politely stopped by somebody ends with 0 as well.
        (P, {}, False, False),
        (P, {"code": 1}, True, False),
        (P, {"restart": "no"}, True, True),
        (P, {"restart": "on-failure"}, True, True),
        (P, {"restart": "always"}, True, False),
        (P, {"restart": "unless-stopped"}, True, False),
        (P, {"health": "unhealthy"}, True, False),
        (P, {"status": "created"}, True, False),
        (P, {"status": "running"}, True, False),
        (SERVER, {}, True, False),
        (JOB, {}, False, True),
        (JOB, {"restart": "always"}, False, True),
        (JOB, {"code": 3}, False, False),
    ],
)
def test_a_job_that_is_done_and_a_server_that_was_stopped(found, state, seen_to_end, is_done):
    at = container(**{"status": "exited", **state})
    service = found.services["web"]
    assert completed(service, at, seen_to_end) is is_done
    assert (not state_drift(service, at, 0.0, seen_to_end)) is (is_done or at.status == "running")


BEGUN = 1795413600.0  # 2026-11-23T06:00:00Z, when the containers of the builders were started


@pytest.mark.parametrize(
    ("restarts", "now", "flapping"),
    [(0, BEGUN + 1, False), (1, BEGUN + 1, True), (1, BEGUN + 59, True), (1, BEGUN + 61, False), (9, BEGUN - 5, False)],
)
def test_one_that_was_restarted_lately_may_be_in_a_crash_loop(restarts, now, flapping):
    found = state_drift(WEB, container(restarts=restarts), now)
    assert [(entry.found, entry.action) for entry in found] == ([("flapping", "watch")] if flapping else [])


# -- what is not in the definition ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "inside", "differs"),
    [("1", "1", False), ("2", "1", True), ("1", None, True), (None, "1", False), (None, None, False)],
)
def test_baked_files(source, inside, differs):
    at = container()
    found = baked_drift(WEB, at, seen(at, baked={at.id: (BakedState("/app/x.py", source, inside),)}))
    assert found == ([Drift("web", "p-web-1", "baked", "/app/x.py", source, inside, "recreate")] if differs else [])


def test_changes_below_watched_paths():
    at = container()
    found = filesystem_drift(WEB, at, seen(at, changes={at.id: ("/app/x", "/app/y"), "other": ("/z",)}))
    assert [(entry.field, entry.action) for entry in found] == [("/app/x", "recreate"), ("/app/y", "recreate")]


MOUNTED = project({"web": {"volumes": [{"type": "bind", "source": "/srv/conf", "target": "/conf"}]}})
READ_ONLY = project(
    {"web": {"volumes": [{"type": "bind", "source": "/srv/conf", "target": "/conf", "read_only": True}]}}
)
HERE, ELSEWHERE = (1, 1), (1, 2)  # inodes


@pytest.mark.parametrize(
    ("wanted", "digest", "prefix", "binary", "inside", "differs"),
    [
        (MOUNTED, "old", "old", False, HERE, False),
        (MOUNTED, "old", "old", False, None, False),
        (MOUNTED, "new", "", False, HERE, True),
        (MOUNTED, "new", "", False, None, True),
        # Replaced by a rename: the container goes on with the old one, whatever it holds.
        (MOUNTED, "old", "old", False, ELSEWHERE, True),
        (READ_ONLY, "old", "old", False, ELSEWHERE, True),
        (MOUNTED, "new", "", False, ELSEWHERE, True),
        # What the application itself writes: a log grows at its end, a database is binary.
        (MOUNTED, "new", "old", False, HERE, False),
        (MOUNTED, "new", "", True, HERE, False),
        (READ_ONLY, "new", "old", False, HERE, True),
        (READ_ONLY, "new", "", True, HERE, True),
        # A line was added to a new file that took the place of the old one: nobody inside has written that.
        (MOUNTED, "new", "old", False, ELSEWHERE, True),
    ],
)
def test_content_of_mounted_files(wanted, digest, prefix, binary, inside, differs):
    service = wanted.services["web"]
    (mount,) = service.file_mounts
    made = label(wanted, service, {"/conf": ("old", 3)})
    at = container(labels={"io.shipshape.deploy.applied": made})
    file = MountedFile(mount, digest, 4, HERE, binary, prefix)
    look = seen(at, files={"web": {"/conf": file}}, inside={at.id: {"/conf": inside} if inside else {}})
    found = content_drift(service, at, look)
    assert [(entry.kind, entry.field, entry.action) for entry in found] == (
        [("content", "volumes./conf", "recreate")] if differs else []
    )


def test_a_file_s_digest_is_remembered_under_the_container_s_own_key():
    made = label(MOUNTED, MOUNTED.services["web"], {"/conf": ("digest-of-the-file", 3)})
    assert "digest-of-the-file" not in made
    remembered = container(labels={"io.shipshape.deploy.applied": made}).applied
    assert remembered.files == {"/conf": (keyed(remembered.key, "digest-of-the-file"), 3)}


CREATED = "io.shipshape.deploy.created"


@pytest.mark.parametrize(
    ("created", "live", "fields"),
    [
        (None, {"Memory": 5}, []),
        ("nonsense", {"Memory": 5}, []),
        ("{}", {}, []),
        ("{}", {"Memory": 0, "PidsLimit": None, "CpuShares": 0}, []),
        ('{"Memory":5}', {"Memory": 5, "MemorySwap": 10}, []),
        ('{"Memory":5}', {"Memory": 5, "MemorySwap": 20}, ["memswap_limit"]),
        ("{}", {"Memory": 5, "MemorySwap": 10}, ["mem_limit", "memswap_limit"]),
        ('{"Memory":5,"MemorySwap":10}', {"Memory": 5, "MemorySwap": 20}, ["memswap_limit"]),
        ('{"Memory":5}', {"Memory": 6}, ["mem_limit"]),
        ('{"Memory":5}', {}, []),
        ("{}", {"NanoCpus": 5}, ["cpus"]),
        ('{"RestartPolicy":"always"}', {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}, []),
        ('{"RestartPolicy":"always"}', {"RestartPolicy": {"Name": "no"}}, ["restart"]),
        ('{"RestartPolicy":"on-failure:3"}', {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, []),
        ("{}", {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}, []),
    ],
)
def test_what_was_updated_by_hand(created, live, fields):
    at = container(labels={CREATED: created} if created else {})
    at.raw["HostConfig"].clear()
    at.raw["HostConfig"].update(live)
    assert [(entry.field, entry.kind, entry.action) for entry in runtime_drift(P, WEB, at)] == [
        (field, "runtime", "recreate") for field in fields
    ]


def test_what_was_updated_by_hand_is_told_in_compose_s_units():
    at = container(labels={CREATED: '{"NanoCpus":750000000}'})
    at.raw["HostConfig"]["NanoCpus"] = 500000000
    assert [(entry.field, entry.wanted, entry.found) for entry in runtime_drift(P, WEB, at)] == [("cpus", 0.75, 0.5)]


@pytest.mark.parametrize(
    ("name", "made_from", "found"),
    [
        ("p-web-1", P, []),
        ("renamed", P, [("container_name", "p-web-1", "renamed", "rename")]),
        ("p-web-1.shipshape-old", P, []),
        ("renamed", None, []),
    ],
)
def test_a_name_that_was_changed_by_hand(name, made_from, found):
    drift = runtime_drift(P, WEB, container(name, made_from=made_from, number=1))
    assert [(entry.field, entry.wanted, entry.found, entry.action) for entry in drift] == found


def test_a_name_that_was_changed_in_the_file_was_not_changed_by_hand():
    new = project({"web": {"container_name": "the-web"}})
    assert runtime_drift(new, new.services["web"], container(made_from=P)) == []


TWO_NETWORKS = project(
    {"web": {"networks": {"default": None, "back": {"aliases": ["api"], "ipv4_address": "192.0.2.1"}}}},
    networks={"default": {"name": "p_default"}, "back": {"name": "lan", "external": True}, "front": {"name": "dmz"}},
)
DEFAULT = {"Aliases": ["p-web-1", "web"]}
BACK = {"Aliases": None, "DNSNames": ["api", "web"], "IPAMConfig": {"IPv4Address": "192.0.2.1"}}


@pytest.mark.parametrize(
    ("live", "found"),
    [
        ({"p_default": DEFAULT, "lan": BACK}, []),
        ({"p_default": DEFAULT, "lan": {**BACK, "DNSNames": ["web"]}}, [("networks.back.aliases", ["api"], None)]),
        ({"p_default": {"Aliases": None}, "lan": BACK}, [("networks.default.aliases", ["web"], None)]),
        (
            {"p_default": DEFAULT, "lan": {**BACK, "IPAMConfig": {"IPv4Address": "192.0.2.2"}}},
            [("networks.back.ipv4_address", "192.0.2.1", "192.0.2.2")],
        ),
        (
            {"p_default": DEFAULT, "lan": {**BACK, "IPAMConfig": None}},
            [("networks.back.ipv4_address", "192.0.2.1", None)],
        ),
        ({"lan": BACK}, [("networks.default", "connected", None)]),
        ({"p_default": DEFAULT, "lan": BACK, "bridge": {}}, [("networks.bridge", None, "connected")]),
        ({"p_default": DEFAULT, "lan": BACK, "dmz": {}}, [("networks.front", None, "connected")]),
        ({}, []),
        (None, []),
    ],
)
def test_networks_that_were_connected_or_disconnected_by_hand(live, found):
    at = container()
    at.raw["NetworkSettings"] = {"Networks": live}
    drift = network_drift(TWO_NETWORKS, TWO_NETWORKS.services["web"], at)
    assert [(entry.field, entry.wanted, entry.found) for entry in drift] == found


def test_networks_that_the_file_has_changed_were_not_changed_by_hand():
    def wanted(*keys):
        return project({"web": {"networks": dict.fromkeys(keys)}}, networks={"default": {"name": "p_default"}})

    at = container(made_from=wanted("default"))
    at.raw["NetworkSettings"] = {"Networks": {"p_default": DEFAULT}}
    now = wanted("default", "front")
    found = container_drift(now, now.services["web"], at, seen(at), {})
    assert [(entry.kind, entry.field) for entry in found] == [("desired", "networks.front")]


@pytest.mark.parametrize("entry", [{"network_mode": "host"}, {"network_mode": "service:db"}, {}])
def test_networks_that_are_not_its_own_to_have(entry):
    at = container()
    at.raw["NetworkSettings"] = {"Networks": {"host": {}}}
    wanted = project({"web": entry})
    assert network_drift(wanted, wanted.services["web"], at) == []


@pytest.mark.parametrize(
    ("drift", "reason"),
    [
        (Drift("web", "c", "desired", "command", ["a"], ["b"], "recreate"), "command changed"),
        (Drift("web", "c", "desired", "labels.a", "1", None, "recreate"), "labels.a added"),
        (Drift("web", "c", "desired", "labels.a", None, "1", "recreate"), "labels.a removed"),
        (Drift("web", "c", "desired", "environment.A", "***", "***", "recreate"), "environment.A changed"),
        (Drift("web", "c", "desired", "definition", "1", "", "recreate"), "the definition changed"),
        (Drift("web", "c", "image", "a:1", "1", "2", "recreate"), "a:1 now means another image"),
        (Drift("web", "c", "state", "state", "running", "exited (1)", "start"), "it is exited (1)"),
        (missing(WEB, "p-web-1"), "it does not exist"),
        (surplus(WEB, container("p-web-2")), "scale changed"),
        (orphan(container(), True), "no service of that name"),
    ],
)
def test_reasons(drift, reason):
    assert drift.reason() == reason
    assert set(drift.as_dict()) == {"service", "container", "kind", "field", "wanted", "found", "action"}
