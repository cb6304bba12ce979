# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` on a real engine, with the engine itself as the witness.

Every call through `Stack` is checked for what must be true of any call at all: `changed` says whether the engine holds
anything else than before, check mode leaves everything as it is, the containers reported are those that are there, and
a failure is one readable line. What is read here is read through the Docker SDK, never through the code under test.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import docker

from tests.support.engine import BUSYBOX, Project
from tests.support.modules import ModuleCall

LABEL = "com.docker.compose"
HEX_ID = re.compile(r"\b[0-9a-f]{64}\b")
LEFT_OVER = ("remove", "left by an interrupted run")  # action and reason
# What a service does when it is told to stop decides how long the tests take: at once, as well-behaved ones do.
STAY = "trap 'exit 143' TERM; sleep 3600 & wait"

Actions = set[tuple[str, str, str]]
Drift = set[tuple[str, str, str, str]]  # service, kind, field, action


@lru_cache
def api(host: str) -> docker.APIClient:
    """The witness."""
    return docker.APIClient(base_url=host, version="auto", timeout=60)


def service(script: str = "", **keys: Any) -> dict[str, Any]:
    """A service that runs `script` and then stays until it is told to stop."""
    said = f"{script}\n{STAY}" if script else STAY
    return {"image": BUSYBOX, "command": ["sh", "-c", said.replace("$", "$$")], **keys}


def job(script: str, **keys: Any) -> dict[str, Any]:
    """A service that runs `script` and ends."""
    return {"image": BUSYBOX, "command": ["sh", "-c", script.replace("$", "$$")], **keys}


def check(script: str, interval: str = "0.1s", **keys: Any) -> dict[str, Any]:
    """A healthcheck. (The engine waits one `interval` before it looks for the first time.)"""
    return {"test": ["CMD-SHELL", script], "interval": interval, "timeout": "5s", "retries": 2, **keys}


def spellings(secret: str) -> set[str]:
    """Forms from which anybody could read `secret`: as it is, URL-encoded, in base64."""
    raw = secret.encode()
    encoded = {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], *encoded}


def leaks(secrets: Iterable[str], *texts: str) -> list[str]:
    """The secrets that can be read out of `texts`."""
    return sorted({secret for secret in secrets for form in spellings(secret) if any(form in text for text in texts)})


@dataclass
class Stack:
    """One project, converged by the module."""

    project: Project
    options: dict[str, Any] = field(default_factory=lambda: {"stability": 0.5, "wait_timeout": 30})
    env: dict[str, str] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)  # all that the module ever wrote, for who looks for secrets

    @property
    def name(self) -> str:
        return self.project.name

    @property
    def api(self) -> docker.APIClient:
        return api(self.project.engine.host)

    def write(self, services: dict[str, Any], **top: Any) -> None:
        self.project.write({"services": services, **top})

    # -- the module -------------------------------------------------------------------------------------------------

    def call(self, module: str = "stack", *, check: bool = False, **options: Any) -> ModuleCall:
        given = {"project_src": str(self.project.folder), "project_name": self.name, **options}
        if module == "stack":
            given = {**self.options, **given}
        if self.project.engine.host:
            given.setdefault("docker_host", self.project.engine.host)
        given = {key: value for key, value in given.items() if value is not None}
        return ModuleCall(module, given, check=check, diff=True, env={**self.project.engine.env, **self.env})

    def run(
        self, module: str = "stack", *, check: bool = False, restless: bool = False, **options: Any
    ) -> dict[str, Any]:
        """The result of one call. `restless`: something in the project changes by itself (a crash loop)."""
        before, begun = self.snapshot(), time.time()
        call = self.call(module, check=check, **options)
        try:
            result = call.wait(120)
        finally:
            call.process.kill()
        self.printed += [call.stdout, call.stderr]
        after = self.snapshot()
        assert not call.stderr, call.stderr
        contract(result)
        if check or module == "stack_info":
            assert restless or before == after, f"it only was to look, but {moved(before, after)}"
        elif not restless:
            assert result["changed"] == (before != after or self._late(result["actions"], begun)), (
                f"changed={result['changed']}, and {moved(before, after) or 'nothing did'}: {result}"
            )
        if not check and not result.get("failed") and not restless:
            self._reported_as_is(result)
        return result

    def _late(self, actions: list[dict[str, Any]], begun: float) -> bool:
        """Whether all that was done is to remove what the engine made for a killed run after we had looked: it goes on
        with a request when nobody waits for the answer any more. Its own events are the witness."""
        targets = {at["target"] for at in actions}
        if not targets or {(at["action"], at["reason"]) for at in actions} != {LEFT_OVER}:
            return False
        chosen = {"type": "container", "event": "destroy"}
        events = self.api.events(since=int(begun), until=int(time.time()) + 1, filters=chosen, decode=True)
        return targets <= {event["Actor"]["Attributes"]["name"] for event in events}

    def deploy(self, **options: Any) -> dict[str, Any]:
        result = self.run(**options)
        assert not result.get("failed"), result["msg"]
        return result

    def fails(self, **options: Any) -> dict[str, Any]:
        """A failure ends a run at once, so a longer window costs nothing; on a busy machine a container needs it to
        get as far as failing."""
        longer = max(3.0, self.options.get("stability", 0.0))
        result = self.run(**{"stability": longer, **options})
        assert result.get("failed"), f"it should have failed: {result['actions']}"
        return result

    def predicted(self, **options: Any) -> tuple[Actions, dict[str, Any]]:
        """Check mode, then the run, which must do exactly what was predicted, then nothing more to do."""
        foretold = self.run(check=True, **options)
        assert not foretold.get("failed"), foretold["msg"]
        assert foretold["changed"] == bool(foretold["actions"])
        done = self.deploy(**options)
        assert actions(done) == actions(foretold)
        assert foretold.get("diff") == done.get("diff")
        again = self.deploy(**{**options, "recreate": "auto"})
        assert (again["changed"], again["actions"]) == (False, [])
        return actions(done), done

    def unchanged(self, **options: Any) -> None:
        """A further run does nothing and sees nothing."""
        again = self.deploy(**options)
        assert (again["changed"], again["actions"], again.get("drift", [])) == (False, [], []), again

    def ends(self, expected: Drift, **options: Any) -> dict[str, Any]:
        """All of `expected` is seen and nothing else; one run ends it as predicted, and touches nobody else."""
        before = self.identities()
        looking = {key: value for key, value in options.items() if key in ("baked_files", "watch_paths")}
        seen = told(self.run("stack_info", **looking))
        assert seen == expected, f"seen wrongly: {seen - expected}, not seen: {expected - seen}"
        done, result = self.predicted(**options)
        assert told(result) == expected
        acted = {name: action for name, _kind, _field, action in sorted(expected)}
        assert {target for _action, target, _reason in done} == self.names(*acted), done
        after = self.identities()
        untouched = {name: at for name, at in before.items() if name in after and name not in self.names(*acted)}
        assert untouched.items() <= after.items(), moved(untouched, after)
        ids = {at[0] for at in before.values()}
        anew = {name for name in acted if self.container(name)["Id"] not in ids}
        assert anew == {name for name, action in acted.items() if action in ("recreate", "create")}
        self.unchanged(**options)
        return result

    # -- the witness ------------------------------------------------------------------------------------------------

    def containers(self, service: str | None = None) -> dict[str, dict[str, Any]]:
        """Name to inspect document of the project's containers, in whatever state, under whatever name."""
        labels = [f"{LABEL}.project={self.name}", *([f"{LABEL}.service={service}"] if service else [])]
        listed = self.api.containers(all=True, filters={"label": labels})
        found = {}
        for entry in listed:
            try:
                document = self.api.inspect_container(entry["Id"])
            except docker.errors.NotFound:
                continue
            found[document["Name"].lstrip("/")] = document
        return dict(sorted(found.items()))

    def container(self, service: str, number: int = 1) -> dict[str, Any]:
        return self.containers(service)[f"{self.name}-{service}-{number}"]

    def identities(self, *services: str) -> dict[str, tuple[str, str]]:
        """Name to (id, StartedAt): what is not the same container, or not the same run of it, differs."""
        found = {}
        for name, document in self.containers().items():
            if not services or document["Config"]["Labels"][f"{LABEL}.service"] in services:
                found[name] = (document["Id"], document["State"]["StartedAt"])
        return found

    def snapshot(self) -> dict[str, Any]:
        """Everything of the project in the engine."""
        label = {"label": [f"{LABEL}.project={self.name}"]}
        state = {
            f"container {name}": (document["Id"], document["State"]["StartedAt"], document["State"]["Status"])
            for name, document in self.containers().items()
        }
        state |= {f"network {entry['Name']}": entry["Id"] for entry in self.api.networks(filters=label)}
        volumes = self.api.volumes(filters=label)["Volumes"] or []
        state |= {f"volume {entry['Name']}": entry["CreatedAt"] for entry in volumes}
        images = self.api.images(name=f"{self.name}*")
        return state | {f"image {tag}": entry["Id"] for entry in images for tag in entry["RepoTags"] or []}

    def running(self) -> set[str]:
        return {name for name, document in self.containers().items() if document["State"]["Status"] == "running"}

    def names(self, *services: str) -> set[str]:
        """What the first container of each service is called."""
        return {f"{self.name}-{at}-1" for at in services}

    def shell(self, service: str, script: str, number: int = 1) -> str:
        """What `script` prints inside a running container."""
        made = self.api.exec_create(self.container(service, number)["Id"], ["sh", "-c", script])
        said: str = self.api.exec_start(made["Id"]).decode()
        code = self.api.exec_inspect(made["Id"])["ExitCode"]
        assert code == 0, f"{script!r} in {service} ended with {code}: {said}"
        return said

    def up_finds_nothing_to_do(self) -> None:
        """Plain Compose agrees that everything is as its file says."""
        before = self.snapshot()
        self.project.compose("up", "-d")
        assert not (did := moved(before, self.snapshot())), did

    def _reported_as_is(self, result: dict[str, Any]) -> None:
        told = {at["name"]: (at["id"], at["state"]) for name in result["services"] for at in self._told(result, name)}
        services = result["services"]
        there = {
            name: (document["Id"][:12], document["State"]["Status"])
            for name, document in self.containers().items()
            if document["Config"]["Labels"][f"{LABEL}.service"] in services
        }
        assert told == there

    @staticmethod
    def _told(result: dict[str, Any], service: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = result["services"][service]["containers"]
        return entries


def contract(result: dict[str, Any]) -> None:
    """What every result of every module of the collection has, and what a failure looks like."""
    assert isinstance(result["changed"], bool)
    for entry in result["actions"]:
        assert set(entry) == {"action", "target", "reason", "seconds"}, entry
        assert entry["reason"], entry
    for entry in result["findings"]:
        assert set(entry) == {"severity", "subject", "code", "message", "remedy"}, entry
        assert entry["severity"] in ("critical", "warning", "info")
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", entry["code"]), entry
    if result.get("failed"):
        readable(result["msg"])
        assert any(entry["severity"] == "critical" for entry in result["findings"]), result
        assert "exception" not in result


def readable(msg: str) -> None:
    """One line that somebody woken up at night can use."""
    assert msg.strip(), "an empty message"
    assert "\n" not in msg, msg
    assert "Traceback" not in msg, msg
    assert not HEX_ID.search(msg), f"an id that nobody can read: {msg}"
    assert len(msg) < 1500, f"{len(msg)} characters: {msg}"


def actions(result: dict[str, Any]) -> Actions:
    listed = [(entry["action"], entry["target"], entry["reason"]) for entry in result["actions"]]
    assert len(listed) == len(set(listed)), f"something was done twice: {listed}"
    return set(listed)


def kinds(result: dict[str, Any] | Actions) -> set[tuple[str, str]]:
    """(action, target), where the reason does not matter."""
    return {at[:2] for at in (result if isinstance(result, set) else actions(result))}


def told(result: dict[str, Any]) -> Drift:
    """Every difference that was seen."""
    return {(at["service"], at["kind"], at["field"], at["action"]) for at in result["drift"]}


def codes(result: dict[str, Any]) -> set[str]:
    return {entry["code"] for entry in result["findings"]}


def moved(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs between two snapshots, for a message."""
    return "; ".join(
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def times(documents: Sequence[dict[str, Any]], field_name: str) -> Iterator[str]:
    """StartedAt or FinishedAt of containers, comparable as text (the engine drops trailing zeros)."""
    for document in documents:
        head, _, fraction = document["State"][field_name].rstrip("Z").partition(".")
        yield f"{head}.{fraction:0<9}"
