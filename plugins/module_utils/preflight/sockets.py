# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on this machine, out of /proc."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from .ports import Port

# A TCP socket that listens, a UDP socket that is bound: state 10 and 7 of the kernel.
_STATES = {"tcp": "0A", "udp": "07"}


def listening(root: str = "/proc/net") -> dict[Port, int]:
    """The ports that somebody on this machine listens on, each with its socket's inode."""
    found: dict[Port, int] = {}
    for protocol, state in _STATES.items():
        for name in (protocol, f"{protocol}6"):
            with suppress(OSError), open(f"{root}/{name}", encoding="ascii") as stream:  # a kernel without IPv6
                found.update(parsed(stream.readlines()[1:], protocol, state))
    return found


def parsed(lines: Iterable[str], protocol: str, state: str) -> Iterator[tuple[Port, int]]:
    """The lines of /proc/net/tcp and its like."""
    for line in lines:
        words = line.split()
        if len(words) > 9 and words[3] == state:
            address, _colon, port = words[1].partition(":")
            yield Port(_address(address), int(port, 16), protocol), int(words[9])


def _address(digits: str) -> str:
    """An address as the kernel writes it: words of four bytes, each back to front."""
    raw = bytes.fromhex(digits)
    raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return "" if address.is_unspecified else str(mapped or address)


PROXY = "process docker-proxy "  # what `process` says of the engine's own, which listens for a container


def process(inode: int) -> str:
    """The process that has the socket, for a message. Those of others can only be told by root."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                if os.readlink(descriptor.path) == f"socket:[{inode}]":
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                        return f"process {stream.read().strip()} (pid {pid})"
    return "another process"
