# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the engine is, and how a stream to it is opened: a socket, TCP with or without TLS, or an ssh session."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..report.finding import failure
from .arguments import DEFAULT_HOST


@dataclass(frozen=True)
class Endpoint:
    """Where the engine is. `timeout` is in seconds and bounds one silent read or write, not a whole transfer."""

    host: str = DEFAULT_HOST
    tls: bool = False
    verify: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    tls_hostname: str | None = None
    api_version: str = "auto"
    timeout: int = 60

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Endpoint:
        """From the module options of doc_fragments/docker.py; DOCKER_CERT_PATH fills in the files as for the CLI."""
        directory = os.environ.get("DOCKER_CERT_PATH")
        files = {"ca": options.get("ca_path"), "cert": options.get("client_cert"), "key": options.get("client_key")}
        if directory and (options.get("tls") or options.get("validate_certs")):
            files = {name: path or _in(directory, f"{name}.pem", options) for name, path in files.items()}
        return cls(
            host=options.get("docker_host") or DEFAULT_HOST,
            tls=bool(options.get("tls") or options.get("validate_certs")),
            verify=bool(options.get("validate_certs")),
            tls_hostname=options.get("tls_hostname"),
            api_version=str(options.get("api_version") or "auto"),
            timeout=int(options.get("timeout") or 60),
            **files,
        )

    def opener(self, log: BinaryIO) -> Callable[[], socket.socket]:
        """What opens a stream. `log` takes what ssh says on standard error."""
        scheme, _dummy, rest = self.host.partition("://")
        if not _port_is_a_number(self.host):
            scheme = ""
        if scheme in ("unix", "http+unix"):
            return lambda: _open_unix("/" + rest.lstrip("/"), self.timeout)
        if scheme in ("tcp", "http", "https"):
            return lambda: _open_tcp(self)
        if scheme == "ssh":
            return lambda: _open_ssh(self, log)
        raise failure(
            "engine",
            "engine-address-invalid",
            f"docker_host {self.host!r} is not an address that can be used",
            "Use unix:///path, tcp://host:port, https://host:port or ssh://user@host",
        )


def _in(directory: str, name: str, options: Mapping[str, Any]) -> str | None:
    """A file of DOCKER_CERT_PATH. As with the Docker CLI one that is not there is done without, unless the engine's
    certificate is to be checked, which takes the authority's."""
    path = os.path.join(directory, name)
    needed = name == "ca.pem" and options.get("validate_certs")
    return path if needed or os.path.exists(path) else None


def _open_unix(path: str, timeout: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(timeout)
    try:
        stream.connect(path)
    except BaseException:
        stream.close()
        raise
    return stream


def _open_tcp(endpoint: Endpoint) -> socket.socket:
    address = urlsplit(endpoint.host)
    tls = endpoint.tls or address.scheme == "https"
    stream = socket.create_connection(
        (address.hostname or "localhost", address.port or (2376 if tls else 2375)), timeout=endpoint.timeout
    )
    if not tls:
        return stream
    for path in (endpoint.ca, endpoint.cert, endpoint.key):
        if path and not os.path.exists(path):
            remedy = "Check ca_path, client_cert, client_key and DOCKER_CERT_PATH"
            raise failure("engine", "engine-tls-file-missing", f"{path} does not exist", remedy)
    context = ssl.create_default_context(cafile=endpoint.ca)
    if not endpoint.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if endpoint.cert and endpoint.key:
        context.load_cert_chain(endpoint.cert, endpoint.key)
    return context.wrap_socket(stream, server_hostname=endpoint.tls_hostname or address.hostname)


def _port_is_a_number(host: str) -> bool:
    try:
        return urlsplit(host).port != -1
    except ValueError:
        return False


def _open_ssh(endpoint: Endpoint, log: BinaryIO) -> socket.socket:
    """The same bridge that the Docker CLI uses: `docker system dial-stdio` at the far end of an ssh session."""
    address = urlsplit(endpoint.host)
    ours, theirs = socket.socketpair()
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={endpoint.timeout}", "-T"]
    command += ["-l", address.username] if address.username else []
    command += ["-p", str(address.port)] if address.port else []
    with theirs:
        subprocess.Popen(
            [*command, "--", address.hostname or "", "docker", "system", "dial-stdio"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=log.fileno(),
        )
    ours.settimeout(endpoint.timeout)
    return ours
