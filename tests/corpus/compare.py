# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two looks at a project show the same: pure functions on inspect documents.

Everything is compared but what EXCEPTIONS names. What differs between two runs of Compose itself is either an id
(written as the name of what it identifies), an address, a time, or an order that Compose draws from a Go map.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from tests.corpus.observe import Document, Observed, is_anonymous

# Field -> why it may differ. A `*` stands for any name.
EXCEPTIONS = {
    "containers.*.Id": "identity",
    "containers.*.Created": "time",
    "containers.*.Config.Labels.com.docker.compose.replace": "Compose's note to itself of what it replaced",
    "containers.*.LogPath": "contains the id",
    "containers.*.HostnamePath": "contains the id",
    "containers.*.HostsPath": "contains the id",
    "containers.*.ResolvConfPath": "contains the id",
    "containers.*.GraphDriver": "contains the layer's id",
    "containers.*.ExecIDs": "identity of healthchecks just running",
    "containers.*.NetworkSettings.*.EndpointID": "identity",
    "containers.*.NetworkSettings.*.IPAddress": "the engine's choice; a fixed one is in IPAMConfig",
    "containers.*.NetworkSettings.*.IPPrefixLen": "follows from the network's subnet, compared there",
    "containers.*.NetworkSettings.*.GlobalIPv6Address": "the engine's choice; a fixed one is in IPAMConfig",
    "containers.*.NetworkSettings.*.Gateway": "follows from the network's subnet, compared there",
    "containers.*.NetworkSettings.*.IPv6Gateway": "follows from the network's subnet, compared there",
    "containers.*.NetworkSettings.Networks.host.DNSNames": "filled in by any rename, and nothing resolves there",
    "containers.*.NetworkSettings.Networks.none.DNSNames": "filled in by any rename, and nothing resolves there",
    "networks.*.Id": "identity",
    "networks.*.Created": "time",
    "networks.*.Containers": "the same is compared from the containers' side",
    "volumes.*.CreatedAt": "time",
}
# Of these only the part named is compared.
STATE = ("Status", "ExitCode")
# Compose fills these from Go maps: their order differs from run to run.
UNORDERED = {"Env", "Binds", "Mounts", "Ulimits", "ExtraHosts", "Links", "VolumesFrom", "Aliases", "DNSNames"}
OUR_LABEL = "shipshape"
HASH = "com.docker.compose.config-hash"
DEPENDS_ON = "com.docker.compose.depends_on"
# What the engine generates from the address it chose.
GENERATED_MAC = re.compile(r"02:42(:[0-9a-f]{2}){4}")
# Docker's default address pools: a subnet in them was chosen by the engine.
POOLS = [ipaddress.IPv4Network(pool) for pool in ("172.16.0.0/12", "192.168.0.0/16")]


def differences(left: Observed, right: Observed) -> list[str]:
    """One line a difference, `left` being what is expected."""
    return list(_differ("", plain(left), plain(right)))


def plain(observed: Observed) -> Document:
    """The project without what EXCEPTIONS names, ids written as names, unordered lists sorted."""
    names = _names(observed)
    data = {
        "containers": {name: _container(document) for name, document in observed.containers.items()},
        "networks": {name: _network(document) for name, document in observed.networks.items()},
        "volumes": observed.volumes,
        "kept": observed.kept,
        "files": observed.files,
    }
    result: Document = _rewrite(data, (), names)
    return result


def _container(document: Document) -> Document:
    state = {name: document["State"][name] for name in STATE}
    settings = document["NetworkSettings"]
    # The host's ports are in HostConfig as far as the definition gives them; here the engine's choices come on top.
    ports = {port: len(bindings or []) for port, bindings in (settings["Ports"] or {}).items()}
    config = document["Config"]
    if _names_a_container(document["HostConfig"]):
        config = {**config, "Labels": {**config["Labels"], HASH: "<hash over another container's id>"}}
    settings = {"Networks": settings["Networks"], "Ports": ports}
    return {**document, "Config": config, "State": state, "NetworkSettings": settings}


def _names_a_container(host: Document) -> bool:
    modes = [host.get(field) or "" for field in ("NetworkMode", "IpcMode", "PidMode")]
    return bool(host.get("VolumesFrom")) or any(mode.startswith("container:") for mode in modes)


def _network(document: Document) -> Document:
    ipam = document["IPAM"]
    config = [{} if _chosen_by_engine(pool) else pool for pool in ipam["Config"] or []]
    return {**document, "IPAM": {**ipam, "Config": config}}


def _chosen_by_engine(pool: Document) -> bool:
    subnet = ipaddress.ip_network(pool["Subnet"])
    return isinstance(subnet, ipaddress.IPv4Network) and any(subnet.subnet_of(pool) for pool in POOLS)


def _names(observed: Observed) -> dict[str, str]:
    """Id -> name, for containers, networks and anonymous volumes (called by where they are mounted)."""
    names: dict[str, str] = {}
    mounted: dict[str, list[str]] = {}
    for name, document in observed.containers.items():
        names[document["Id"]] = f"<id of {name}>"
        names[document["Id"][:12]] = f"<id of {name}>"
        for mount in document["Mounts"]:
            if is_anonymous(mount):
                mounted.setdefault(mount["Name"], []).append(f"{name}:{mount['Destination']}")
        for network, endpoint in document["NetworkSettings"]["Networks"].items():
            if endpoint["NetworkID"]:
                names[endpoint["NetworkID"]] = f"<id of {network}>"
    for volume, places in mounted.items():
        names[volume] = f"<anonymous volume of {', '.join(sorted(places))}>"
    return names


def _rewrite(value: Any, path: tuple[str, ...], names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not _excepted((*path, key))}
        return {names.get(key, key): _rewrite(item, (*path, key), names) for key, item in kept.items()}
    if isinstance(value, list):
        items = [_rewrite(item, (*path, "[]"), names) for item in value]
        return sorted(items, key=repr) if path[-1] in UNORDERED else items
    if isinstance(value, str):
        return _text(value, path, names)
    return value


def _text(value: str, path: tuple[str, ...], names: dict[str, str]) -> str:
    if path[-1] == "MacAddress" and GENERATED_MAC.fullmatch(value):
        return "<generated>"
    if path[-1] == DEPENDS_ON:
        return ",".join(sorted(value.split(",")))
    return re.sub(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b", lambda found: names.get(found[0], found[0]), value)


def _excepted(path: tuple[str, ...]) -> bool:
    return (path[-2:-1] == ("Labels",) and OUR_LABEL in path[-1]) or any(
        pattern.fullmatch(".".join(path)) for pattern in _PATTERNS
    )


def _differ(path: str, left: Any, right: Any) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            yield from _differ(f"{path}.{key}" if path else key, left.get(key, "<absent>"), right.get(key, "<absent>"))
    elif left != right:
        yield f"{path}: {left!r} became {right!r}"


_PATTERNS = [re.compile(re.escape(field).replace(r"\*", ".+")) for field in EXCEPTIONS]
