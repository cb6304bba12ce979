# SPDX-License-Identifier: GPL-3.0-or-later
"""The project of the fault suites: deployed again and again, disturbed while it is, and healed by one more run.

A database with data in a volume, a web service in two containers that is replaced start-first and waits for the
database, a worker with data in an anonymous volume: the last two of the three ways in which data can be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.engine import Project, unique
from tests.support.engines import PrivateEngine
from tests.support.stacks import LABEL, Stack, check, service

START_FIRST = "web"
DATA = {"db": "/data/file", "worker": "/work/file"}


def definition(generation: int, web: int = 2, *, broken: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """All services, each with another environment in each generation. `broken`: two of them do not stand."""
    keys: dict[str, Any] = {"environment": {"GENERATION": str(generation)}}
    start_first = {"replicas": web, "update_config": {"order": "start-first"}}
    script = "exit 3" if broken else ""
    services = {
        "db": service(volumes=["data:/data"], healthcheck=check("true"), **keys),
        START_FIRST: service(script, depends_on={"db": {"condition": "service_healthy"}}, deploy=start_first, **keys),
        # Every other generation's own: what a candidate alone has mounted must go with it when it comes to nothing.
        "worker": service(script, volumes=["/work", f"/scratch{generation % 2}"], restart="unless-stopped", **keys),
    }
    return services, {"volumes": {"data": {}}}


class Story:
    """The project on one engine, and what must be true of it when all is well."""

    def __init__(self, project: Project) -> None:
        self.stack = Stack(project, {"stability": 0.2, "wait_timeout": 60})
        self.generation = 0
        self.anonymous: set[str] = set()  # the worker's volumes: like Compose, nobody removes them with their container

    def write(self, generation: int, *, without: str = "", web: int = 2, broken: bool = False) -> None:
        services, top = definition(generation, web, broken=broken)
        services.pop(without, None)
        self.stack.write(services, **top)

    def begin(self) -> None:
        """The first deploy, and data that must never be lost."""
        self.write(0)
        self.stack.deploy()
        for of, path in DATA.items():
            self.stack.shell(of, f"echo precious > {path}")
        self.remember()

    def names(self, *, without: str = "", web: int = 2) -> set[str]:
        counts = {"db": 1, START_FIRST: web, "worker": 1}
        return {
            f"{self.stack.name}-{of}-{number}"
            for of, count in counts.items()
            for number in range(1, count + 1)
            if of != without
        }

    def there(self, *, running: bool = False) -> set[str]:
        """The services that have a container, under whatever name."""
        return {
            document["Config"]["Labels"][f"{LABEL}.service"]
            for document in self.stack.containers().values()
            if document["State"]["Running"] or not running
        }

    def heals(self, where: str, generation: int, **options: Any) -> None:
        """One re-run puts everything right, a further one has nothing to do, and Compose neither."""
        gone = {"db", "web", "worker"} - self.there()
        assert not gone, f"{where}: {gone} lost their containers"
        self.write(generation)
        self.stack.deploy(**options)
        self.whole(where, generation)

    def whole(self, where: str, generation: int, *, data: bool = True, without: str = "", web: int = 2) -> None:
        """Every container is there, runs, is of this generation and has its data; and there is nothing besides."""
        stack, wanted = self.stack, self.names(without=without, web=web)
        assert stack.containers().keys() == wanted == stack.running(), where
        for name, document in stack.containers().items():
            assert f"GENERATION={generation}" in document["Config"]["Env"], f"{where}: {name} is another one"
        if data:
            self.data_kept(where, *{"db", "worker"} - {without})
        stack.unchanged()
        stack.up_finds_nothing_to_do()
        self.remember()
        self.nothing_left_over(where)

    def data_kept(self, where: str, *services: str) -> None:
        try:
            for of in services:
                self.stack.shell(of, f"grep -qx precious {DATA[of]}")
        except AssertionError as lost:
            raise AssertionError(f"{where}: {lost}") from lost

    def gone(self, where: str, *, volumes: bool) -> None:
        """Nothing of it is there any more, but for its data where that was to stay."""
        kept = () if volumes else (f"volume {self.stack.name}_data",)
        assert tuple(self.stack.snapshot()) == kept, where
        assert not self.stack.deploy(state="absent", remove_volumes=volumes)["changed"], where
        self.nothing_left_over(where)

    def nothing_left_over(self, where: str) -> None:
        """Nothing is on the engine but this project, and volumes that its own containers had in their time."""
        api, ours = self.stack.api, f"{LABEL}.project={self.stack.name}"
        assert len(api.containers(all=True)) == len(self.stack.containers()), where
        networks = {entry["Name"] for entry in api.networks()} - {"bridge", "host", "none"}
        assert networks == {entry["Name"] for entry in api.networks(filters={"label": [ours]})}, where
        assert networks <= {f"{self.stack.name}_default"}, f"{where}: {networks}"
        volumes = {entry["Name"] for entry in api.volumes()["Volumes"] or []}
        strays = volumes - self.anonymous - {f"{self.stack.name}_data"}
        assert not strays, f"{where}: {strays} belong to nobody"

    def remember(self) -> None:
        """Takes the volumes of the workers down that have run: there may be data in them."""
        ran = [at for at in self.stack.containers("worker").values() if at["State"]["Status"] != "created"]
        self.anonymous |= {mount["Name"] for document in ran for mount in document["Mounts"]}


@contextmanager
def told(engine: PrivateEngine, folder: Path) -> Iterator[Story]:
    """A story on an engine that nobody else uses; nothing is left of it in the end."""
    (folder / "project").mkdir()
    story = Story(Project(unique(), folder / "project", engine))
    try:
        yield story
    finally:
        engine.sweep(story.stack.name)
        engine.docker("volume", "prune", "--all", "--force")
