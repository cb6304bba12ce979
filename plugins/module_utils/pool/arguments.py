# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument spec of the doc fragment `pool`, and what both modules make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report.finding import failure
from ..report.masking import SHORTEST_SECRET, Masker
from ..report.result import Report
from .opening import Opened, Reached, Wish
from .origin import secrets_in

POOL_OPTIONS: dict[str, Any] = {
    "database_url": {"type": "str", "no_log": True},
    "service": {"type": "str"},
    "database_variable": {"type": "str", "default": "DATABASE_URL"},
    "schema": {"type": "raw"},
    "user_flag": {"type": "str", "default": ""},
    "workspace_flag": {"type": "str", "default": "writer_initialized"},
    "size": {"type": "int", "default": 32},
    "prefix": {"type": "str", "default": "visitor-"},
    "project": {"type": "str", "default": "default-project"},
    "data_root": {"type": "str"},
    "data_service": {"type": "str"},
    "workspace": {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "path": {"type": "str", "default": "scitex/writer"},
            "marker": {"type": "str", "default": "01_manuscript"},
            "template": {"type": "str"},
            "branch": {"type": "str"},
            "tag": {"type": "str"},
        },
    },
    "migrate_command": {"type": "list", "elements": "str", "default": []},
}
_SECRETS = ("database_url", "git_token", "session_key", "token")


def opened(module: Any, report: Report, reach: Any, *, write: bool = True) -> Opened:
    """The pool that `module`'s options speak of. `reach` is the Python module database.reach: areas do not import
    each other, so the Ansible module brings it."""
    options = module.params
    secrets = {options[name] for name in _SECRETS if options.get(name)}
    in_urls = {at for url in (options["workspace"]["template"], options.get("git_url")) for at in secrets_in(url or "")}
    # Ansible takes these out of the invocation, as it does with options that hold nothing but a secret.
    module.no_log_values.update(at for at in in_urls if len(at) >= SHORTEST_SECRET)
    secrets |= in_urls
    report.masker = Masker(secrets)
    if not options["data_root"]:
        raise failure("data_root", "option-invalid", "is needed", "Name the directory of the users' directories")
    url, application, seen, looker = options["database_url"] or "", None, None, None
    if _needs_project(options):
        from ..engine.opening import open_project
        from .place import Application

        looker = reach.looker(*open_project(module), report)
        looker.hide(secrets)
        seen = looker.look()
        application = Application(looker.connection, looker.compose, seen.project, seen.containers)
        url = url or reach.value(seen, options["service"], options["database_variable"])

    def made_out(text: str) -> Reached:
        if options["database_url"] or seen is None:
            return Reached(*reach.given(text))
        return Reached(*reach.of_service(looker, seen, options["service"], text))

    def run(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C", **environment}
        code, out, err = module.run_command(list(argv), environ_update=quiet, handle_exceptions=False)
        return code, out, err

    check = module.check_mode or not write
    return Opened(Wish(options, url, application, made_out, run, report, check))


def _needs_project(options: Any) -> bool:
    """Whether the engine has to be asked. Raises when what it is to be asked is not said."""
    if not options["database_url"] and not options["service"]:
        what = "neither `database_url` nor `service` is given"
        raise failure("database_url", "option-invalid", what, "Say where the database is")
    commands = [name for name in ("seed_command", "migrate_command") if options.get(name)]
    if commands and not options["service"]:
        what = f"{commands[0]} needs a service to run in, and `service` is not given"
        raise failure(commands[0], "option-invalid", what, "Name the application's service")
    wanted = not options["database_url"] or bool(options["data_service"] or commands)
    if wanted and not any(options[name] for name in ("project_src", "definition", "project_name")):
        what = "a service is named, but not of which project"
        raise failure("project_src", "option-invalid", what, "Set `project_src`")
    return wanted
