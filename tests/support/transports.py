# SPDX-License-Identifier: GPL-3.0-or-later
"""Other ways to the machine's engine than its socket, and engines that misbehave: what test_connection.py connects to.

A `Forwarder` listens on loopback, with TLS or without, and passes every byte on to a Unix socket. An `Sshd` is a real
one with keys and a port of its own. A `Rogue` answers a connection in whatever wrong way it is told to.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIECE = 65536
Answer = Callable[[socket.socket], None]


@contextmanager
def forwarder(target: str, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port on 127.0.0.1 that leads to the Unix socket `target`."""

    def one(stream: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            ends.enter_context(stream)
            if context is not None:
                stream = ends.enter_context(_with_tls(stream, context))
            engine = ends.enter_context(socket.socket(socket.AF_UNIX))
            engine.connect(target)
            _bridge(stream, engine)

    with listener(socket.AF_INET, ("127.0.0.1", 0), one) as listening:
        yield int(listening.getsockname()[1])


def _with_tls(stream: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    with stream.dup() as bare:
        try:
            return context.wrap_socket(stream, server_side=True)
        except ssl.SSLError:
            # Whoever closes with something unread takes back what he has sent: here the alert that says why.
            bare.shutdown(socket.SHUT_WR)
            while bare.recv(PIECE):
                pass
            raise


def _bridge(ours: socket.socket, engine: socket.socket) -> None:
    """Bytes both ways in one thread, because a TLS stream is not for two; the engine's end is the end."""
    sources = [ours, engine]
    while True:
        pending = isinstance(ours, ssl.SSLSocket) and ours in sources and ours.pending()
        ready = [ours] if pending else select.select(sources, [], [])[0]
        for source in ready:
            piece = source.recv(PIECE)
            if piece:
                (engine if source is ours else ours).sendall(piece)
            elif source is engine:
                return
            else:
                sources.remove(ours)
                engine.shutdown(socket.SHUT_WR)


@contextmanager
def listener(family: int, address: Any, one: Answer) -> Iterator[socket.socket]:
    """Each connection to `address` is served by `one` in a thread of its own, and then closed."""
    accepting = socket.socket(family)
    accepting.bind(address)
    accepting.listen(256)

    def serve(stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            one(stream)

    def run() -> None:
        while True:
            try:
                stream, _ = accepting.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(stream,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield accepting
    finally:
        accepting.shutdown(socket.SHUT_RDWR)
        accepting.close()
        thread.join(20)


@dataclass(frozen=True)
class Certificates:
    """A CA, what it has signed for a server at 127.0.0.1 and for a client, and a CA that has signed neither."""

    folder: Path

    def __post_init__(self) -> None:
        for name in ("ca", "other-ca"):
            self._openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
                *("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"),
            )
        self._signed("server", "subjectAltName=IP:127.0.0.1,DNS:engine.test\nextendedKeyUsage=serverAuth\n")
        self._signed("cert", "extendedKeyUsage=clientAuth\n")
        # The names that the docker command looks for in DOCKER_CERT_PATH.
        (self.folder / "cert-key.pem").rename(self.folder / "key.pem")

    def context(self) -> ssl.SSLContext:
        """The server's side: clients must have a certificate, as with `dockerd --tlsverify`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server-key.pem")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def _signed(self, name: str, extensions: str) -> None:
        (self.folder / "extensions").write_text(extensions, encoding="ascii")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}-key.pem", "-out", "request"),
        )
        self._openssl(
            *("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"),
            *("-days", "2", "-extfile", "extensions", "-out", f"{name}.pem"),
        )

    def _openssl(self, *words: str) -> None:
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@dataclass
class Sshd:
    """An ssh server for this test alone. `bin` holds an `ssh` that knows its key and host key: put it first in PATH."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    def sessions(self) -> list[str]:
        """Command lines of the ssh clients that are still connected to it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"ssh") and str(self.port).encode() in words:
                    found.append(b" ".join(words).decode())
        return found


@contextmanager
def sshd(path: str = "") -> Iterator[Sshd]:
    """`path` is the PATH that commands get at the far end."""
    server = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    assert server, "these tests need an ssh server: apt-get install openssh-server"
    folder = Path(tempfile.mkdtemp(prefix="sst-"))
    port = free_port()
    for name in ("host", "user", "stranger"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user.pub", folder / "authorized")
    host_key = " ".join((folder / "host.pub").read_text(encoding="ascii").split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n", encoding="ascii")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin yes\nPidFile none\nMaxStartups 200\nSetEnv PATH={path or os.environ['PATH']}\n",
        encoding="utf-8",
    )
    ssh_client(folder / "bin", folder, "user")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Sshd(folder, port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        shutil.rmtree(folder)


def ssh_client(bin_folder: Path, folder: Path, key: str) -> Path:
    """An `ssh` in `bin_folder` that logs in with `key` and knows nothing of the machine's own settings."""
    bin_folder.mkdir(parents=True, exist_ok=True)
    config = bin_folder / "config"
    config.write_text(
        f"Host *\nIdentityFile {folder}/{key}\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
        "GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    script = bin_folder / "ssh"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return bin_folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def silent(stream: socket.socket) -> None:
    """Listens, and never says a word."""
    while stream.recv(PIECE):
        pass


def reset(stream: socket.socket) -> None:
    """Hangs up in the middle of the request."""
    stream.recv(1)
    if stream.family != socket.AF_UNIX:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def saying(text: bytes) -> Answer:
    """Answers whatever it is asked with `text`."""

    def answer(stream: socket.socket) -> None:
        stream.recv(PIECE)
        stream.sendall(text)

    return answer


@contextmanager
def rogue(answer: Answer, family: int = socket.AF_UNIX) -> Iterator[str]:
    """The address of something that is no engine."""
    folder = tempfile.mkdtemp(prefix="srg-")
    unix = family == socket.AF_UNIX
    try:
        with listener(family, f"{folder}/s" if unix else ("127.0.0.1", 0), answer) as listening:
            yield f"unix://{folder}/s" if unix else f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        shutil.rmtree(folder)
