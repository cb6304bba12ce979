# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of images, machines, logins and the way to a registry."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.image_name import Platform, image_name
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_login import Logins
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.registry_net import Ways, excepted
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("redis", ("docker.io", "library/redis", "latest", "")),
        ("redis:7", ("docker.io", "library/redis", "7", "")),
        ("me/app:1", ("docker.io", "me/app", "1", "")),
        ("index.docker.io/me/app", ("docker.io", "me/app", "latest", "")),
        ("ghcr.io/me/app:v1.2_3", ("ghcr.io", "me/app", "v1.2_3", "")),
        ("localhost/app", ("localhost", "app", "latest", "")),
        ("reg:5000/a/b/c:1", ("reg:5000", "a/b/c", "1", "")),
        ("[::1]:5000/a:1", ("[::1]:5000", "a", "1", "")),
        (f"reg:5000/a@{DIGEST}", ("reg:5000", "a", "", DIGEST)),
        (f"reg:5000/a:1@{DIGEST}", ("reg:5000", "a", "1", DIGEST)),
        ("Upper", None),
        ("a b", None),
        ("a:", None),
        ("a@sha256:1", None),
        ("", None),
    ],
)
def test_names(text: str, parts: tuple[str, ...] | None) -> None:
    name = image_name(text)
    assert (None if name is None else (name.host, name.repository, name.tag, name.digest)) == parts


@pytest.mark.parametrize(
    ("machine", "image", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("amd64", "linux/386", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64", "windows/amd64", False),
    ],
)
def test_machines(machine: str, image: str, runs: bool) -> None:
    assert Platform.named(machine).runs(Platform.named(image)) is runs


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def no_helper(argv: Any, _text: str) -> tuple[int, str, str]:
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("configuration", "host", "login"),
    [
        ({}, "reg:5000", None),
        ({"auths": {"reg:5000": {"auth": encoded("me:p:w")}}}, "reg:5000", ("me", "p:w")),
        ({"auths": {"https://reg:5000/v2/": {"auth": encoded("me:pw")}}}, "reg:5000", ("me", "pw")),
        ({"auths": {"https://index.docker.io/v1/": {"auth": encoded("me:pw")}}}, "docker.io", ("me", "pw")),
        ({"auths": {"reg": {"auth": "%%%"}}}, "reg", None),
        ({"auths": {"reg": {}}}, "reg", None),
        ({"auths": {"reg": {"username": "me", "password": "pw"}}}, "reg", ("me", "pw")),
    ],
)
def test_logins(configuration: dict[str, Any], host: str, login: tuple[str, str] | None) -> None:
    found = Logins([], configuration, no_helper).of(host)
    assert (found and (found.username, found.password)) == login


def test_what_is_given_comes_before_what_is_configured() -> None:
    given = [{"registry": "https://reg/v2/", "username": "me", "password": "mine"}]
    logins = Logins(given, {"auths": {"reg": {"auth": encoded("me:other")}}}, no_helper)
    login = logins.of("reg")
    assert login is not None
    assert login.password == "mine"
    assert "mine" not in repr(login)
    assert logins.secrets() >= {"mine", encoded("me:mine")}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((0, "not json", ""), "credential-helper-failed"),
        ((1, "", "locked"), "credential-helper-failed"),
        ((1, "credentials not found in native keychain", ""), ""),
        (None, "credential-helper-failed"),
    ],
)
def test_helpers_that_fail(answer: tuple[int, str, str] | None, code: str) -> None:
    def helper(argv: Any, text: str) -> tuple[int, str, str]:
        return answer if answer is not None else no_helper(argv, text)

    logins = Logins([], {"credsStore": "vault"}, helper)
    if not code:
        assert logins.of("reg") is None
        return
    with pytest.raises(ShipshapeError) as caught:
        logins.of("reg")
    assert caught.value.findings[0].code == code


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("10.1.2.3", True),
        ("named:5000", True),
        ("192.0.2.1", False),
    ],
)
def test_insecure(host: str, insecure: bool) -> None:
    ways = Ways.of(
        {
            "RegistryConfig": {
                "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128", "10.0.0.0/8"],
                "IndexConfigs": {"named:5000": {"Secure": False}, "docker.io": {"Secure": True}},
            }
        }
    )
    assert ways.insecure(host) is insecure


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("127.0.0.1:5000", [], True),
        ("localhost", [], True),
        ("reg.example.com", ["example.com"], True),
        ("reg.example.com", [".example.com"], True),
        ("notexample.com", ["example.com"], False),
        ("reg.example.com:5000", ["reg.example.com:5000"], True),
        ("reg.example.com:5001", ["reg.example.com:5000"], False),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("reg.example.com", ["*"], True),
        ("reg.example.com", ["10.0.0.0/8"], False),
    ],
)
def test_proxies(host: str, no_proxy: list[str], direct: bool) -> None:
    ways = Ways(https_proxy="http://proxy:3128", no_proxy=tuple(no_proxy))
    assert excepted(host, no_proxy) is direct
    assert ways.proxy(host, "https") == ("" if direct else "http://proxy:3128")


def test_the_hub_is_asked_after_its_mirrors() -> None:
    ways = Ways.of({"RegistryConfig": {"Mirrors": ["https://mirror.example.com/"]}})
    assert ways.addresses("docker.io") == ["https://mirror.example.com", "registry-1.docker.io"]
    assert ways.addresses("ghcr.io") == ["ghcr.io"]
