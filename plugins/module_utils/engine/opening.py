# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a module's options to the engine and the Compose project that they speak of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..report.finding import failure
from .compose import Compose, Source, plugin
from .connection import Connection
from .endpoint import Endpoint

if TYPE_CHECKING:
    from ..report.result import Report
    from .stack import Stack


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
