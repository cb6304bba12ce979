# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import json

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.successor import (
    Inherited,
    Place,
    Successor,
    final_name,
    retired_name,
    temporary_name,
    updatable,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import (
    Rule,
    Scene,
    UnexpectedCreationError,
    as_wanted,
    created_with,
    creation,
    rule,
    with_alias,
    with_inherited_volumes,
)

FORWARD, LOOK, REFUSE = (Rule.FORWARD, ""), (Rule.RESOURCES, ""), (Rule.REFUSE, "")
LASTING = (Rule.LASTING, "")


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.44", "/v1.100"])
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/containers/json", (Rule.LIST, "")),
        ("HEAD", "/containers/json", (Rule.LIST, "")),
        ("GET", "/containers/abc/json", (Rule.INSPECT, "abc")),
        ("GET", "/containers/p-web-1/json", (Rule.INSPECT, "p-web-1")),
        ("GET", "/containers/json/json", (Rule.INSPECT, "json")),
        ("GET", "/_ping", FORWARD),
        ("HEAD", "/_ping", FORWARD),
        ("GET", "/version", FORWARD),
        ("GET", "/info", LASTING),
        ("GET", "/images/studio/app:1/json", LASTING),
        ("GET", "/networks", LOOK),
        ("GET", "/networks/p_default", LOOK),
        ("GET", "/volumes", LOOK),
        ("GET", "/volumes/p_data", LOOK),
        ("GET", "/distribution/a/json", FORWARD),
        ("GET", "/containers/abc/logs", FORWARD),
        ("POST", "/containers/create", (Rule.CREATE, "")),
        ("POST", "/networks/create", (Rule.RESOURCE, "network")),
        ("POST", "/volumes/create", (Rule.RESOURCE, "volume")),
        ("POST", "/networks/p_default/connect", (Rule.CONNECT, "p_default")),
        ("PUT", "/containers/abc/archive", (Rule.INJECT, "abc")),
        ("POST", "/images/create", FORWARD),
        ("POST", "/images/load", FORWARD),
        ("POST", "/build", FORWARD),
        ("POST", "/session", FORWARD),
        ("POST", "/grpc", FORWARD),
        ("POST", "/auth", FORWARD),
        # What would touch something that runs.
        ("POST", "/containers/abc/start", REFUSE),
        ("POST", "/containers/abc/stop", REFUSE),
        ("POST", "/containers/abc/kill", REFUSE),
        ("POST", "/containers/abc/restart", REFUSE),
        ("POST", "/containers/abc/rename", REFUSE),
        ("POST", "/containers/abc/update", REFUSE),
        ("POST", "/containers/abc/exec", REFUSE),
        ("POST", "/containers/prune", REFUSE),
        ("POST", "/exec/abc/start", REFUSE),
        ("POST", "/networks/p_default/disconnect", REFUSE),
        ("POST", "/networks/prune", REFUSE),
        ("POST", "/volumes/prune", REFUSE),
        ("POST", "/images/a/tag", REFUSE),
        ("POST", "/images/prune", REFUSE),
        ("POST", "/build/prune", REFUSE),
        ("POST", "/commit", REFUSE),
        ("POST", "/swarm/leave", REFUSE),
        ("DELETE", "/containers/abc", REFUSE),
        ("DELETE", "/networks/p_default", REFUSE),
        ("DELETE", "/volumes/p_data", REFUSE),
        ("DELETE", "/images/a", REFUSE),
        ("PUT", "/volumes/p_data", REFUSE),
        ("PUT", "/containers/create", REFUSE),
        ("PATCH", "/containers/create", REFUSE),
        ("post", "/containers/create", REFUSE),
        # Written so as to look like something else.
        ("POST", "/containers/create/", REFUSE),
        ("POST", "/containers/create/../abc/start", REFUSE),
        ("POST", "/containers/../containers/create", REFUSE),
        ("POST", "//containers/create", REFUSE),
        ("POST", "/containers/create/x", REFUSE),
        ("POST", "/containers/%63reate", REFUSE),
        ("POST", "/x/containers/create", REFUSE),
        ("POST", "/v1.44/containers/create/../abc/start", REFUSE),
        ("POST", "/networks/a/b/connect", REFUSE),
        ("POST", "/networks/create/connect/x", REFUSE),
        ("PUT", "/containers/a/b/archive", REFUSE),
        ("POST", "/images/create/../../containers/abc/start", REFUSE),
        ("POST", "/build/../containers/abc/start", REFUSE),
        ("POST", "/buildx", REFUSE),
        ("POST", "", REFUSE),
    ],
)
def test_rules(prefix, method, path, expected):
    assert rule(method, prefix + path) == expected


@pytest.mark.parametrize(
    "path",
    ["/v1/containers/create", "/v1.44.1/containers/create", "/1.44/containers/create", "/v1.44containers/create"],
)
def test_what_is_no_version_is_no_version(path):
    assert rule("POST", path) == REFUSE


def test_only_one_version_is_taken_off():
    assert rule("POST", "/v1.44/v1.44/containers/create") == REFUSE


# -- creation ---------------------------------------------------------------------------------------------------------

FRESH, REPLACING = Place(3, "p-web-3"), Place(1, "p-web-1", replaces="old")


def scene(*places, mounts=()):
    """A scene in which Compose's numbers 1, 2, … become `places`."""
    return Scene({"web": dict(enumerate(places, 1))}, {"web": {"ours": "yes"}})


def body(number="1", service="web", **rest):
    labels = {"com.docker.compose.service": service, "com.docker.compose.container-number": number, "theirs": "kept"}
    return {"Image": "a", "Labels": labels, **rest}


@pytest.mark.parametrize(
    ("place", "name", "number"), [(FRESH, "p-web-3", "3"), (REPLACING, "p-web-1.shipshape-new", "1")]
)
def test_a_created_container_gets_its_place(place, name, number):
    asked = body(HostConfig={"Memory": 5}, NetworkingConfig=None)
    got, document, service, where = creation(scene(place), "p-web-9", asked)
    assert (got, service, where) == (name, "web", place)
    assert document["Labels"] == {
        **asked["Labels"],
        "com.docker.compose.container-number": number,
        "ours": "yes",
        "io.shipshape.deploy.created": '{"Memory":5}',
    }
    assert {**document, "Labels": None} == {**asked, "Labels": None}, "nothing else may change"
    assert asked["Labels"].get("ours") is None, "what Compose sent must stay as it was"


@pytest.mark.parametrize(
    "asked",
    [
        body("2"),
        body("x"),
        body(service="other"),
        {"Labels": {"com.docker.compose.service": "web"}},
        {"Labels": {"com.docker.compose.container-number": "1"}},
        {"Labels": None},
        {},
    ],
)
def test_a_container_that_nobody_planned_is_not_created(asked):
    with pytest.raises(UnexpectedCreationError, match="p-web-9"):
        creation(scene(FRESH), "p-web-9", asked)


def test_its_own_name_as_an_alias_is_the_final_one_on_every_network():
    endpoints = {
        "p_default": {"Aliases": ["p-web-9", "web", "p-web-99"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}},
        "p_back": {"Aliases": None},
        "p_bare": None,
    }
    _, document, _, _ = creation(
        scene(REPLACING), "p-web-9", body(NetworkingConfig={"EndpointsConfig": endpoints, "More": 1})
    )
    assert document["NetworkingConfig"] == {
        "EndpointsConfig": {
            "p_default": {"Aliases": ["p-web-1", "web", "p-web-99"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}},
            "p_back": {"Aliases": None},
            "p_bare": None,
        },
        "More": 1,
    }
    assert endpoints["p_default"]["Aliases"][0] == "p-web-9"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, None),
        ({}, {}),
        ({"Aliases": []}, {"Aliases": []}),
        ({"Aliases": ["x"]}, {"Aliases": ["x"]}),
        ({"Aliases": ["a", "x", "a"], "MacAddress": "m"}, {"Aliases": ["b", "x", "b"], "MacAddress": "m"}),
    ],
)
def test_alias(endpoint, expected):
    assert with_alias(endpoint, "a", "b") == expected


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ({}, {}),
        ({"Memory": 0, "CpuShares": None, "CpusetCpus": "", "PidsLimit": -1}, {}),
        ({"Memory": 5, "NanoCpus": 7, "Privileged": True, "Binds": ["a:/b"]}, {"Memory": 5, "NanoCpus": 7}),
        ({"RestartPolicy": None}, {}),
        ({"RestartPolicy": {"Name": ""}}, {}),
        ({"RestartPolicy": {"Name": "no", "MaximumRetryCount": 3}}, {}),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}, {"RestartPolicy": "always"}),
        ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, {"RestartPolicy": "on-failure:3"}),
        ({"RestartPolicy": {"Name": "on-failure"}}, {"RestartPolicy": "on-failure"}),
    ],
)
def test_what_can_be_updated_in_one_form(host, kept):
    assert updatable(host) == kept
    assert json.loads(created_with({"HostConfig": host})) == kept


def test_a_container_without_settings_has_nothing_that_can_be_updated():
    assert created_with({}) == created_with({"HostConfig": None}) == "{}"


# -- inherited volumes ------------------------------------------------------------------------------------------------

ANONYMOUS = {"Type": "volume", "Target": "/d"}
NAMED = {"Type": "volume", "Source": "n", "Target": "/d"}
BIND = {"Type": "bind", "Source": "/srv", "Target": "/d"}
TMPFS = {"Type": "tmpfs", "Target": "/d"}
KEPT = {"Type": "volume", "Source": "before", "Target": "/d"}
KEPT_READ_ONLY = {**KEPT, "ReadOnly": True}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("wanted", "declared", "result"),
    [
        # The service mounts something of its own there: that counts, whatever was there before.
        ({"Mounts": [NAMED]}, True, [NAMED]),
        ({"Mounts": [NAMED]}, False, [NAMED]),
        ({"Mounts": [BIND]}, True, [BIND]),
        ({"Mounts": [TMPFS]}, True, [TMPFS]),
        ({"Binds": ["n:/d"]}, True, None),
        ({"Binds": ["n:/d:ro,z"]}, True, None),
        ({"Binds": ["/d"]}, True, None),
        ({"Tmpfs": {"/d": "size=1m"}}, True, None),
        # It mounts a volume without a name: the data that was there.
        ({"Mounts": [ANONYMOUS]}, False, "kept"),
        ({"Mounts": [ANONYMOUS]}, True, "kept"),
        ({"Mounts": [{**ANONYMOUS, "Source": ""}]}, False, "kept"),
        # It says nothing: the data that was there if the image calls it a volume, else nothing.
        ({}, True, "kept"),
        ({}, False, None),
        ({"Mounts": None, "Binds": None, "Tmpfs": None}, True, "kept"),
        ({"Binds": ["n:/elsewhere"]}, True, "kept"),
        ({"Mounts": [{**NAMED, "Target": "/elsewhere"}]}, True, ["kept", {**NAMED, "Target": "/elsewhere"}]),
    ],
)
def test_what_becomes_of_a_mount_of_the_replaced_container(read_only, wanted, declared, result):
    kept = KEPT_READ_ONLY if read_only else KEPT
    before = Inherited("volume", "before", "/d", read_only, declared)
    found = with_inherited_volumes({"HostConfig": {"Memory": 5, **wanted}}, [before])
    assert found["Memory"] == 5
    expected = {None: [], "kept": [kept]}.get(result) if not isinstance(result, list) else result
    expected = [kept if entry == "kept" else entry for entry in expected]
    assert sorted(found.get("Mounts") or [], key=str) == sorted(expected, key=str)


def test_no_path_is_ever_mounted_twice():
    """Every combination of what was there, what the image declares, and what the service wants at one path."""
    wishes = [{}, *({"Mounts": [mount]} for mount in (ANONYMOUS, NAMED, BIND, TMPFS)), {"Binds": ["x:/d"]}]
    for wanted, declared, was in itertools.product(wishes, (True, False), ("volume", "bind")):
        found = with_inherited_volumes({"HostConfig": wanted}, [Inherited(was, "before", "/d", False, declared)])
        targets = [mount["Target"] for mount in found.get("Mounts") or []]
        targets += [bind.split(":")[1] for bind in found.get("Binds") or []]
        assert len(targets) <= 1, (wanted, declared, was)
        assert (targets == []) == (wanted == {} and not declared)


def test_a_container_that_replaces_none_inherits_nothing():
    place = Place(3, "p-web-3", mounts=[Inherited("volume", "before", "/d", False, True)])
    _, document, _, _ = creation(scene(place), "p-web-3", body())
    assert "HostConfig" not in document


def test_a_container_that_replaces_one_inherits_its_data():
    place = Place(1, "p-web-1", "old", [Inherited("volume", "before", "/d", False, True)])
    _, document, _, _ = creation(scene(place), "p-web-1", body(HostConfig={"Init": True}))
    assert document["HostConfig"] == {"Init": True, "Mounts": [KEPT]}


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_a_list_without_the_hidden_and_with_successors_under_their_future_names():
    shown = Scene({}, {}, frozenset({"hidden"}), {"new": Successor("new", "web", REPLACING, "p-web-1.shipshape-new")})
    listed = [{"Id": name, "Names": [f"/{name}"], "State": "x"} for name in ("hidden", "other", "new")]
    assert shown.listed(listed) == [listed[1], {"Id": "new", "Names": ["/p-web-1"], "State": "x"}]


@pytest.mark.parametrize(("container_id", "name"), [("new", "/p-web-1"), ("other", "/x"), (None, "/x")])
def test_an_inspected_successor_has_its_future_name(container_id, name):
    shown = Scene({}, {}, created={"new": Successor("new", "web", REPLACING, "p-web-1.shipshape-new")})
    document = {"Name": "/x", **({"Id": container_id} if container_id else {})}
    assert shown.inspected(document)["Name"] == name
    assert document["Name"] == "/x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p-web-1", ("p-web-1", "")),
        (temporary_name("p-web-1"), ("p-web-1", "new")),
        (retired_name("p-web-1"), ("p-web-1", "old")),
        ("p.shipshape-new-1", ("p.shipshape-new-1", "")),
        ("p.shipshape-newer", ("p.shipshape-newer", "")),
    ],
)
def test_final_names(name, expected):
    assert final_name(name) == expected


@pytest.mark.parametrize("section", [None, "list", "volumes"])
def test_networks_and_volumes_are_shown_without_the_hash_of_their_definition(section):
    entry = {"Name": "p_x", "Labels": {"com.docker.compose.config-hash": "1", "com.docker.compose.project": "p"}}
    expected = {"Name": "p_x", "Labels": {"com.docker.compose.project": "p"}}
    wrapped = {
        None: lambda at: at,
        "list": lambda at: [at, at],
        "volumes": lambda at: {"Volumes": [at], "Warnings": []},
    }
    assert as_wanted(wrapped[section](entry)) == wrapped[section](expected)


@pytest.mark.parametrize("answer", [{}, [], {"Labels": None}, {"Volumes": None}, {"Volumes": []}, {"Name": "x"}])
def test_what_has_no_labels_is_shown_as_it_is(answer):
    assert as_wanted(answer) == answer
