# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry client against real registries: what they hold, and each reason why it cannot be had told apart.

What no registry of ours says by itself (rate limits, refusals, breakdowns) comes from a server that answers with it.
"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.image_name import Platform, image_name
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry import Held, Registries
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_login import Logins
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_net import Ways
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from tests.support.registries import PASSWORD, USER, Registry, basic, free_port, running

HERE = Platform("linux", "amd64")
# As the engine is by default: whatever answers on the loopback is trusted.
LOOPBACK = Ways(insecure_networks=("127.0.0.0/8",))


def no_helper(_argv: Any, _text: str) -> tuple[int, str, str]:
    raise AssertionError("no helper is configured")


def known(host: str, password: str = PASSWORD) -> Logins:
    return Logins([{"registry": host, "username": USER, "password": password}], {}, no_helper)


def nobody() -> Logins:
    return Logins([], {}, no_helper)


def ask(text: str, logins: Logins, ways: Ways = LOOPBACK, *, config: bool = False) -> Held:
    name = image_name(text)
    assert name is not None
    return Registries(ways, logins).held(name, HERE, with_config=config)


def refusal(text: str, logins: Logins, ways: Ways = LOOPBACK) -> tuple[str, str]:
    with pytest.raises(ShipshapeError) as caught:
        ask(text, logins, ways)
    [finding] = caught.value.findings
    assert finding.remedy
    assert "\n" not in finding.message
    return finding.code, finding.message


def test_an_index_tells_its_machines_and_what_a_pull_transfers(registry: Registry) -> None:
    found = ask(f"{registry.host}/studio/web:1", known(registry.host))
    assert {str(at) for at in found.platforms} == {"linux/amd64", "linux/arm64"}
    assert found.size == 64
    assert found.digest.startswith("sha256:")
    assert registry.served_layers() == []


def test_a_digest_means_what_its_tag_meant(registry: Registry) -> None:
    by_tag = ask(f"{registry.host}/studio/web:1", known(registry.host))
    by_digest = ask(f"{registry.host}/studio/web:gone@{by_tag.digest}", known(registry.host))
    assert (by_digest.digest, by_digest.platforms) == (by_tag.digest, by_tag.platforms)


def test_a_single_image_tells_its_machine_by_its_configuration(registry: Registry) -> None:
    found = ask(f"{registry.host}/studio/board:1", known(registry.host))
    assert [str(at) for at in found.platforms] == ["linux/s390x"]
    healthy = ask(f"{registry.host}/studio/plain:1", known(registry.host), config=True)
    assert healthy.config["Healthcheck"] == {"Test": ["CMD", "true"]}
    assert registry.served_layers() == []


@pytest.mark.parametrize(
    ("image", "password", "code", "words"),
    [
        ("studio/web:1", "wrong", "registry-login-refused", "registry_auth"),
        ("studio/web:1", "", "registry-login-required", "there is none"),
        ("studio/web:2", PASSWORD, "image-not-found", "tag was never pushed"),
        (f"studio/web@sha256:{'0' * 64}", PASSWORD, "image-not-found", "digest was never pushed"),
        ("studio/wbe:1", PASSWORD, "image-not-found", "was never pushed"),
    ],
)
def test_why_not(registry: Registry, image: str, password: str, code: str, words: str) -> None:
    logins = known(registry.host, password) if password else nobody()
    found, message = refusal(f"{registry.host}/{image}", logins)
    assert (found, words in message) == (code, True), message
    assert "wrong" not in message


def test_a_certificate_counts_where_the_engine_checks_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    image = f"{registry.secure_host}/studio/web:1"
    code, message = refusal(image, known(registry.secure_host))
    assert (code, "self-signed" in message.replace("self signed", "self-signed")) == ("registry-certificate", True)
    assert registry.certificate is not None
    monkeypatch.setenv("SSL_CERT_FILE", str(registry.certificate.cert))
    assert ask(image, known(registry.secure_host)).platforms


def test_a_registry_without_tls(tmp_path: Path) -> None:
    with running(tmp_path, login="none", tls=False) as plain:
        plain.push("a/b", "1")
        assert ask(f"{plain.host}/a/b:1", nobody()).platforms == (HERE,)
        code, message = refusal(f"{plain.secure_host}/a/b:1", nobody())
        assert (code, "does not speak TLS" in message) == ("registry-certificate", True)


def test_nobody_listens_and_no_such_name() -> None:
    assert refusal(f"127.0.0.1:{free_port()}/a/b:1", nobody())[0] == "registry-unreachable"
    code, message = refusal("registry.invalid/a/b:1", nobody(), Ways())
    assert (code, "no such host name" in message) == ("registry-unreachable", True)


def test_a_dead_registry_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_net._SECONDS"
    monkeypatch.setattr(module, 0.3)
    with socket.socket() as listener:  # accepts, and says nothing
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        names = [image_name(f"{host}/a/b:{number}") for number in range(40)]
        found = Registries(LOOPBACK, nobody()).ask(dict.fromkeys(filter(None, names), HERE))
    assert {at.findings[0].code for at in found.values()} == {"registry-unreachable"}


def test_a_token_is_asked_for_with_the_login(token_registry: Registry) -> None:
    assert token_registry.tokens is not None
    token_registry.tokens.asked.clear()
    assert ask(f"{token_registry.host}/studio/web:1", known(token_registry.host)).size == 64
    assert set(token_registry.tokens.asked) == {(f"Basic {basic()}", "repository:studio/web:pull")}


def test_a_token_for_what_is_public_and_none_for_what_is_not(token_registry: Registry) -> None:
    assert ask(f"{token_registry.host}/studio/public:1", nobody()).platforms == (HERE,)
    assert refusal(f"{token_registry.host}/studio/web:1", nobody())[0] == "registry-login-required"
    assert refusal(f"{token_registry.host}/studio/web:1", known(token_registry.host, "wrong"))[0] == (
        "registry-login-refused"
    )


def test_an_identity_token(token_registry: Registry) -> None:
    assert token_registry.tokens is not None
    configuration = {"auths": {token_registry.host: {"identitytoken": token_registry.tokens.refresh}}}
    logins = Logins([], configuration, no_helper)
    assert ask(f"{token_registry.host}/studio/web:1", logins).platforms
    assert token_registry.tokens.asked[-1] == ("refresh_token", "repository:studio/web:pull")


def test_a_credential_helper(registry: Registry) -> None:
    asked: list[tuple[list[str], str]] = []

    def helper(argv: Any, text: str) -> tuple[int, str, str]:
        asked.append((list(argv), text))
        return 0, json.dumps({"Username": USER, "Secret": PASSWORD}), ""

    logins = Logins([], {"credHelpers": {registry.host: "vault"}}, helper)
    assert ask(f"{registry.host}/studio/web:1", logins).platforms
    assert asked == [(["docker-credential-vault", "get"], registry.host)]
    assert base64.b64decode(basic()).decode() == f"{USER}:{PASSWORD}"


@contextmanager
def answering(status: int, headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def errors(code: str, message: str = "m") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "words"),
    [
        (429, {"Retry-After": "60"}, errors("TOOMANYREQUESTS", "pull limit"), "registry-rate-limited", "60 s"),
        (429, {}, b"slow down", "registry-rate-limited", "too many"),
        (403, {}, errors("DENIED", "no pull right"), "registry-forbidden", "no pull right"),
        (403, {}, b"<html>", "registry-forbidden", "anybody unknown"),
        (404, {}, errors("NAME_UNKNOWN"), "image-not-found", "no repository a/b"),
        (404, {}, errors("MANIFEST_UNKNOWN"), "image-not-found", "a/b:1"),
        (401, {"WWW-Authenticate": "Negotiate"}, b"", "registry-login-required", "there is none"),
        (502, {}, b"bad gateway", "registry-failed", "502"),
        (418, {}, b"", "registry-unexpected", "418"),
        (302, {"Location": "/again"}, b"", "registry-unexpected", "302"),
    ],
)
def test_what_registries_say(status: int, headers: dict[str, str], body: bytes, code: str, words: str) -> None:
    with answering(status, headers, body) as host:
        found, message = refusal(f"{host}/a/b:1", nobody())
    assert (found, words in message) == (code, True), message


def test_a_mirror_that_lacks_it_is_passed_over(registry: Registry) -> None:
    """The Docker Hub's images by way of a mirror; the Hub itself is not reached here."""
    ways = Ways(("127.0.0.0/8",), mirrors=(f"https://{registry.host}/",))
    logins = Logins([{"registry": "docker.io", "username": USER, "password": PASSWORD}], {}, no_helper)
    assert ask("studio/web:1", logins, ways).platforms
