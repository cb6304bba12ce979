# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a registry does not give what it was asked for, each reason told apart. Pure."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..report.finding import ShipshapeError, failure
from .image_name import HUB, ImageName

if TYPE_CHECKING:
    from .registry_login import Login


class Answer(Protocol):
    """What is looked at of a registry's answer."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


def refused(name: ImageName, said: Answer, login: Login | None) -> ShipshapeError:
    """The reason in an answer that is not 200."""
    host, what = name.host, f"{name.repository}{'@' if name.digest else ':'}{name.reference}"
    codes, words = _errors(said.body)
    quoted = f" ({words})" if words else ""
    if said.status == 429 or "TOOMANYREQUESTS" in codes:
        wait = said.headers.get("retry-after", "")
        after = f", and says to wait {wait} s" if wait.isdigit() else ""
        message = f"{host} answers no more questions for now{after}: too many were asked{quoted}"
        whose = "" if login else "Log in to it (docker login) to be allowed more, or "
        remedy = f"{whose}wait, or take the image from a mirror or put it on the target (docker load)"
        return failure(host, "registry-rate-limited", message, remedy[0].upper() + remedy[1:])
    if said.status == 401 or (said.status in (400, 403) and "UNAUTHORIZED" in codes):
        if login is not None:
            message = f"{host} refuses the login of {login.source or 'registry_auth'} for {what}{quoted}"
            remedy = f"Log in again (docker login {host}) as the user that deploys, or correct registry_auth"
            return failure(host, "registry-login-refused", message, remedy)
        message = f"{host} wants a login for {what}, and there is none{quoted}"
        if host == HUB:
            message = f"{host} has no public image {what}: it is private, or there is no such repository"
        remedy = f"Run docker login {host} as the user that deploys, or give registry_auth; check the name as well"
        return failure(host, "registry-login-required", message, remedy)
    if said.status == 403:
        message = f"{host} does not let {'this login' if login else 'anybody unknown'} read {what}{quoted}"
        remedy = "Have the login be given the right to pull this repository, or use another one"
        return failure(host, "registry-forbidden", message, remedy)
    if said.status == 404:
        if "NAME_UNKNOWN" in codes or "NAME_INVALID" in codes:
            message = f"{host} has no repository {name.repository}: it was never pushed, or has another name"
        else:
            message = f"{host} has no {what}: that {'digest' if name.digest else 'tag'} was never pushed, or is gone"
        return failure(host, "image-not-found", message, f"Push it (docker push {_full(name)}), or correct the name")
    if said.status >= 500:
        message = f"{host} answered {said.status} when asked for {what}{quoted}: it is not well"
        return failure(host, "registry-failed", message, "Look at the registry and its own log, then try again")
    message = f"{host} answered {said.status} when asked for {what}{quoted}"
    return failure(host, "registry-unexpected", message, "Check that a registry listens there, and not another server")


def certificate(host: str, error: ssl.SSLError) -> ShipshapeError:
    """The registry's TLS, or the lack of it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "it cannot be verified"
        message = f"the certificate of {host} is not accepted: {why}"
        remedy = (
            f"Put the authority that signed it into /etc/docker/certs.d/{host}/ca.crt on the target, or have the "
            "registry renew its certificate"
        )
        return failure(host, "registry-certificate", message, remedy)
    message = (
        f"{host} does not speak TLS as it should ({(error.reason or 'handshake failed').replace('_', ' ').lower()})"
    )
    remedy = "Give the registry a certificate, or name it in insecure-registries of the engine's daemon.json"
    return failure(host, "registry-certificate", message, remedy)


def silent(host: str) -> ShipshapeError:
    message = f"{host} does not answer: no packet came back in time"
    return failure(host, "registry-unreachable", message, "Check the address, and the firewall between here and there")


def unreachable(host: str, error: Exception) -> ShipshapeError:
    """Nothing that speaks HTTP could be reached."""
    if isinstance(error, socket.gaierror):
        why, remedy = "there is no such host name", "Correct the image's name, or the target's name server"
    elif isinstance(error, ConnectionRefusedError):
        why, remedy = "nobody listens there", "Start the registry, or correct the port in the image's name"
    else:
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        why, remedy = str(said)[:200], "Check the way to the registry, and the engine's proxy settings"
    message = f"{host} cannot be reached: {why}"
    return failure(host, "registry-unreachable", message, f"{remedy}; or put the image on the target (docker load)")


def _errors(body: bytes) -> tuple[set[str], str]:
    """The codes in a registry's error, and its words on one line."""
    try:
        document: Any = json.loads(body)
        entries = [entry for entry in document["errors"] if isinstance(entry, Mapping)]
    except (ValueError, KeyError, TypeError):
        return set(), ""
    words = "; ".join(dict.fromkeys(" ".join(str(entry.get("message") or "").split()) for entry in entries))
    return {str(entry.get("code") or "").upper() for entry in entries}, words[:200]


def _full(name: ImageName) -> str:
    host = "" if name.host == HUB else f"{name.host}/"
    return f"{host}{name.repository}:{name.tag or 'TAG'}"
