# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import (
    Dependency,
    Endpoint,
    FileMount,
    UpdateConfig,
    project_from,
    seconds,
    secrets_of,
    unescaped,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import Masker
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import needs, project


@pytest.mark.parametrize(
    ("entry", "scale"),
    [
        ({}, 1),
        ({"scale": 3}, 3),
        ({"scale": 0}, 0),
        ({"deploy": {"replicas": 2}}, 2),
        ({"deploy": {"replicas": 0}}, 0),
        ({"deploy": {"resources": {}}}, 1),
        ({"deploy": None}, 1),
        ({"scale": 3, "deploy": {"replicas": 2}}, 3),
        ({"scale": 0, "deploy": {"replicas": 2}}, 0),
    ],
)
def test_scale(entry, scale):
    assert project({"web": entry}).services["web"].scale == scale


@pytest.mark.parametrize(
    "key",
    ["build", "pull_policy", "scale", "depends_on", "profiles", "x-note"],
)
def test_what_does_not_concern_a_container_is_left_out_of_its_definition(key):
    entry = {"command": ["a"], key: {"db": {}} if key == "depends_on" else "1"}
    assert project({"web": entry}).services["web"].definition == {"image": "a", "command": ["a"]}


def test_a_changed_number_of_replicas_is_no_changed_definition():
    one, two = (
        project({"web": {"deploy": {"replicas": number, "resources": {"limits": {"cpus": 1}}}}}).services["web"]
        for number in (1, 2)
    )
    assert one.definition == two.definition
    assert one.definition["deploy"] == {"resources": {"limits": {"cpus": 1}}}


def test_unset_keys_are_no_part_of_the_definition():
    # Compose prints `command: null` and `entrypoint: null` for every service.
    assert "command" not in project({"web": {"command": None}}).services["web"].definition


def test_dependencies_with_and_without_their_details():
    entry = {"depends_on": {"db": {"condition": "service_healthy", "required": False, "restart": True}, "cache": {}}}
    assert project({"web": entry}).services["web"].depends_on == (
        Dependency("db", "service_healthy", required=False, restart=True),
        Dependency("cache", "service_started", required=True, restart=False),
    )


@pytest.mark.parametrize(
    ("entry", "shared"),
    [
        ({}, set()),
        ({"network_mode": "host"}, set()),
        ({"network_mode": "container:db"}, set()),
        ({"network_mode": "service:db"}, {"db"}),
        ({"ipc": "service:db", "pid": "service:cache"}, {"db", "cache"}),
        ({"ipc": "shareable", "pid": "host"}, set()),
        ({"volumes_from": ["db", "cache:ro", "container:other:ro"]}, {"db", "cache"}),
    ],
)
def test_whose_container_it_is_bound_to(entry, shared):
    assert project({"web": entry}).services["web"].shares_with == shared


def test_names_of_containers():
    found = project({"web": {}, "db": {"container_name": "the-db"}}).services
    assert found["web"].container("p", 2) == "p-web-2"
    assert found["db"].container("p", 1) == "the-db"


def test_a_built_service_has_the_image_that_compose_names_for_it():
    found = project_from({"name": "p", "services": {"web": {"build": {"context": "."}}}}).services["web"]
    assert (found.image, found.builds) == ("p-web", True)


CHECK = {"test": ["CMD", "true"]}


@pytest.mark.parametrize(
    ("services", "one_shot", "serves"),
    [
        ({"web": {}}, False, False),
        ({"web": {"ports": [{"target": 80}]}}, False, True),
        ({"web": {"healthcheck": CHECK}}, False, True),
        ({"web": {"healthcheck": {**CHECK, "disable": True}}}, False, False),
        ({"web": {"healthcheck": {"disable": True}}}, False, False),
        ({"web": {}, "a": {"depends_on": needs("web")}}, False, True),
        ({"web": {}, "a": {"depends_on": needs("web", condition="service_healthy")}}, False, True),
        ({"web": {}, "a": {"depends_on": needs("web", condition="service_completed_successfully")}}, True, False),
        # A job that publishes a port while it works is a job all the same.
        (
            {
                "web": {"ports": [{"target": 80}]},
                "a": {"depends_on": needs("web", condition="service_completed_successfully")},
                "b": {"depends_on": needs("web")},
            },
            True,
            False,
        ),
    ],
)
def test_who_may_end_and_who_serves(services, one_shot, serves):
    web = project(services).services["web"]
    assert (web.one_shot, web.serves) == (one_shot, serves)


@pytest.mark.parametrize(
    ("services", "order"),
    [
        ({}, []),
        ({"b": {}, "a": {}}, ["a", "b"]),
        ({"a": {"depends_on": needs("z")}, "b": {}, "z": {}}, ["z", "a", "b"]),
        ({"a": {"depends_on": needs("c", "b")}, "b": {"depends_on": needs("d")}, "c": {}, "d": {}}, list("dbca")),
        ({"a": {"depends_on": needs("elsewhere")}}, ["a"]),
    ],
)
def test_services_come_after_what_they_depend_on(services, order):
    found = project_from({"name": "p", "services": services})
    assert [service.name for service in found.in_order()] == order


def test_a_project_owns_what_is_not_external():
    found = project(
        networks={"default": {"name": "p_default"}, "dmz": {"name": "lan", "external": True}, "back": None},
        volumes={"data": {"name": "moved"}, "old": {"external": True, "name": "old"}},
    )
    assert found.networks == {"p_default": "default", "p_back": "back"}
    assert found.volumes == {"moved": "data"}


def test_sections_may_be_absent_or_empty():
    bare = project_from({"name": "p", "services": None, "networks": None, "volumes": None})
    assert (bare.services, bare.networks, bare.volumes) == ({}, {}, {})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (None, 0),
        ("", 0),
        ("0s", 0),
        ("1s", 1),
        ("1m30s", 90),
        ("1h0m0s", 3600),
        ("500ms", 0.5),
        ("1m0.5s", 60.5),
        ("20us", 2e-5),
    ],
)
def test_durations(written, meant):
    assert seconds(written) == pytest.approx(meant)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, UpdateConfig()),
        ({"order": "start-first", "parallelism": 2}, UpdateConfig("start-first", 2)),
        ({"delay": "10s", "monitor": "1m0s"}, UpdateConfig(delay=10.0, monitor=60.0)),
        ({"failure_action": "continue", "monitor": "0s"}, UpdateConfig(failure_action="continue")),
    ],
)
def test_how_containers_are_replaced(entry, expected):
    assert project({"web": {"deploy": {"update_config": entry}}}).services["web"].update == expected


@pytest.mark.parametrize(
    ("entry", "mounts"),
    [
        ({}, []),
        (
            {"volumes": [{"type": "bind", "source": "/srv/a", "target": "/a"}]},
            [FileMount("volumes./a", "/srv/a", "/a", read_only=False)],
        ),
        (
            {"volumes": [{"type": "bind", "source": "/srv/a", "target": "/a", "read_only": True}]},
            [FileMount("volumes./a", "/srv/a", "/a", read_only=True)],
        ),
        ({"volumes": [{"type": "volume", "source": "a", "target": "/a"}, {"type": "tmpfs", "target": "/b"}]}, []),
        ({"configs": [{"source": "c"}]}, [FileMount("configs.c", "/srv/c", "/c", read_only=True)]),
        ({"configs": [{"source": "c", "target": "/x"}]}, [FileMount("configs.c", "/srv/c", "/x", read_only=True)]),
        ({"secrets": [{"source": "s"}]}, [FileMount("secrets.s", "/srv/s", "/run/secrets/s", read_only=True)]),
        (
            {"secrets": [{"source": "s", "target": "x"}]},
            [FileMount("secrets.s", "/srv/s", "/run/secrets/x", read_only=True)],
        ),
        ({"configs": [{"source": "inline"}], "secrets": [{"source": "nosuch"}]}, []),
    ],
)
def test_mounted_files(entry, mounts):
    found = project(
        {"web": entry}, configs={"c": {"file": "/srv/c"}, "inline": {"content": "x"}}, secrets={"s": {"file": "/srv/s"}}
    )
    assert list(found.services["web"].file_mounts) == mounts


@pytest.mark.parametrize(
    ("entry", "networks"),
    [
        ({}, None),
        ({"network_mode": "host", "networks": None}, None),
        ({"networks": {"default": None}}, {"p_default": Endpoint("default", frozenset({"web"}))}),
        ({"networks": {"lan": {"aliases": ["a"]}}}, {"office": Endpoint("lan", frozenset({"web", "a"}))}),
        (
            {"networks": {"lan": {"ipv4_address": "192.0.2.1", "priority": 1}}},
            {"office": Endpoint("lan", frozenset({"web"}), {"ipv4_address": "192.0.2.1"})},
        ),
    ],
)
def test_networks_by_their_names_in_the_engine(entry, networks):
    found = project({"web": entry}, networks={"lan": {"name": "office", "external": True}})
    assert found.services["web"].networks == networks


@pytest.mark.parametrize(
    ("ports", "published"),
    [
        ([], ()),
        ([{"target": 80}], ()),
        ([{"target": 80, "published": "0"}], ()),
        ([{"target": 80, "published": "8080"}], ("8080",)),
        ([{"target": 80, "published": "8080", "host_ip": "127.0.0.1"}], ("127.0.0.1:8080",)),
    ],
)
def test_published_ports(ports, published):
    assert project({"web": {"ports": ports}}).services["web"].published == published


@pytest.mark.parametrize(("written", "meant"), [("a$$b", "a$b"), ("$$$$", "$$"), ("plain", "plain")])
def test_a_literal_dollar(written, meant):
    assert unescaped(written) == meant


SECRET = "correct-horse-7"


@pytest.mark.parametrize(
    ("entry", "sections"),
    [
        ({"environment": {"DB_PASSWORD": SECRET}}, {}),
        ({"environment": {"DATABASE_URL": f"postgres://u:{SECRET}@db/x"}}, {}),
        ({}, {"secrets": {"s": {"content": SECRET}}}),
        ({"logging": {"driver": "splunk", "options": {"splunk-token": SECRET}}}, {}),
        ({"build": {"context": ".", "args": {"NPM_TOKEN": SECRET}}}, {}),
        ({"post_start": [{"command": ["a"], "environment": {"API_TOKEN": SECRET}}]}, {}),
        ({"labels": {"backup.password": SECRET}}, {}),
    ],
    ids=["environment", "url", "secret", "logging option", "build argument", "hook", "label"],
)
def test_wherever_a_secret_stands_it_is_known(entry, sections):
    assert SECRET in secrets_of(project({"web": entry}, **sections))


def test_a_secret_with_a_dollar_is_masked_as_compose_writes_it_too():
    entry = {"environment": {"PASSWORD": "correct$$horse"}, "command": ["serve", "--password", "correct$$horse"]}
    found = project({"web": entry})
    masker = Masker(secrets_of(found))
    assert masker.text("refused correct$horse") == "refused ***"
    assert "horse" not in str(masker.data(found.services["web"].definition["command"]))


@pytest.mark.parametrize(
    "word", ["p", "web", "the-name", "name", "studio", "registry.example", "data", "p_data", "back"]
)
def test_a_word_that_stands_in_the_open_is_no_secret(word):
    found = project(
        {
            "web": {
                "image": "registry.example/studio/app:1",
                "container_name": "the-name",
                "environment": {"A_PASSWORD": word},
            }
        },
        volumes={"data": None},
        networks={"back": None},
    )
    assert word not in secrets_of(found)


@pytest.mark.parametrize("value", [None, "", "3"])
def test_nothing_and_next_to_nothing_is_no_secret(value):
    assert Masker(secrets_of(project({"web": {"environment": {"A_PASSWORD": value}}}))).text("at 3 a.m.") == "at 3 a.m."


def test_where_files_that_are_to_come_lie_now():
    mounts = {"volumes": [{"type": "bind", "source": "/srv/shop/a$$b/x.conf", "target": "/x"}]}
    note = {"of": "/srv/shop", "at": "/tmp/plan-1/shop", "removed": ["gone$$1"]}
    service = project({"web": mounts}, **{"x-shipshape-staged": note}).services["web"]
    assert [mount.staged for mount in service.file_mounts] == ["/tmp/plan-1/shop/a$b/x.conf"]
    assert service.staged is not None
    assert service.staged.removed == {"gone$1"}
    assert service.staged.place("/srv/shop") == "/tmp/plan-1/shop"
    assert service.staged.place("/srv/shop2/x") == service.staged.place("/etc/hosts") == ""
