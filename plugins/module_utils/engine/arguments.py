# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs of the doc fragments `docker` and `project`, and what is read out of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .look import Wanted
    from .order import Order

DEFAULT_HOST = "unix:///var/run/docker.sock"


def _set_in_environment(variable: str) -> str:
    """As Docker's own command line does, an empty variable counts as one that is not set."""
    from ansible.module_utils.basic import AnsibleFallbackNotFound

    value = os.environ.get(variable)
    if not value:
        raise AnsibleFallbackNotFound
    return value


def _fallback(variable: str) -> tuple[Any, list[str]]:
    return (_set_in_environment, [variable])


DOCKER_OPTIONS: dict[str, Any] = {
    "docker_host": {
        "type": "str",
        "default": DEFAULT_HOST,
        "fallback": _fallback("DOCKER_HOST"),
        "aliases": ["docker_url"],
    },
    "tls": {"type": "bool", "default": False, "fallback": _fallback("DOCKER_TLS")},
    "validate_certs": {
        "type": "bool",
        "default": False,
        "fallback": _fallback("DOCKER_TLS_VERIFY"),
        "aliases": ["tls_verify"],
    },
    "ca_path": {"type": "path", "aliases": ["tls_ca_cert", "cacert_path"]},
    "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
    # A path, not the key itself.
    "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"], "no_log": False},
    "tls_hostname": {"type": "str", "fallback": _fallback("DOCKER_TLS_HOSTNAME")},
    "api_version": {
        "type": "str",
        "default": "auto",
        "fallback": _fallback("DOCKER_API_VERSION"),
        "aliases": ["docker_api_version"],
    },
    "timeout": {"type": "int", "default": 60, "fallback": _fallback("DOCKER_TIMEOUT")},
}

PROJECT_OPTIONS: dict[str, Any] = {
    "project_src": {"type": "path"},
    "files": {"type": "list", "elements": "path"},
    "env_files": {"type": "list", "elements": "path"},
    "profiles": {"type": "list", "elements": "str", "default": []},
    "project_name": {"type": "str"},
    "definition": {"type": "dict"},
    "services": {"type": "list", "elements": "str", "default": []},
}

LOOK_OPTIONS: dict[str, Any] = {
    "baked_files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "service": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "src": {"type": "path", "required": True},
        },
    },
    "watch_paths": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "service": {"type": "str", "required": True},
            "paths": {"type": "list", "elements": "str", "required": True},
        },
    },
}


def wanted_look(options: Mapping[str, Any]) -> Wanted:
    """What LOOK_OPTIONS ask for; sources are relative to the project's directory."""
    from .look import Wanted

    base = options.get("project_src") or ""
    return Wanted(
        baked=tuple(
            (entry["service"], entry["path"], os.path.join(base, entry["src"])) for entry in options["baked_files"]
        ),
        watched={entry["service"]: tuple(entry["paths"]) for entry in options["watch_paths"]},
    )


_PLAIN = (
    "pull", "build", "recreate", "remove_orphans", "remove_volumes", "stability", "wait_timeout", "restarts_allowed",
    "rollback",
)  # fmt: skip
_LISTS = ("optional_services", "protected_services", "allow_protected")


def order(module: Any) -> Order:
    """What `module`'s options ask for, as far as it has them."""
    from .order import Order

    options = module.params
    given: dict[str, Any] = {name: options[name] for name in _PLAIN if name in options}
    given.update({name: tuple(options[name]) for name in _LISTS if name in options})
    return Order(check=module.check_mode, wanted=wanted_look(options), **given)


PROJECT_RULES: dict[str, Any] = {
    "mutually_exclusive": [("definition", "files")],
    "required_one_of": [("project_src", "definition", "project_name")],
    "required_by": {"definition": ("project_name",)},
}


def invocation(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as a result may show them: an inline project can hold secrets anywhere, so it is not repeated."""
    shown = dict(options)
    if shown.get("definition") is not None:
        shown["definition"] = "not shown, for it may hold secrets"
    return {"module_args": shown}
