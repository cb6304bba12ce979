# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach the engine: one description, three ways to use it.

`open()` gives a raw stream (the view forwards whole connections over it); `get()` reads JSON through http.client,
because reading is the hot path (a request costs 0.6 ms, importing the SDK 0.25 s); `sdk()` is the Docker SDK for
Python, imported only when something is to be changed.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from ..report.finding import CRITICAL, Finding, ShipshapeError, failure

_FULL_ID = re.compile(r"\b[0-9a-f]{64}\b")
# An answer that was not read to its end is, up to here: that keeps the stream, which may be a whole ssh session.
_REST = 1 << 16
# The stream ends before ssh has said why.
_SSH_LAST_WORDS = 0.3
DEFAULT_HOST = "unix:///var/run/docker.sock"


class EngineRefusedError(ShipshapeError):
    """The engine answered a request with an error; `status` is the HTTP status."""

    def __init__(self, status: int, request: str, words: str) -> None:
        remedy = "The engine's own log (journalctl -u docker) may say more; mend the cause and run this again"
        message = with_short_ids(f"it answered {status} to {request}: {words}")
        super().__init__(Finding(CRITICAL, "engine", "engine-refused", message, remedy))
        self.status = status


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


class _Stream(http.client.HTTPConnection):
    """An HTTP connection over whatever stream the endpoint opens."""

    def __init__(self, opener: Callable[[], socket.socket]) -> None:
        super().__init__("docker")
        self._opener = opener

    def connect(self) -> None:
        self.sock = self._opener()


@dataclass
class Connection:
    """A connection to one engine; usable from several threads (each keeps a stream of its own)."""

    endpoint: Endpoint
    _local: threading.local = field(default_factory=threading.local, repr=False)
    _lock: Any = field(default_factory=threading.RLock, repr=False)
    _sdk: Any = field(default=None, repr=False)
    _tunnel: Any = field(default=None, repr=False)
    _version: str | None = None

    def __post_init__(self) -> None:
        self._ssh_log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the connection)
        self.open = self.endpoint.opener(self._ssh_log)

    def stream(self) -> http.client.HTTPConnection:
        """A new HTTP connection of the caller's own (the caller closes it)."""
        return _Stream(self.open)

    def get(self, path: str, **query: Any) -> Any:
        """GET `path` (below the API version) as JSON. Raises EngineRefusedError when it answers with an error."""
        return self._request("GET", self._target(path, query))

    @property
    def local(self) -> bool:
        """Whether the engine's files are this machine's files."""
        return self.endpoint.host.startswith("unix://")

    def put(self, path: str, body: bytes, /, **query: Any) -> None:
        """PUT `body`, a tar archive. Raises as `get` does."""
        self._request("PUT", self._target(path, query), body)

    def get_bytes(self, path: str, /, **query: Any) -> bytes:
        """GET `path` as it is: a tar archive."""
        body: bytes = self._request("GET", self._target(path, query), raw=True)
        return body

    def post(self, path: str, document: Mapping[str, Any], /, **query: Any) -> Any:
        """POST `document`; the answer as JSON. Raises as `get` does."""
        body = json.dumps(document).encode()
        return self._request("POST", self._target(path, query), body, kind="application/json")

    def delete(self, path: str, /, **query: Any) -> Any:
        """DELETE `path`; the answer as JSON. Raises as `get` does."""
        return self._request("DELETE", self._target(path, query))

    def read(self, path: str, take: Callable[[BinaryIO], Any], /, **query: Any) -> Any:
        """GET `path`, and what `take` makes of the answer while it comes in: it need not fit into memory, nor be read
        to its end. Raises as `get` does."""
        return self._request("GET", self._target(path, query), take=take)

    def _target(self, path: str, query: Mapping[str, Any]) -> str:
        text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
        return f"/v{self.api_version}{path}" + (f"?{urlencode(text)}" if text else "")

    def ping(self) -> dict[str, str]:
        """The engine's own account of itself (`ApiVersion`, `Version`, ...)."""
        answer: dict[str, str] = self._request("GET", "/version")
        return answer

    @property
    def api_version(self) -> str:
        if self._version is None:
            wanted = self.endpoint.api_version
            told = self.ping() if wanted == "auto" else {"ApiVersion": wanted}
            if not isinstance(told, dict) or "ApiVersion" not in told:
                raise self._no_engine()
            self._version = told["ApiVersion"]
        return self._version

    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        raw: bool = False,
        kind: str = "application/x-tar",
        take: Callable[[BinaryIO], Any] | None = None,
    ) -> Any:
        fresh = getattr(self._local, "stream", None) is None
        if fresh:
            self._local.stream = self.stream()
        stream: http.client.HTTPConnection = self._local.stream
        try:
            sent = {"Content-Type": kind} if body is not None else {}
            stream.request(method, target, body, headers={"Host": "docker", **sent})
            answer = stream.getresponse()
            if take is not None and answer.status < 400:
                taken = take(answer)
                answer.read(_REST)
                if not answer.isclosed():  # what is left is not worth waiting for
                    stream.close()
                return taken
            said = answer.read()
        except (OSError, http.client.HTTPException, ssl.SSLError) as error:
            stream.close()
            self._local.stream = None
            # An engine that restarted has closed the streams kept open: a new one tells whether it is back.
            # What the engine may have done already is not asked for a second time.
            if method in ("GET", "PUT") and not fresh and not isinstance(error, TimeoutError):
                return self._request(method, target, body, raw=raw, kind=kind, take=take)
            raise self.unreachable(error) from error
        if answer.status >= 400:
            raise EngineRefusedError(answer.status, f"{method} {target.partition('?')[0]}", words(said))
        if raw:
            return said
        try:
            return json.loads(said) if said else None
        except ValueError as error:
            raise self._no_engine() from error

    def sdk(self) -> Any:
        """The Docker SDK's low-level client, made on first use."""
        with self._lock:
            if self._sdk is None:
                try:
                    import docker
                except ImportError as error:
                    raise _missing_sdk() from error

                self._sdk = docker.APIClient(
                    base_url=self.local_address(), version=self.api_version, timeout=self.endpoint.timeout
                )
            return self._sdk

    def load_sdk(self) -> None:
        """Begins to load the SDK (a quarter of a second) beside what the caller does next. Raises if there is none."""
        if importlib.util.find_spec("docker") is None:
            raise _missing_sdk()
        threading.Thread(target=self._load_quietly, daemon=True).start()

    def _load_quietly(self) -> None:
        with suppress(Exception):  # whoever uses it is told the same
            self.sdk()

    def local_address(self) -> str:
        """The engine as a socket on this machine, for those who need one: Compose, and the SDK (which wants a library
        of its own for SSH). For an engine elsewhere that is a tunnel, which lives as long as this process."""
        if self.local:
            return self.endpoint.host
        with self._lock:
            if self._tunnel is None:
                import atexit

                from .view import Tunnel

                self._tunnel = Tunnel(self).__enter__()
                atexit.register(self._tunnel.__exit__)
        address: str = self._tunnel.address
        return address

    def _no_engine(self) -> ShipshapeError:
        what = f"what answers at {self.endpoint.host} is no Docker engine"
        return failure("engine", "engine-unreachable", what, "Check docker_host / DOCKER_HOST")

    def _ssh_said(self) -> str:
        """The last line that ssh wrote, for a message; '' for other ways to the engine."""
        if self.endpoint.host.startswith("ssh://"):
            time.sleep(_SSH_LAST_WORDS)
        self._ssh_log.seek(0)
        lines = self._ssh_log.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"; ssh says: {said[-1]}" if said else ""

    def unreachable(self, error: BaseException) -> Exception:
        """The finding for an engine that cannot be reached: says which of the usual causes it is."""
        host = self.endpoint.host
        if isinstance(error, PermissionError):
            return failure(
                "engine",
                "engine-permission-denied",
                f"this user may not use the engine's socket at {host}",
                "Run the task with become: true, or add the user to the docker group",
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return failure(
                "engine",
                "engine-not-running",
                f"nothing answers at {host} ({error.strerror})",
                "Start the engine (systemctl start docker), or check docker_host / DOCKER_HOST",
            )
        if isinstance(error, TimeoutError):
            return failure(
                "engine",
                "engine-silent",
                f"no answer from {host} within {self.endpoint.timeout} s",
                "Look at the engine's own log; raise `timeout` if it is only slow",
            )
        return failure(
            "engine",
            "engine-unreachable",
            f"the connection to {host} failed: {_one_line(error)}{self._ssh_said()}",
            "Check that the engine runs and that address, TLS files and ssh login are right; then run this again",
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _missing_sdk() -> ShipshapeError:
    from ansible.module_utils.basic import missing_required_lib

    what = missing_required_lib("docker", url="https://pypi.org/project/docker/").rstrip(".")
    remedy = "Role shipshape.deploy.engine makes an environment that has it: use it as ansible_python_interpreter"
    return failure("target", "docker-sdk-missing", what, remedy)


def words(body: bytes) -> str:
    """The engine's own message in the body of a refusal, on one line."""
    try:
        message = json.loads(body).get("message", "")
    except (ValueError, AttributeError):
        message = body.decode("utf-8", "replace")
    return " ".join(str(message).split())


def with_short_ids(text: str) -> str:
    """`text` with full ids cut to the twelve digits that people read."""
    return _FULL_ID.sub(lambda found: found[0][:12], text)


def path_segment(text: str) -> str:
    """`text` as one segment of a request path."""
    return quote(text, safe=":")
