# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a registry, as the engine itself would take it: its proxies, mirrors, authorities and exceptions.

All of it stands in the engine's account of itself (GET /info) and in its directory of certificates.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from .image_name import HUB

_HUB_ADDRESS = "registry-1.docker.io"
_CERTIFICATES = ("/etc/docker/certs.d", "~/.config/docker/certs.d")
# Longer than any registry that is well takes for a manifest, short enough for somebody who waits.
_SECONDS = 15.0


@dataclass(frozen=True)
class Ways:
    """How the engine reaches registries."""

    insecure_networks: tuple[str, ...] = ()
    insecure_hosts: frozenset[str] = frozenset()
    mirrors: tuple[str, ...] = ()
    https_proxy: str = ""
    http_proxy: str = ""
    no_proxy: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Ways:
        """Out of what the engine says of itself."""
        registries = info.get("RegistryConfig") or {}
        indexes = registries.get("IndexConfigs") or {}
        return cls(
            insecure_networks=tuple(registries.get("InsecureRegistryCIDRs") or ()),
            insecure_hosts=frozenset(name for name, entry in indexes.items() if not entry.get("Secure", True)),
            mirrors=tuple(registries.get("Mirrors") or ()),
            https_proxy=str(info.get("HttpsProxy") or ""),
            http_proxy=str(info.get("HttpProxy") or ""),
            no_proxy=tuple(part.strip() for part in str(info.get("NoProxy") or "").split(",") if part.strip()),
        )

    def addresses(self, host: str) -> list[str]:
        """Where images of `host` are asked for, in order, as URLs; without a scheme it is the registry's own."""
        return [*(mirror.rstrip("/") for mirror in self.mirrors), _HUB_ADDRESS] if host == HUB else [host]

    def insecure(self, host: str) -> bool:
        """Whether the engine would talk to `host` (HOST[:PORT]) without checking who answers, and without TLS."""
        name = urlsplit(f"//{host}").hostname or ""
        if host in self.insecure_hosts or name in self.insecure_hosts:
            return True
        networks = [ipaddress.ip_network(network, strict=False) for network in self.insecure_networks]
        return bool(networks) and any(address in network for address in _resolved(name) for network in networks)

    def proxy(self, host: str, scheme: str) -> str:
        """The proxy that `host` is reached through, '' for none."""
        proxy = self.https_proxy if scheme == "https" else self.http_proxy
        return "" if not proxy or excepted(host, self.no_proxy) else proxy


def _resolved(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(name)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def excepted(host: str, no_proxy: Iterable[str]) -> bool:
    """Whether `host` is one of those that no proxy is used for (by name, domain, address or network)."""
    parts = urlsplit(f"//{host}")
    name = parts.hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in no_proxy:
        wanted, _colon, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if port and port != str(parts.port or ""):
            continue
        wanted = wanted.lstrip("*").lower()
        if not wanted or name == wanted.lstrip(".") or name.endswith("." + wanted.lstrip(".")):
            return True
        if address is not None and "/" in wanted:
            try:
                if address in ipaddress.ip_network(wanted, strict=False):
                    return True
            except ValueError:
                continue
    return False


def connect(ways: Ways, scheme: str, host: str, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """A connection (not yet open) to HOST[:PORT], through the proxy where there is one."""
    proxy = ways.proxy(host, scheme)
    meeting = urlsplit(proxy if "://" in proxy else f"//{proxy}") if proxy else urlsplit(f"//{host}")
    name = meeting.hostname or ""
    if scheme == "http":
        stream = http.client.HTTPConnection(name, meeting.port or 80, timeout=_SECONDS)
    else:
        stream = http.client.HTTPSConnection(name, meeting.port or 443, timeout=_SECONDS, context=context)
    if proxy:
        target = urlsplit(f"//{host}")
        login = unquote(f"{meeting.username or ''}:{meeting.password or ''}")
        known = {"Proxy-Authorization": "Basic " + b64encode(login.encode()).decode()} if meeting.username else {}
        stream.set_tunnel(target.hostname or "", target.port or (443 if scheme == "https" else 80), known)
    return stream


def trust(host: str, verify: bool, directories: Sequence[str] = _CERTIFICATES) -> ssl.SSLContext:
    """Whom to believe that they are `host`: the system's authorities, and those that the engine has for it."""
    context = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in directories:
        folder = os.path.join(os.path.expanduser(directory), host)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, path[: -len("cert")] + "key")
    return context
