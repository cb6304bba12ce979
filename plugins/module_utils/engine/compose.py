# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs `docker compose` and turns what it says into a model, or into an error that names file, service and key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

from ..report.finding import Finding

# The names that Compose looks for by itself, in its order.
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
# Settings of the caller's own shell that would send Compose elsewhere than to the address it is given.
_ELSEWHERE = ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_HOST")

# Where the Docker CLI looks for its plugins, the user's own directory before all of them.
_PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)

# (argv, changes to the environment, directory, standard input) -> (exit code, standard output, standard error)
Run = Callable[[Sequence[str], Mapping[str, str], "str | None", "str | None"], "tuple[int, str, str]"]


def plugin(docker: str) -> str | None:
    """The Compose plugin that the CLI at path `docker` would use; None when the CLI alone can tell."""
    if not _is_program(docker):
        return None  # somebody's wrapper, who has a reason for it
    own = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    if "cliPluginsExtraDirs" in _text_of(os.path.join(own, "config.json")):
        return None
    places = (os.path.join(directory, "docker-compose") for directory in (os.path.join(own, "cli-plugins"), *_PLUGINS))
    return next((path for path in places if os.access(path, os.X_OK) and not os.path.isdir(path)), None)


def _is_program(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False


@dataclass(frozen=True)
class Source:
    """Which project is meant: the project options of the modules (doc_fragments/project.py)."""

    directory: str | None = None
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    name: str | None = None
    definition: Mapping[str, Any] | None = None
    services: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Source:
        return cls(
            directory=options.get("project_src"),
            files=tuple(options.get("files") or ()),
            env_files=tuple(options.get("env_files") or ()),
            profiles=tuple(options.get("profiles") or ()),
            name=options.get("project_name"),
            definition=options.get("definition"),
            services=tuple(options.get("services") or ()),
        )

    @property
    def spoken(self) -> str:
        """The project's files, for a message."""
        if self.definition is not None:
            return "definition"
        names = self.files or tuple(
            name for name in DEFAULT_FILES if os.path.exists(os.path.join(self.directory or "", name))
        )
        return ", ".join(os.path.join(self.directory or "", name) for name in names[: len(self.files) or 1])

    def _names_its_files(self) -> bool:
        """Whether COMPOSE_FILE is set where Compose looks for it: then Compose knows better which files are meant."""
        return "COMPOSE_FILE" in os.environ or any("COMPOSE_FILE" in text for text in self.env_texts())

    def env_texts(self) -> list[str]:
        """What the files hold that Compose takes variables from."""
        return [_text_of(os.path.join(self.directory or "", name)) for name in self.env_files or (".env",)]

    def problem(self) -> Finding | None:
        """What is wrong before Compose is even asked."""
        directory = self.directory
        if directory is not None and not os.path.isdir(directory):
            return _missing(
                directory, "is not a directory on the target", "Bring the project there first (module tree)"
            )
        for name in self.files:
            path = os.path.join(directory or "", name)
            if not os.path.exists(path):
                return _missing(path, "does not exist", "Check `files` and `project_src`")
        if self.definition is None and not self.files:
            if directory is None:  # Compose would take whatever file lies in or above the working directory
                return _missing(self.name or "project", "has no Compose file", "Set `project_src`, or `definition`")
            if not self.spoken and not self._names_its_files():
                looked = ", ".join(DEFAULT_FILES)
                return _missing(directory, f"holds no Compose file (looked for {looked})", "Check `project_src`")
        for name in self.env_files:
            if not os.path.exists(os.path.join(directory or "", name)):
                return _missing(os.path.join(directory or "", name), "does not exist", "Check `env_files`")
        return None


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _missing(subject: str, what: str, remedy: str) -> Finding:
    return Finding("critical", subject, "compose-file-missing", what, remedy)


def readable(model: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved model as Compose can read it back: without depends_on, which is not in the hash, but may name
    services of profiles that are not enabled, and which the model lacks."""
    services = {
        name: {key: value for key, value in entry.items() if key != "depends_on"}
        for name, entry in (model.get("services") or {}).items()
    }
    return {**model, "services": services}


class Compose:
    """`docker compose` for one project. `docker` is the path of the Docker CLI.

    `plugin` is that of the Compose plugin, where it is known: called by itself it does the same, and spares the 50 ms
    in which the CLI looks for it."""

    def __init__(self, run: Run, docker: str, source: Source, plugin: str | None = None) -> None:
        self._run = run
        self._docker = docker
        self._plugin = plugin
        self.source = source
        self._ahead: Future[tuple[str, str]] | None = None

    def read_ahead(self) -> None:
        """Lets Compose read the project already, while the caller does something else; `model` then waits for it."""
        if self.source.problem() is None:
            self._ahead = Future()
            Thread(target=self._fulfil, args=(self._ahead,), daemon=True).start()

    def _fulfil(self, promise: Future[tuple[str, str]]) -> None:
        try:
            promise.set_result(self._resolve())
        except BaseException as error:
            promise.set_exception(error)

    def _resolve(self) -> tuple[str, str]:
        return self._call("config", "--format", "json", *self.source.services)

    def model(self) -> tuple[dict[str, Any], list[Finding]]:
        """The resolved project as `docker compose config --format json` prints it, and Compose's warnings."""
        out, err = self._ahead.result() if self._ahead else self._resolve()
        model: dict[str, Any] = json.loads(out)
        if not err.strip():
            return model, []
        from .compose_words import warnings

        return model, warnings(err, self.source.spoken)

    def unresolved(self) -> dict[str, Any]:
        """The project with its files merged and nothing filled in: where each value comes from still shows."""
        return self._as_written()

    def narrowed(self, services: Sequence[str]) -> Compose:
        """The same project, these services only."""
        return Compose(self._run, self._docker, replace(self.source, services=tuple(services)), self._plugin)

    def raw(self) -> dict[str, Any]:
        """The project as it stands in its files: variables not filled in, env files named, services of all profiles.
        It can be had of many a project that Compose would refuse to run."""
        return self._as_written(profiles=("*",))

    def _as_written(self, profiles: Sequence[str] | None = None) -> dict[str, Any]:
        out, _dummy = self._call("config", "--no-interpolate", "--format", "json", profiles=profiles)
        document: dict[str, Any] = json.loads(out)
        return document

    def resolved(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """What Compose makes of `document`, which is like one that `raw` gave."""
        named = ["--project-name", self.source.name] if self.source.name else []
        return self._resolved_from(document, *named)

    def _resolved_from(self, document: Mapping[str, Any], *flags: str) -> dict[str, Any]:
        """`document` as Compose resolves it in the project's place: its directory, its env files."""
        place = ["--project-directory", self.source.directory] if self.source.directory else []
        place += [text for name in self.source.env_files for text in ("--env-file", name)]
        out, _dummy = self._invoke(
            ["-f", "-", *place, *flags, "config", "--format", "json"], stdin=json.dumps(document)
        )
        model: dict[str, Any] = json.loads(out)
        return model

    def version(self) -> str:
        """The version of the Compose plugin."""
        return self._invoke(["version", "--short"])[0].strip()

    def profiles(self) -> list[str]:
        """All profiles that the project names."""
        return self._call("config", "--profiles")[0].split()

    def all_services(self) -> list[str]:
        """The services of every profile, enabled or not."""
        return self._call("config", "--services", profiles=("*",))[0].split()

    def hashes(self, model: Mapping[str, Any]) -> dict[str, str]:
        """Compose's own hash of each service: that of the resolved model is the one that `up` writes into its label."""
        flags = ["--project-directory", self.source.directory] if self.source.directory else []
        out, _dummy = self._invoke(["-f", "-", *flags, "config", "--hash", "*"], stdin=json.dumps(readable(model)))
        return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)

    def environment(self) -> dict[str, str]:
        """The variables that Compose interpolates with (Compose 2.27 and newer)."""
        lines = self._call("config", "--environment")[0].splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def variables(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the variables `names` that are set where Compose looks for them, a literal dollar written as two.

        Older ones cannot tell (see `environment`), but all of them interpolate."""
        asked = {name: [f"${{{name}-}}", f"${{{name}+set}}"] for name in names}
        document = {"name": "asked", "services": {"asked": {"image": "asked"}}, "x-asked": asked}
        told = self._resolved_from(document)["x-asked"]
        return {name: value for name, (value, found) in told.items() if found}

    def pull(self, host: str, services: Sequence[str]) -> None:
        self._call("pull", "--quiet", *services, host=host)

    def build(self, host: str, services: Sequence[str]) -> None:
        self._call("build", *services, host=host)

    def create(self, host: str, services: Sequence[str]) -> None:
        """Creates what `host` (a view) does not show. Images are there already: nothing is built or pulled here."""
        self._call("create", "--no-recreate", "--no-build", "--pull", "never", *services, host=host)

    def run_once(self, host: str, service: str, command: Sequence[str]) -> None:
        """Runs `command` in a new container of `service`, without what it depends on; it is removed afterwards."""
        self._call("run", "--rm", "--no-deps", "-T", service, *command, host=host)

    def _call(self, *arguments: str, host: str | None = None, profiles: Sequence[str] | None = None) -> tuple[str, str]:
        source = self.source
        flags: list[str] = []
        if source.definition is not None:
            flags += ["-f", "-"]
        else:
            flags += [text for name in source.files for text in ("-f", name)]
        if source.directory:
            flags += ["--project-directory", source.directory]
        flags += [text for name in source.env_files for text in ("--env-file", name)]
        flags += [text for name in (profiles or source.profiles) for text in ("--profile", name)]
        flags += ["--project-name", source.name] if source.name else []
        stdin = json.dumps(source.definition) if source.definition is not None else None
        return self._invoke([*flags, *arguments], stdin=stdin, host=host)

    def _invoke(
        self, arguments: Sequence[str], *, stdin: str | None = None, host: str | None = None
    ) -> tuple[str, str]:
        environment = dict.fromkeys(_ELSEWHERE, "")
        environment.update({"COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain", "COMPOSE_MENU": "0"})
        if host:
            environment["DOCKER_HOST"] = host
        # An empty line answers every question that Compose may ask with its safe default.
        program = [self._plugin] if self._plugin else [self._docker, "compose"]
        code, out, err = self._run([*program, *arguments], environment, self.source.directory, stdin or "\n")
        if code != 0:
            from .compose_words import explained

            raise explained(self.source.spoken or self.source.name or "project", arguments, out, err)
        return out, err
