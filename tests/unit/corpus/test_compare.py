# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparer finds what differs, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.corpus.compare import differences
from tests.corpus.observe import Observed

ONE, TWO, NETWORK, VOLUME = "1" * 64, "2" * 64, "3" * 64, "4" * 64


def look(identity: str = ONE, volume: str = VOLUME, network: str = NETWORK) -> Observed:
    """One container on one network with an anonymous volume, as an engine shows it; ids are the arguments."""
    container = {
        "Id": identity,
        "Created": f"at {identity[0]}",
        "Name": "/p-web-1",
        "Args": ["3600"],
        "State": {"Status": "running", "ExitCode": 0, "Pid": int(identity[0]), "StartedAt": identity[0]},
        "LogPath": f"/var/lib/docker/containers/{identity}/{identity}-json.log",
        "Config": {
            "Hostname": identity[:12],
            "Env": ["A=1", "B=2"],
            "Labels": {
                "com.docker.compose.config-hash": "h1",
                "com.docker.compose.depends_on": "a:service_started:false,b:service_healthy:true",
                "com.docker.compose.service": "web",
            },
        },
        "HostConfig": {
            "Memory": 64,
            "NetworkMode": "p_default",
            "Binds": [f"{volume}:/data"],
            "VolumesFrom": None,
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]},
        },
        "Mounts": [
            {"Type": "volume", "Name": volume, "Source": f"/v/{volume}/_data", "Destination": "/data", "RW": True}
        ],
        "NetworkSettings": {
            "SandboxID": identity,
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": f"3276{identity[0]}"}]},
            "Networks": {
                "p_default": {
                    "Aliases": ["web", "p-web-1"],
                    "DNSNames": ["p-web-1", "web", identity[:12]],
                    "IPAMConfig": None,
                    "NetworkID": network,
                    "EndpointID": identity[::-1],
                    "Gateway": "172.18.0.1",
                    "IPAddress": f"172.18.0.{identity[0]}",
                    "MacAddress": f"02:42:ac:12:00:0{identity[0]}",
                }
            },
        },
    }
    net = {
        "Name": "p_default",
        "Id": network,
        "Created": f"at {network[0]}",
        "Driver": "bridge",
        "IPAM": {"Driver": "default", "Config": [{"Subnet": f"172.{18 + int(network[0])}.0.0/16"}]},
        "Containers": {identity: {}},
        "Labels": {"a": "b"},
    }
    data = {"Name": "p_data", "CreatedAt": f"at {identity[0]}", "Driver": "local", "Options": {"o": "bind"}}
    return Observed(
        {"p-web-1": container}, {"p_default": net}, {"p_data": data}, {"p-web-1:/data": True}, {"p-web-1:/f": "444 x"}
    )


def test_ids_addresses_times_and_order_are_no_difference() -> None:
    right = look(TWO, volume="5" * 64, network="6" * 64)
    container = right.containers["p-web-1"]
    container["Config"]["Env"].reverse()
    container["Config"]["Labels"]["com.docker.compose.depends_on"] = "b:service_healthy:true,a:service_started:false"
    container["Config"]["Labels"]["io.github.shipshape.applied"] = "{}"
    container["Config"]["Labels"]["com.docker.compose.replace"] = ONE
    assert differences(look(), right) == []


def at(document: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *parents, last = path.split("/")
    for name in parents:
        document = document[name]
    return document, last


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Args", ["3601"]),
        ("Name", "/p-web-2"),
        ("State/Status", "exited"),
        ("State/ExitCode", 3),
        ("Config/Hostname", "web"),
        ("Config/Env", ["A=1"]),
        ("Config/Labels/com.docker.compose.config-hash", "h2"),
        ("Config/Labels/com.docker.compose.depends_on", "a:service_started:true,b:service_healthy:true"),
        ("Config/Labels/own", "new"),
        ("HostConfig/Memory", 65),
        ("HostConfig/Binds", []),
        ("HostConfig/New", {"any": 1}),
        ("HostConfig/PortBindings/80/tcp", []),
        ("NetworkSettings/Ports", {}),
        ("NetworkSettings/Networks/p_default/Aliases", ["web"]),
        ("NetworkSettings/Networks/p_default/MacAddress", "06:00:00:00:00:01"),
        ("NetworkSettings/Networks/p_default/IPAMConfig", {"IPv4Address": "10.213.1.1"}),
        ("NetworkSettings/Networks/p_other", {"NetworkID": ""}),
    ],
)
def test_a_container_that_differs_is_told(path: str, value: Any) -> None:
    right = look(TWO)
    document = right.containers["p-web-1"]
    if path == "HostConfig/PortBindings/80/tcp":
        document["HostConfig"]["PortBindings"]["80/tcp"] = value
    else:
        parent, last = at(document, path)
        parent[last] = value
    found = differences(look(), right)
    assert len(found) == 1
    assert any(name in found[0] for name in path.split("/")[-2:])


def drop_container(observed: Observed) -> None:
    observed.containers.clear()


def mount_read_only(observed: Observed) -> None:
    observed.containers["p-web-1"]["Mounts"][0]["RW"] = False


def rename_network(observed: Observed) -> None:
    observed.networks["p_other"] = observed.networks.pop("p_default")


def give_subnet(observed: Observed) -> None:
    observed.networks["p_default"]["IPAM"]["Config"] = [{"Subnet": "10.213.9.0/24"}]


def change_volume(observed: Observed) -> None:
    observed.volumes["p_data"]["Options"] = None


def lose_content(observed: Observed) -> None:
    observed.kept["p-web-1:/data"] = False


def change_file(observed: Observed) -> None:
    observed.files["p-web-1:/f"] = "400 x"


@pytest.mark.parametrize(
    "alter", [drop_container, mount_read_only, rename_network, give_subnet, change_volume, lose_content, change_file]
)
def test_a_project_that_differs_is_told(alter: Callable[[Observed], None]) -> None:
    right = copy.deepcopy(look())
    alter(right)
    assert differences(look(), right)
    assert differences(right, look())


def test_the_hash_over_another_containers_id_is_no_difference_but_which_container_is() -> None:
    def sharing(identity: str, mode: str, digest: str) -> Observed:
        observed = look(identity)
        other = copy.deepcopy(observed.containers["p-web-1"])
        other["Id"], other["Name"] = identity[::-1].replace(identity[0], "9"), "/p-side-1"
        other["HostConfig"]["NetworkMode"] = mode
        other["Config"]["Labels"]["com.docker.compose.config-hash"] = digest
        observed.containers["p-side-1"] = other
        return observed

    left = sharing(ONE, f"container:{ONE}", "h1")
    assert differences(left, sharing(TWO, f"container:{TWO}", "h2")) == []
    assert len(differences(left, sharing(TWO, f"container:{'7' * 64}", "h2"))) == 1
    assert len(differences(sharing(ONE, "host", "h1"), sharing(TWO, "host", "h2"))) == 1
