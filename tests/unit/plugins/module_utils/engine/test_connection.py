# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import (
    Connection,
    EngineRefusedError,
    path_segment,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import DEFAULT_HOST, Endpoint
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

TLS = {"tls": True}


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({}, Endpoint()),
        ({"docker_host": None, "timeout": None, "api_version": None}, Endpoint()),
        # `export DOCKER_HOST=` is how people unset it.
        ({"docker_host": ""}, Endpoint(DEFAULT_HOST)),
        ({"docker_host": "tcp://h:2375", "timeout": 5}, Endpoint("tcp://h:2375", timeout=5)),
        ({"api_version": "1.41"}, Endpoint(api_version="1.41")),
        ({"api_version": 1.41}, Endpoint(api_version="1.41")),
        (TLS, Endpoint(tls=True)),
        ({"validate_certs": True}, Endpoint(tls=True, verify=True)),
        ({**TLS, "tls_hostname": "h"}, Endpoint(tls=True, tls_hostname="h")),
        (
            {**TLS, "ca_path": "/x/ca", "client_cert": "/x/cert", "client_key": "/x/key"},
            Endpoint(tls=True, ca="/x/ca", cert="/x/cert", key="/x/key"),
        ),
    ],
)
def test_endpoints(monkeypatch, options, endpoint):
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    assert Endpoint.from_options(options) == endpoint


@pytest.mark.parametrize(
    ("options", "present", "files"),
    [
        (TLS, "ca cert key", ("+ca.pem", "+cert.pem", "+key.pem")),
        ({"validate_certs": True}, "ca cert key", ("+ca.pem", "+cert.pem", "+key.pem")),
        ({**TLS, "ca_path": "/x/ca"}, "ca cert key", ("/x/ca", "+cert.pem", "+key.pem")),
        # As with the Docker CLI what is not there is done without, unless the certificate is to be checked.
        (TLS, "", (None, None, None)),
        (TLS, "ca", ("+ca.pem", None, None)),
        ({"validate_certs": True}, "", ("+ca.pem", None, None)),
        # Without TLS the directory means nothing.
        ({}, "ca cert key", (None, None, None)),
    ],
)
def test_the_directory_that_docker_users_have_their_certificates_in(monkeypatch, tmp_path, options, present, files):
    for name in present.split():
        (tmp_path / f"{name}.pem").touch()
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    found = Endpoint.from_options(options)
    assert (found.ca, found.cert, found.key) == tuple(name and name.replace("+", f"{tmp_path}/") for name in files)


@pytest.mark.parametrize(
    "host",
    [
        "unix:///run/d.sock",
        "http+unix:///run/d.sock",
        "tcp://h",
        "https://h",
        "ssh://u@h",
        "ssh://u@h:22",
        "tcp://[::1]:2375",
    ],
)
def test_addresses_that_can_be_used(host):
    assert callable(Connection(Endpoint(host)).open)


@pytest.mark.parametrize(
    "host",
    ["/run/docker.sock", "npipe:////./pipe/docker", "h:2375", "fd://", "ftp://h", "x", "tcp://h:port", "ssh://h:x"],
)
def test_addresses_that_cannot_be_used(host):
    with pytest.raises(ShipshapeError, match="docker_host") as raised:
        Connection(Endpoint(host))
    assert [at.code for at in raised.value.findings] == ["engine-address-invalid"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied"), "engine-permission-denied"),
        (FileNotFoundError(2, "No such file or directory"), "engine-not-running"),
        (ConnectionRefusedError(111, "Connection refused"), "engine-not-running"),
        (TimeoutError("timed out"), "engine-silent"),
        (ConnectionResetError(104, "Connection reset by peer"), "engine-unreachable"),
        (OSError(), "engine-unreachable"),
    ],
)
def test_why_an_engine_cannot_be_reached(error, code):
    (finding,) = Connection(Endpoint("unix:///run/d.sock", timeout=7)).unreachable(error).findings
    assert finding.code == code
    assert "/run/d.sock" in finding.message
    assert finding.remedy


def test_a_missing_socket_is_an_engine_that_does_not_run(tmp_path):
    with pytest.raises(ShipshapeError) as raised:
        Connection(Endpoint(f"unix://{tmp_path}/none.sock")).ping()
    assert [at.code for at in raised.value.findings] == ["engine-not-running"]


def test_a_missing_certificate_is_not_an_engine_that_does_not_run(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ShipshapeError) as raised:
            Connection(Endpoint(host, tls=True, ca=str(tmp_path / "none.pem"), timeout=1)).ping()
    (finding,) = raised.value.findings
    assert finding.code != "engine-not-running"
    assert "none.pem" in finding.message


@pytest.mark.parametrize(
    ("text", "segment"),
    [("studio/app:1", "studio%2Fapp:1"), ("a@sha256:b", "a%40sha256:b"), ("../x?y#z", "..%2Fx%3Fy%23z")],
)
def test_a_name_is_one_segment_of_a_path(text, segment):
    assert path_segment(text) == segment


def test_a_refusal_says_what_was_asked_and_what_was_answered():
    error = EngineRefusedError(409, "PUT /v1.45/containers/x/archive", "container is paused")
    assert error.status == 409
    assert "it answered 409 to PUT /v1.45/containers/x/archive: container is paused" in str(error)
