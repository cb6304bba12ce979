# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs of the doc fragments `docker` and `project`, and what every module does with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.finding import failure
from .endpoint import DEFAULT_HOST, Endpoint

if TYPE_CHECKING:
    from ..report.result import Report
    from .compose import Compose
    from .connection import Connection
    from .look import Wanted
    from .order import Order
    from .stack import Stack


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


def open_stack(module: Any, report: Report) -> Stack:
    """The stack that `module`'s options (an AnsibleModule with the options above) speak of."""
    connection, compose = open_project(module)
    if module.params.get("state", "present") == "present":
        compose.read_ahead()
    # The larger half of the engine's code, loaded while Compose reads. Those that only look do without.
    from .stack import Stack

    return Stack(connection, compose, report)


def open_project(module: Any) -> tuple[Connection, Compose]:
    """The engine and the Compose project that `module`'s options speak of."""
    # Here, because a visitor pool that is given its database's URL needs neither.
    from .compose import Compose, Source, plugin
    from .connection import Connection

    docker = module.get_bin_path("docker")
    if docker is None:
        raise failure(
            "engine",
            "docker-cli-missing",
            "there is no command `docker` on the target",
            "Install Docker with its Compose plugin (role shipshape.deploy.engine does)",
        )
    source = Source.from_options(module.params)
    return Connection(Endpoint.from_options(module.params)), Compose(_run, docker, source, plugin(docker))


def _run(
    argv: Sequence[str], environment: Mapping[str, str], directory: str | None, stdin: str | None
) -> tuple[int, str, str]:
    """Not AnsibleModule.run_command, which fails when a command ends before it has taken all of its input: Compose may,
    for it seldom asks anything.

    A project may mount ${PWD}/data. Whoever changes into its directory and calls Compose has that in PWD, so Compose is
    told the same here; what this process has there is wherever it was started, a home directory mostly."""
    place = {"PWD": os.path.abspath(directory)} if directory else {}
    try:
        done = subprocess.run(
            list(argv),
            env={**os.environ, **place, **environment},
            cwd=directory,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except OSError as error:
        what = f"{argv[0]} cannot be run: {error.strerror or error}"
        raise failure("engine", "docker-cli-missing", what, "Mend or reinstall Docker's command line") from error
    return done.returncode, done.stdout, done.stderr
