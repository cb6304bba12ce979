# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules `visitor_pool` and `visitor_pool_info` where it is not plain who works in the slots: a working installation
is never called broken for that. The witness is a process in the containers that saves in a slot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.pools import World, make_template, sqlite
from tests.support.stacks import Stack, service
from tests.support.worlds import codes

APP, OTHER = 1234, 4321


class Shop:
    """An application whose files are APP's, in a folder that is mounted as its services say."""

    def __init__(self, world: World, project: Project) -> None:
        self.world, self.project, self.stack = world, project, Stack(project)

    def start(self, services: dict[str, Any], **top: Any) -> None:
        self.stack.write(services, **top)
        self.project.compose("up", "-d", "--force-recreate", "--remove-orphans", "-t", "0")

    def options(self, **given: Any) -> None:
        self.world.options.update(project_src=str(self.project.folder), project_name=self.project.name, **given)

    def saves(self, name: str, place: str, user: int = APP) -> bool:
        script = f"echo x >{place}/scitex/writer/probe && rm {place}/scitex/writer/probe"
        words = ("exec", "-u", f"{user}:{user}", f"{self.project.name}-{name}-1", "sh", "-c", script)
        return self.project.engine.docker(*words, check=False).returncode == 0

    def is_well(self) -> None:
        """Nothing is said against it, nothing is done, and it grows."""
        looked = self.world.info()
        assert (looked["health"], codes(looked)) == ("ok", [])
        assert not self.world.well()["changed"]
        self.world.well(size=4)
        self.world.well(size=3)


@pytest.fixture
def shop(project: Project, tmp_path: Path) -> Iterator[Shop]:
    database = sqlite(tmp_path / "app.db")
    database.make()
    root = tmp_path / "srv/users"
    root.mkdir(parents=True, mode=0o750)
    os.chown(root, APP, APP)
    found = Shop(World(database, root, make_template(tmp_path / "template"), size=3), project)
    found.world.well()
    yield found
    database.close()


def mounted(root: Path, user: int = APP, **keys: Any) -> dict[str, Any]:
    return service(**{"user": f"{user}:{user}", "volumes": [f"{root}:/data"], **keys})


def test_who_may_become_another_is_not_who_works(shop: Shop) -> None:
    """The first process is root, to whom nothing but changing its user is left."""
    # As gunicorn, nginx and the supervisors of many an image do.
    script = f"echo app:x:{APP}:{APP}::/:/bin/sh >>/etc/passwd; su -s /bin/sh app -c 'sleep 3600' &"
    keys = {"cap_drop": ["ALL"], "cap_add": ["SETUID", "SETGID"]}
    shop.start({"web": service(script, user="0:0", volumes=[f"{shop.world.root}:/data"], **keys)})
    shop.options(data_service="web", data_root="/data")
    assert shop.saves("web", "/data/visitor-001/default-project")
    shop.is_well()


def test_a_service_beside_it_is_no_witness_while_the_application_does_not_run(shop: Shop) -> None:
    """What backs up or serves the files is seldom mounted read-only, and is somebody else."""
    root = shop.world.root
    shop.start({"web": mounted(root), "backup": mounted(root, OTHER)})
    shop.options(service="web", data_service="backup", data_root="/data")
    assert not shop.saves("backup", "/data/visitor-001/default-project", OTHER)
    shop.is_well()
    shop.project.compose("stop", "-t", "0", "web")
    shop.is_well()
    shop.project.compose("rm", "-f", "web")
    shop.is_well()


def test_one_of_two_that_may_work_there_is_enough(shop: Shop) -> None:
    """The application only reads what its worker writes; nobody has mounted it read-only."""
    root = shop.world.root
    shop.start({"web": mounted(root, OTHER, group_add=[str(APP)]), "worker": mounted(root)})
    shop.options(service="web", data_service="worker", data_root="/data")
    assert not shop.saves("web", "/data/visitor-001/default-project", OTHER)
    assert shop.saves("worker", "/data/visitor-001/default-project")
    shop.is_well()


def test_everybody_comes_by_his_own_way(shop: Shop) -> None:
    """The folder above is closed, and only `keeper` has to pass it."""
    root = shop.world.root
    os.chmod(root.parent, 0o700)
    above = service(user="0:0", volumes=[f"{root.parent}:/srv"])
    shop.start({"web": mounted(root), "keeper": above})
    shop.options(service="web", data_service="keeper", data_root="/srv/users")
    assert shop.saves("web", "/data/visitor-001/default-project")
    shop.is_well()


def test_two_containers_of_a_service_may_have_two_users(shop: Shop) -> None:
    """While one image takes the place of another."""
    shop.start({"web": mounted(shop.world.root, OTHER, deploy={"replicas": 1})})
    shop.stack.write({"web": mounted(shop.world.root)})
    shop.project.compose("up", "-d", "--no-recreate", "--scale", "web=2")
    shop.options(data_service="web", data_root="/data")
    shop.is_well()


def test_a_part_of_a_volume_is_that_part(shop: Shop) -> None:
    """The application sees the folder `users` of its volume as /data, and nothing else of it."""
    mount = {"type": "volume", "source": "all", "target": "/data", "volume": {"subpath": "users"}}
    make = service(user="0:0", volumes=["all:/all"])
    shop.start({"make": make}, volumes={"all": {}})
    script = f"mkdir -m 750 /all/users && chown {APP}:{APP} /all/users"
    shop.project.compose("exec", "-T", "make", "sh", "-c", script)
    services = {"make": make, "web": service(user=f"{APP}:{APP}", volumes=[mount])}
    shop.stack.write(services, volumes={"all": {}})
    shop.options(data_service="web", data_root="/data")
    for moment in ("before it has a container", "while it runs"):
        if moment == "while it runs":
            shop.project.compose("up", "-d")
            assert not shop.world.call()["changed"]
        else:
            assert not shop.world.call().get("failed")
        names = shop.project.compose("exec", "-T", "make", "ls", "/all", "/all/users").stdout.split()
        assert names == ["/all:", "users", "/all/users:", "visitor-001", "visitor-002", "visitor-003"], moment
    assert shop.saves("web", "/data/visitor-001/default-project")
    assert shop.world.info()["health"] == "ok"
