# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.notices import notices
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Wishes, plan
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.resource_drift import resource_drift
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.summary import diff
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    project,
    seen,
)

OURS = {"com.docker.compose.project": "p", "com.docker.compose.config-hash": "123"}


def live(labels=None, **keys):
    """A network or volume of project p as the engine lists it."""
    return {"Name": "p_x", "Driver": "bridge", "Options": {}, "Labels": {**OURS, **(labels or {})}, **keys}


def found(section, wish, entry):
    wanted = project(**{section: {"x": {"name": "p_x", **wish}}})
    return {at.field: (at.wanted, at.found) for at in resource_drift(wanted, seen(**{section: {"p_x": entry}}))}


@pytest.mark.parametrize(
    ("wish", "entry", "fields"),
    [
        ({}, live(), {}),
        ({"driver": "bridge"}, live(), {}),
        ({"driver": "default"}, live(), {}),
        ({"driver": "macvlan"}, live(), {"driver": ("macvlan", "bridge")}),
        ({"driver_opts": {"mtu": "1400"}}, live(Options={"mtu": "1400", "filled.in": "by the engine"}), {}),
        ({"driver_opts": {"mtu": 1400}}, live(Options={"mtu": "1400"}), {}),
        ({"driver_opts": {"mtu": "1400"}}, live(Options=None), {"driver_opts.mtu": ("1400", None)}),
        ({"internal": True}, live(Internal=False), {"internal": (True, False)}),
        ({}, live(Internal=True), {"internal": (False, True)}),
        ({"attachable": True}, live(Attachable=True), {}),
        ({"enable_ipv6": True}, live(EnableIPv6=False), {"enable_ipv6": (True, False)}),
        ({}, live(EnableIPv6=True), {}),  # the engine's own default may say so
        ({"labels": {"team": "a"}}, live({"team": "a"}), {}),
        ({"labels": {"team": "b"}}, live({"team": "a"}), {"labels.team": ("b", "a")}),
        ({}, live({"team": "a"}), {"labels.team": (None, "a")}),
        ({"labels": {"com.docker.compose.mine": "a"}}, live(), {}),
        ({"ipam": {}}, live(IPAM={"Driver": "default", "Config": [{"Subnet": "172.18.0.0/16"}]}), {}),
        (
            {"ipam": {"config": [{"subnet": "10.1.0.0/24"}]}},
            live(IPAM={"Config": [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}]}),
            {},
        ),
        (
            {"ipam": {"driver": "mine", "config": [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.9"}]}},
            live(IPAM={"Driver": "default", "Config": [{"Subnet": "10.2.0.0/24"}]}),
            {
                "ipam.driver": ("mine", "default"),
                "ipam.config.0.subnet": ("10.1.0.0/24", "10.2.0.0/24"),
                "ipam.config.0.gateway": ("10.1.0.9", None),
            },
        ),
        ({"internal": True}, {**live(), "Labels": None}, {}),  # somebody else's, which Compose takes as it is
        ({"internal": True}, {**live(), "Labels": {"com.docker.compose.project": "other"}}, {}),
    ],
)
def test_networks(wish, entry, fields):
    assert found("networks", wish, entry) == {f"networks.x.{name}": values for name, values in fields.items()}


@pytest.mark.parametrize(
    ("wish", "entry", "fields"),
    [
        ({}, live(Driver="local", Options=None), {}),
        ({"driver": "nfs"}, live(Driver="local"), {"driver": ("nfs", "local")}),
        ({"driver_opts": {"type": "tmpfs"}}, live(Options={"type": "none"}), {"driver_opts.type": ("tmpfs", "none")}),
        ({"internal": True}, live(), {}),
    ],
)
def test_volumes(wish, entry, fields):
    assert found("volumes", wish, entry) == {f"volumes.x.{name}": values for name, values in fields.items()}


def test_what_is_not_there_and_what_is_external_does_not_differ():
    wanted = project(networks={"x": {"name": "p_x", "internal": True}, "e": {"name": "p_e", "external": True}})
    assert resource_drift(wanted, seen(networks={"p_e": {**live(), "Internal": True}})) == []


def test_it_is_told_and_nothing_is_done():
    wanted = project(
        networks={"x": {"name": "p_x", "internal": True, "driver": "y"}},
        volumes={"d": {"name": "p_d", "driver": "z"}},
    )
    look = seen(
        container(made_from=wanted), networks={"p_x": live(Internal=False)}, volumes={"p_d": live(Driver="local")}
    )
    made = plan(wanted, look, {}, Wishes())
    assert made.empty
    assert {at.action for at in made.drift} == {"none"}
    assert diff(made) == {"before": "", "after": ""}
    told = {at.code: at for at in notices(made)}
    assert told.keys() == {"network-definition-changed", "volume-definition-changed"}
    assert "driver, internal" in told["network-definition-changed"].message
    assert "p_x" in told["network-definition-changed"].message
    assert "data" in told["volume-definition-changed"].remedy
