# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach the engine: one description, three ways to use it.

`open()` gives a raw stream (the view forwards whole connections over it); `get()`, `act()` and their like speak through
http.client, because they are the hot path (a request costs 0.6 ms, one of the SDK 3 ms, importing it 0.25 s); `sdk()`
is the Docker SDK for Python, for what takes more than a request and an answer: logs, and commands run inside.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import select
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from ..report.finding import CRITICAL, Finding, ShipshapeError, failure
from .endpoint import Endpoint

_FULL_ID = re.compile(r"\b[0-9a-f]{64}\b")
# An answer that was not read to its end is, up to here: that keeps the stream, which may be a whole ssh session.
_REST = 1 << 16
# The stream ends before ssh has said why.
_SSH_LAST_WORDS = 0.3


class EngineRefusedError(ShipshapeError):
    """The engine answered a request with an error; `status` is the HTTP status."""

    def __init__(self, status: int, request: str, words: str) -> None:
        remedy = "The engine's own log (journalctl -u docker) may say more; mend the cause and run this again"
        message = with_short_ids(f"it answered {status} to {request}: {words}")
        super().__init__(Finding(CRITICAL, "engine", "engine-refused", message, remedy))
        self.status = status
        self.words = words


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
    _loading: threading.Thread | None = field(default=None, repr=False)

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

    def act(self, path: str, /, *, patience: float = 0.0, **query: Any) -> None:
        """POST without a body: start, stop and their like, which may take `patience` seconds longer than a request.
        Raises as `get` does."""
        self._request("POST", self._target(path, query), b"", patience=patience)

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

    def agree(self) -> None:
        """Asks for the version to speak, once: of several threads that begin together each would ask."""
        self._version = self.api_version

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
        patience: float = 0.0,
    ) -> Any:
        stream, fresh = self._kept_stream()
        try:
            if stream.sock is None:
                stream.connect()
            stream.sock.settimeout(self.endpoint.timeout + patience)
            sent = {"Content-Type": kind} if body else {}
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
                return self._request(method, target, body, raw=raw, kind=kind, take=take, patience=patience)
            raise self.unreachable(error) from error
        if answer.status >= 400:
            raise EngineRefusedError(answer.status, f"{method} {target.partition('?')[0]}", words(said))
        if raw:
            return said
        try:
            return json.loads(said) if said else None
        except ValueError as error:
            raise self._no_engine() from error

    def _kept_stream(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's stream, and whether it is a new one. One that the engine has closed meanwhile, or that holds
        what nobody asked for, is not used again: a request that changes something could not be repeated on another."""
        kept: http.client.HTTPConnection | None = getattr(self._local, "stream", None)
        if kept is not None and kept.sock is not None and _readable(kept.sock):
            kept.close()
            kept = None
        if kept is not None:
            return kept, False
        self._local.stream = made = self.stream()
        return made, True

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
        """Begins to load the SDK (a quarter of a second) beside what the caller does next."""
        if self._loading is None:
            self._loading = threading.Thread(target=self._load_quietly, daemon=True)
            self._loading.start()

    def _load_quietly(self) -> None:
        with suppress(Exception):  # whoever uses it is told the same
            self.sdk()

    def need_sdk(self) -> None:
        """Raises when the SDK is missing, without loading it."""
        if importlib.util.find_spec("docker") is None:
            raise _missing_sdk()

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


def _readable(stream: socket.socket) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(0))


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
