# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `image` on a real engine: which layer is stale, judged by what really lies in image and container."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.faults import Wire
from tests.support.shops import Shop, opened
from tests.support.stacks import codes, kinds

VERSION = r'ENTRYPOINT_VERSION="([^"]+)"'


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    with opened(project) as found:
        yield found


# -- the seed's case ---------------------------------------------------------------------------------------------------


def test_source_has_124_lines_image_and_container_114(shop: Shop) -> None:
    shop.begin(114)
    assert shop.fine()["services"]["web"]["compared"] == 1

    shop.entrypoint(124)
    result = shop.image()
    (entry,) = result["services"]["web"]["stale"]
    assert entry["layers"] == ["image", "container"]
    lines = [entry[layer]["lines"] for layer in ("source", "image")]
    assert [*lines, entry["containers"][f"{shop.name}-web-1"]["lines"]] == [124, 114, 114]
    assert entry["source"]["checksum"] == hashlib.sha256((shop.folder / "entrypoint.sh").read_bytes()).hexdigest()
    assert "source" in result["msg"]
    assert all(f"{number} lines" in result["msg"] for number in (114, 124))

    shop.project.compose("build", "web")
    shop.project.compose("restart", "-t", "1", "web")  # the seed's own remedy: the container stays the old one
    assert shop.shell("web", "wc -l < /entrypoint.sh").strip() == "114"
    assert shop.stale() == {"/entrypoint.sh": ["container"]}

    shop.deploy()
    assert shop.shell("web", "wc -l < /entrypoint.sh").strip() == "124"
    shop.fine()


def test_an_image_that_only_others_build_is_compared_as_well(shop: Shop) -> None:
    shop.begin(image=f"{shop.name}-web")
    shop.write(
        {
            "web": {"build": ".", "image": f"{shop.name}-web"},
            "worker": {"image": f"{shop.name}-web", "pull_policy": "never", "depends_on": ["web"]},
        }
    )
    shop.deploy()
    shop.entrypoint(120)
    shop.project.compose("build", "web")
    shop.deploy(services=["web"], build="never")
    result = shop.image()
    assert [entry["layers"] for entry in result["services"]["worker"]["stale"]] == [["container"]]
    assert result["services"]["web"]["stale"] == []


# -- state: present ----------------------------------------------------------------------------------------------------


def test_stale_images_are_built_and_nothing_else_is_done(shop: Shop) -> None:
    shop.begin()
    before = shop.identities()
    assert not shop.fine(state="present")["changed"]
    shop.entrypoint(124)
    foretold = shop.fine(state="present", check=True)
    done = shop.fine(state="present")
    assert kinds(foretold) == kinds(done) == {("build", f"image {shop.name}-web")}
    assert shop.identities() == before, "no container is touched"
    assert ("warning", "baked-file-stale") in {(at["severity"], at["code"]) for at in done["findings"]}
    assert not shop.fine(state="present")["changed"]
    built = shop.image_id()
    assert not shop.fine(state="present", build="always")["changed"]
    assert shop.image_id() == built, "a rebuild that changes nothing"
    result = shop.deploy()
    assert kinds(result) == {("recreate", f"{shop.name}-web-1")}
    shop.unchanged()


def test_build_never_leaves_it_stale_and_says_so(shop: Shop) -> None:
    shop.begin()
    shop.entrypoint(124)
    assert shop.stale(state="present", build="never") == {"/entrypoint.sh": ["image", "container"]}


def test_what_the_build_itself_alters_is_not_stale(shop: Shop) -> None:
    shop.entrypoint(114)
    (shop.folder / "other.txt").write_text("1")
    shop.dockerfile(
        "COPY entrypoint.sh /entrypoint.sh",
        "COPY other.txt /tmp/other.txt",
        "RUN sed -i 's/line 1$/altered/' /entrypoint.sh && rm /tmp/other.txt",
        'ENTRYPOINT ["/entrypoint.sh"]',
    )
    shop.write({"web": {"build": "."}})
    shop.project.compose("up", "-d", "--build")  # by hand: nobody knows what it was built from
    assert codes(shop.fine()) == {"baked-file-doubtful"}
    shop.fine(state="present")
    (shop.folder / "Dockerfile").write_text((shop.folder / "Dockerfile").read_text() + "COPY other.txt /srv/o\n")
    shop.fine(state="present")
    shop.deploy()
    assert codes(shop.fine()) == set()
    (shop.folder / "other.txt").write_text("2")
    stale = shop.stale()
    assert stale["/srv/o"] == ["image", "container"]
    assert "/entrypoint.sh" not in stale, "only what changed is stale"


def test_a_build_that_brings_the_same_image_is_not_made_again(shop: Shop, tmp_path: Path) -> None:
    shop.begin()
    log = tmp_path / "calls"
    wrapper = tmp_path / "bin/docker"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {_which("docker")} "$@"\n')
    wrapper.chmod(0o755)
    shop.env["PATH"] = f"{wrapper.parent}:{os.environ['PATH']}"
    os.utime(shop.folder / "entrypoint.sh")  # another time, the same content
    builds = []
    for _ in range(3):
        log.write_text("")
        shop.unchanged()
        builds.append(log.read_text().count(" build"))
    assert builds == [1, 0, 0]


def _which(name: str) -> str:
    return next(f"{at}/{name}" for at in os.environ["PATH"].split(":") if os.access(f"{at}/{name}", os.X_OK))


# -- which files -------------------------------------------------------------------------------------------------------


def test_files_are_found_in_the_dockerfile(shop: Shop) -> None:
    for name in ("app/a.py", "app/lib/b.py", "app/notes.md", "conf/one.conf", "conf/two.conf"):
        (shop.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shop.folder / name).write_text(name)
    (shop.folder / "app/link").symlink_to("a.py")
    (shop.folder / ".dockerignore").write_text("**/*.md\n")
    shop.entrypoint(114)
    shop.dockerfile(
        "WORKDIR /srv/shop",
        "COPY app .",
        "COPY --chown=0:0 conf/*.conf /etc/",
        'ADD ["entrypoint.sh", "/bin"]',
        "COPY <<EOF /srv/inline",
        "from the Dockerfile",
        "EOF",
        'ENTRYPOINT ["/bin/entrypoint.sh"]',
    )
    shop.write({"web": {"build": "."}})
    shop.deploy()
    result = shop.fine()
    assert (result["services"]["web"]["compared"], codes(result)) == (7, set())
    assert "from the Dockerfile" in shop.shell("web", "cat /srv/inline")

    (shop.folder / "app/notes.md").write_text("ignored")
    shop.fine()
    (shop.folder / "app/lib/b.py").write_text("changed")
    (shop.folder / "conf/three.conf").write_text("new")
    (shop.folder / "app/link").unlink()
    (shop.folder / "app/link").symlink_to("lib/b.py")
    both = ["image", "container"]
    assert shop.stale() == {"/srv/shop/lib/b.py": both, "/etc/three.conf": both, "/srv/shop/link": both}


def test_a_declared_file_is_judged_alone(shop: Shop) -> None:
    shop.begin(114, "COPY Dockerfile /srv/Dockerfile")
    (shop.folder / "Dockerfile").write_text((shop.folder / "Dockerfile").read_text() + "# changed\n")
    declared = [{"service": "web", "path": "/entrypoint.sh", "src": "entrypoint.sh"}]
    assert shop.fine(baked_files=declared)["services"]["web"]["compared"] == 1
    assert shop.stale() == {"/srv/Dockerfile": ["image", "container"]}
    result = shop.image(baked_files=[{"service": "web", "path": "/entrypoint.sh", "src": "gone.sh"}])
    assert codes(result) == {"baked-source-missing"}
    result = shop.image(baked_files=[{"service": "wbe", "path": "/x", "src": "x"}])
    assert codes(result) == {"service-unknown"}


def test_a_file_changed_inside_the_container(shop: Shop) -> None:
    shop.begin()
    shop.shell("web", "echo '# by hand' >> /entrypoint.sh")
    assert shop.stale() == {"/entrypoint.sh": ["container"]}


def test_a_volume_hides_what_a_new_image_holds(shop: Shop) -> None:
    (shop.folder / "app").mkdir()
    (shop.folder / "app/code.py").write_text("old")
    shop.entrypoint(114)
    shop.dockerfile("COPY entrypoint.sh /", "COPY app /app", 'ENTRYPOINT ["/entrypoint.sh"]')
    shop.write({"web": {"build": ".", "volumes": ["code:/app"]}}, volumes={"code": {}})
    shop.deploy()
    shop.fine()
    (shop.folder / "app/code.py").write_text("new")
    shop.deploy()  # built and replaced, and yet it runs the old one
    assert shop.shell("web", "cat /app/code.py") == "old"
    result = shop.fine()
    (found,) = [entry for entry in result["findings"] if entry["code"] == "baked-file-hidden"]
    assert "mounted at /app" in found["message"]


def test_many_files_are_read_by_directories(shop: Shop) -> None:
    (shop.folder / "app").mkdir()
    for number in range(300):
        (shop.folder / f"app/{number % 7}").mkdir(exist_ok=True)
        (shop.folder / f"app/{number % 7}/{number}.py").write_text(f"{number}\n")
    shop.begin(114, "COPY app /srv/app")
    assert shop.fine()["services"]["web"]["compared"] == 301
    (shop.folder / "app/3/3.py").write_text("other")
    assert shop.stale() == {"/srv/app/3/3.py": ["image", "container"]}


def test_no_image_and_no_container(shop: Shop) -> None:
    shop.entrypoint(114)
    shop.dockerfile("COPY entrypoint.sh /entrypoint.sh")
    shop.write({"web": {"build": "."}})
    assert "image-not-found" in codes(shop.image())
    foretold = shop.fine(state="present", check=True)
    assert kinds(foretold) == kinds(shop.fine(state="present")) == {("build", f"image {shop.name}-web")}
    assert shop.fine()["services"]["web"]["containers"] == {}


# -- reading leaves nothing --------------------------------------------------------------------------------------------


def test_reading_an_image_makes_no_volume_and_no_container_of_the_project(shop: Shop) -> None:
    shop.begin(114, "RUN mkdir -p /data && echo x > /data/x", "VOLUME /data", "COPY Dockerfile /data/Dockerfile")
    volumes = {entry["Name"] for entry in shop.api.volumes()["Volumes"] or []}
    shop.fine()
    assert {entry["Name"] for entry in shop.api.volumes()["Volumes"] or []} <= volumes


@pytest.mark.parametrize("moment", ["archive", "delete"])
def test_what_a_killed_run_left_is_swept_by_the_next(shop: Shop, moment: str) -> None:
    shop.begin()
    killed = []

    def kill(_ours: Any, _engine: Any) -> bool:
        call.process.send_signal(signal.SIGKILL)
        killed.append(True)
        return False

    wire = Wire(shop.project.engine)
    with wire.strung() as address:
        shop.call("image", docker_host=address).wait(60)
    wanted = "/archive" if moment == "archive" else "DELETE "
    at = next(number for number, request in enumerate(wire.requests) if wanted in request)
    with Wire(shop.project.engine, at, kill).strung() as address:
        call = shop.call("image", docker_host=address)
        call.process.wait(60)
    assert killed
    left = shop.reading()
    assert len(left) == 1
    assert not left[0]["Labels"].get("com.docker.compose.project"), "it must not count as the project's own"
    shop.unchanged()
    shop.fine()
    assert not shop.reading()


def test_at_most_two_requests_a_container(shop: Shop) -> None:
    shop.begin(114, deploy={"replicas": 3})
    ids = [document["Id"] for document in shop.containers().values()]
    wire = Wire(shop.project.engine)
    with wire.strung() as address:
        call = shop.call("image", docker_host=address)
        assert not call.wait(60).get("failed")
    # One where the engine's disk can be read, and what a container has changed need not be asked.
    assert [sum(at in request for request in wire.requests) for at in ids] == [1, 1, 1]
