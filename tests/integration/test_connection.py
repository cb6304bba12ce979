# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way to the engine that the modules know, and what they say when there is no way."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, SOCKET, Project
from tests.support.modules import ModuleCall
from tests.support.stacks import Stack, codes, contract, kinds, service
from tests.support.transports import (
    Answer,
    Certificates,
    Sshd,
    forwarder,
    free_port,
    reset,
    rogue,
    saying,
    silent,
    ssh_client,
    sshd,
)

ENGINE = SOCKET.removeprefix("unix://")


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[str]:
    """Address of the engine behind TLS that asks for a client's certificate."""
    with forwarder(ENGINE, certificates.context()) as port:
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with sshd() as running:
        yield running


def whole_story(stack: Stack, **connection: Any) -> None:
    """Everything that goes over a connection: reading, building, creating, writing into a container, replacing."""
    (stack.project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN echo built > /srv/v\n", encoding="utf-8")
    (stack.project.folder / "big").write_bytes(os.urandom(3 << 20))
    web = {"configs": [{"source": "app", "target": "/etc/app.conf"}], "image": f"{stack.name}-web:1", "build": "."}
    top = {"configs": {"app": {"content": "colour=blue\n"}}}
    stack.write({"web": {**service(), **web}, "db": service()}, **top)
    done, _ = stack.predicted(**connection)
    assert ("build", f"image {stack.name}-web:1") in kinds(done)
    assert stack.shell("web", "cat /srv/v /etc/app.conf") == "built\ncolour=blue\n"
    db = stack.identities("db")
    stack.write({"web": {**service(environment={"A": "1"}), **web}, "db": service()}, **top)
    done, _ = stack.predicted(**connection)
    assert kinds(done) == {("recreate", f"{stack.name}-web-1")}
    assert stack.identities("db") == db
    stack.write({"web": service("echo broken; exit 1"), "db": service()})
    result = stack.fails(**connection)
    assert "broken" in result["msg"]
    assert stack.shell("web", "cat /etc/app.conf") == "colour=blue\n"
    stack.predicted(state="absent", **connection)
    assert not stack.containers()


# -- ways that lead there ---------------------------------------------------------------------------------------------


def test_tcp(stack: Stack) -> None:
    with forwarder(ENGINE) as port:
        whole_story(stack, docker_host=f"tcp://127.0.0.1:{port}")


def test_tcp_with_tls(stack: Stack, tls: str, certificates: Certificates) -> None:
    path = certificates.path
    files = {"ca_path": path("ca"), "client_cert": path("cert"), "client_key": path("key")}
    whole_story(stack, docker_host=tls, validate_certs=True, **files)


def test_tls_as_the_docker_command_is_told_of_it(stack: Stack, tls: str, certificates: Certificates) -> None:
    stack.write({"web": service()})
    environment = {"DOCKER_HOST": tls, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates.folder)}
    stack.env.update(environment)
    stack.predicted(docker_host=None)
    assert stack.running() == stack.names("web")


def test_tls_to_a_server_under_another_name(stack: Stack, tls: str, certificates: Certificates) -> None:
    path = certificates.path
    files = {"ca_path": path("ca"), "client_cert": path("cert"), "client_key": path("key")}
    where = {"docker_host": tls.replace("127.0.0.1", "localhost"), "validate_certs": True, **files}
    stack.write({"web": service()})
    result = stack.fails(check=True, **where)
    assert "engine-unreachable" in codes(result)
    assert "localhost" in result["msg"], "the message does not say which name the certificate lacks"
    assert not stack.run(check=True, **where, tls_hostname="engine.test").get("failed")
    assert not stack.deploy(**where, tls_hostname="engine.test").get("failed")


def test_ssh(stack: Stack, server: Sshd) -> None:
    stack.env["PATH"] = f"{server.bin}:{os.environ['PATH']}"
    whole_story(stack, docker_host=f"ssh://root@127.0.0.1:{server.port}")
    deadline = time.monotonic() + 5
    while server.sessions() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.sessions() == [], "ssh sessions outlived the module"


# -- ways that do not -------------------------------------------------------------------------------------------------


def refused(
    stack: Stack, code: str, *words: str, within: float = 10, volatile: bool = False, **options: Any
) -> dict[str, Any]:
    """Module and check mode and stack_info all say the same clear thing, and at once.

    `volatile`: how a connection ends that is cut off is a matter of microseconds.
    """
    stack.write({"web": service()})
    before = stack.snapshot()
    said = set()
    for module, check in (("stack", False), ("stack", True), ("stack_info", False)):
        call = stack.call(module, check=check, **options)
        begun = time.monotonic()
        result = call.wait(60)
        took = time.monotonic() - begun
        assert not call.stderr, call.stderr
        contract(result)
        assert result.get("failed"), result
        assert codes(result) == {code}, result["msg"]
        assert result["changed"] is False
        lacking = [word for word in words if word.lower() not in result["msg"].lower()]
        assert not lacking, f"{lacking} not in: {result['msg']}"
        assert took < within, f"it took {took:.1f} s to find that out"
        said.add(result["msg"])
    assert len(said) == 1 or volatile, said
    assert stack.snapshot() == before
    return result


def test_nothing_at_that_path(stack: Stack) -> None:
    host = "unix:///run/no-such-engine.sock"
    refused(stack, "engine-not-running", host, docker_host=host)


def test_nobody_listens_there_any_more(stack: Stack) -> None:
    """The socket's file is there, as after a crash of dockerd."""
    folder = tempfile.mkdtemp(prefix="scn-")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/s")
    refused(stack, "engine-not-running", f"unix://{folder}/s", docker_host=f"unix://{folder}/s")
    shutil.rmtree(folder)


def test_nothing_on_that_port(stack: Stack) -> None:
    host = f"tcp://127.0.0.1:{free_port()}"
    refused(stack, "engine-not-running", host, docker_host=host)


@pytest.mark.parametrize("host", ["ftp://127.0.0.1", "127.0.0.1:2375", "npipe:////./pipe/docker", "tcp://127.0.0.1:x"])
def test_an_address_that_is_none(stack: Stack, host: str) -> None:
    refused(stack, "engine-address-invalid", host, docker_host=host)


def test_a_host_name_that_nobody_knows(stack: Stack) -> None:
    host = "tcp://no-such-host.invalid:2375"
    refused(stack, "engine-unreachable", host, docker_host=host, within=30)


def test_a_user_without_permission(busybox: str) -> None:
    """The docker command says "permission denied" in 200 characters; we say what to do."""
    folder = Path(tempfile.mkdtemp(prefix="scn-"))
    try:
        folder.chmod(0o755)
        (folder / "compose.yml").write_text(f"services: {{web: {{image: {busybox}}}}}\n", encoding="utf-8")
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        given = {"project_src": str(folder), "project_name": "scn-nobody"}
        call = ModuleCall("stack", given, prefix=nobody, env={"HOME": "/nonexistent"})
        result = call.wait(30)
        assert not call.stderr, call.stderr
        contract(result)
        assert codes(result) == {"engine-permission-denied"}
        assert "docker group" in result["msg"]
        assert "become" in result["msg"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def test_an_engine_that_never_answers(stack: Stack, family: int) -> None:
    with rogue(silent, family) as host:
        refused(stack, "engine-silent", host, "2 s", docker_host=host, timeout=2)


WRONG: dict[str, tuple[Answer, str]] = {
    "hangs-up": (reset, "engine-unreachable"),
    "says-nothing": (lambda stream: None, "engine-unreachable"),
    "is-no-web-server": (saying(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "engine-unreachable"),
    "is-another-web-server": (
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>hi</html>"),
        "engine-unreachable",
    ),
    "is-in-trouble": (
        saying(b'HTTP/1.1 500 Oops\r\nContent-Length: 25\r\n\r\n{"message":"out of ink."}'),
        "engine-refused",
    ),
    "stops-half-way": (saying(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"ApiVersion":'), "engine-unreachable"),
}


@pytest.mark.parametrize("case", WRONG)
def test_something_that_is_no_engine(stack: Stack, case: str) -> None:
    answer, code = WRONG[case]
    with rogue(answer, socket.AF_INET) as host:
        result = refused(stack, code, docker_host=host, timeout=5, volatile=True)
        if code == "engine-refused":
            assert "out of ink" in result["msg"]
        else:
            assert host in result["msg"]


def tls_files(certificates: Certificates, **other: str) -> dict[str, Any]:
    names = {"ca_path": "ca", "client_cert": "cert", "client_key": "key", **other}
    return {option: certificates.path(name) for option, name in names.items() if name}


def test_tls_with_the_wrong_ca(stack: Stack, tls: str, certificates: Certificates) -> None:
    files = tls_files(certificates, ca_path="other-ca")
    refused(stack, "engine-unreachable", tls, "certificate", docker_host=tls, validate_certs=True, **files)


def test_tls_without_a_client_certificate(stack: Stack, tls: str, certificates: Certificates) -> None:
    files = tls_files(certificates, client_cert="", client_key="")
    refused(stack, "engine-unreachable", tls, "certificate", docker_host=tls, validate_certs=True, **files)


def test_tls_with_a_client_certificate_of_another_ca(stack: Stack, tls: str, certificates: Certificates) -> None:
    files = tls_files(certificates, client_cert="other-ca", client_key="other-ca-key")
    refused(stack, "engine-unreachable", tls, docker_host=tls, validate_certs=True, **files)


@pytest.mark.parametrize("option", ["ca_path", "client_cert", "client_key"])
def test_a_tls_file_that_is_not_there(stack: Stack, tls: str, certificates: Certificates, option: str) -> None:
    files = {**tls_files(certificates), option: "/no/such.pem"}
    refused(stack, "engine-tls-file-missing", "/no/such.pem", docker_host=tls, validate_certs=True, **files)


def test_no_tls_where_there_should_be(stack: Stack, tls: str) -> None:
    refused(stack, "engine-unreachable", tls, docker_host=tls, timeout=5)


def test_tls_where_there_is_none(stack: Stack, certificates: Certificates) -> None:
    with forwarder(ENGINE) as port:
        host = f"tcp://127.0.0.1:{port}"
        refused(stack, "engine-unreachable", host, docker_host=host, validate_certs=True, **tls_files(certificates))


def test_ssh_with_a_key_that_is_not_welcome(stack: Stack, server: Sshd, tmp_path: Path) -> None:
    client = ssh_client(tmp_path / "client", server.folder, "stranger")
    stack.env["PATH"] = f"{client}:{os.environ['PATH']}"
    host = f"ssh://root@127.0.0.1:{server.port}"
    refused(stack, "engine-unreachable", host, "permission denied", docker_host=host)


def test_ssh_where_nobody_listens(stack: Stack, server: Sshd) -> None:
    stack.env["PATH"] = f"{server.bin}:{os.environ['PATH']}"
    host = f"ssh://root@127.0.0.1:{free_port()}"
    refused(stack, "engine-unreachable", host, "connection refused", docker_host=host)


def test_ssh_to_a_host_without_docker(stack: Stack) -> None:
    with sshd(path="/usr/games") as bare:
        stack.env["PATH"] = f"{bare.bin}:{os.environ['PATH']}"
        host = f"ssh://root@127.0.0.1:{bare.port}"
        refused(stack, "engine-unreachable", host, "docker", "not found", volatile=True, docker_host=host)
