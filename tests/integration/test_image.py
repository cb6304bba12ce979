# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `image` on a real engine: which layer is stale, judged by what really lies in image and container."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Project
from tests.support.faults import Wire
from tests.support.stacks import STAY, Stack, codes, contract, kinds, leaks, moved

# Part C, not seen green on a quiet machine yet: `make faults` runs it.
pytestmark = pytest.mark.long

READING = "io.shipshape.deploy.reading"
VERSION = r'ENTRYPOINT_VERSION="([^"]+)"'


class Shop(Stack):
    """A project of one service whose image is built with an entrypoint."""

    @property
    def folder(self) -> Path:
        return self.project.folder

    def dockerfile(self, *lines: str, name: str = "Dockerfile") -> None:
        (self.folder / name).write_text("\n".join([f"FROM {BUSYBOX}", *lines]) + "\n", encoding="utf-8")

    def entrypoint(
        self, lines: int, version: str = "1.0.0", says: str = 'echo "Entrypoint $ENTRYPOINT_VERSION"'
    ) -> None:
        """A script of so many lines that says its version and stays."""
        head = ["#!/bin/sh", f'ENTRYPOINT_VERSION="{version}"', says]
        body = [f"# line {number}" for number in range(lines - len(head) - 2)]
        text = "\n".join([*head, *body, *STAY.split("; ")[:1], STAY.split("; ", 1)[1]]) + "\n"
        path = self.folder / "entrypoint.sh"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        assert text.count("\n") == lines

    def begin(self, lines: int = 114, *more: str, **keys: Any) -> None:
        self.entrypoint(lines)
        self.dockerfile("COPY entrypoint.sh /entrypoint.sh", *more, 'ENTRYPOINT ["/entrypoint.sh"]')
        self.write({"web": {"build": ".", **keys}})
        self.deploy()

    def image(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """One call of the module; whatever it says has to be true, and nothing of its reading may be left."""
        before = self.everything()
        call = self.call("image", check=check, **options)
        try:
            result = call.wait(120)
        finally:
            call.process.kill()
        self.printed += [call.stdout, call.stderr]
        assert not call.stderr, call.stderr
        contract(result)
        after = self.everything()
        if check or options.get("state", "verified") == "verified":
            assert before == after, moved(before, after)
        else:
            assert result["changed"] == (before != after), moved(before, after) or "nothing did"
        assert not self.reading()
        return result

    def everything(self) -> dict[str, Any]:
        """The project, and every image and volume of the engine that is the project's: reading leaves nothing."""
        label = {"label": [f"com.docker.compose.project={self.name}"]}
        images = {f"image {entry['Id']}": sorted(entry["RepoTags"] or []) for entry in self.api.images(filters=label)}
        return {**self.snapshot(), **images}

    def reading(self) -> list[dict[str, Any]]:
        """Containers made to read this project's images."""
        listed = self.api.containers(all=True, filters={"label": READING})
        own = {entry["Id"] for entry in self.api.images(filters={"label": [f"com.docker.compose.project={self.name}"]})}
        return [entry for entry in listed if entry["ImageID"] in own]

    def image_id(self) -> str:
        return str(self.api.inspect_image(f"{self.name}-web")["Id"])

    def fine(self, **options: Any) -> dict[str, Any]:
        result = self.image(**options)
        assert not result.get("failed"), result["msg"]
        return result

    def stale(self, **options: Any) -> dict[str, list[str]]:
        """Path to stale layers, of a call that has to fail."""
        result = self.image(**options)
        assert result.get("failed"), result
        entries = [entry for at in result["services"].values() for entry in at["stale"]]
        return {entry["path"]: entry["layers"] for entry in entries}


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    shop = Shop(project, options={"stability": 0.2, "wait_timeout": 30})
    yield shop
    label = {"label": [f"com.docker.compose.project={shop.name}"]}
    for entry in shop.api.containers(all=True, filters=label):
        shop.api.remove_container(entry["Id"], force=True, v=True)
    for entry in shop.api.images(filters=label):
        shop.api.remove_image(entry["Id"], force=True)


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


def test_two_requests_a_container(shop: Shop) -> None:
    shop.begin(114, deploy={"replicas": 3})
    ids = [document["Id"] for document in shop.containers().values()]
    wire = Wire(shop.project.engine)
    with wire.strung() as address:
        call = shop.call("image", docker_host=address)
        assert not call.wait(60).get("failed")
    assert [sum(at in request for request in wire.requests) for at in ids] == [2, 2, 2]


# -- versions and patterns ---------------------------------------------------------------------------------------------


def test_versions_of_source_image_container_and_log(shop: Shop) -> None:
    shop.begin()
    name = f"{shop.name}-web-1"
    (entry,) = shop.fine(version_marker=VERSION)["services"]["web"]["versions"]
    assert (entry["source"], entry["image"], entry["containers"], entry["logs"]) == (
        "1.0.0",
        "1.0.0",
        {name: "1.0.0"},
        {name: "1.0.0"},
    )
    shop.entrypoint(114, "2.0.0-beta")
    result = shop.image(version_marker=VERSION)
    assert {"version-mismatch", "version-not-logged"} <= codes(result)

    shop.project.compose("build", "web")
    shop.project.compose("restart", "-t", "1", "web")
    (entry,) = shop.image(version_marker=VERSION)["services"]["web"]["versions"]
    assert (entry["source"], entry["image"], entry["containers"]) == ("2.0.0-beta", "2.0.0-beta", {name: "1.0.0"})

    shop.deploy()
    shop.fine(version_marker=VERSION)
    assert "version-missing" in codes(shop.image(version_marker="NO_SUCH_VERSION=(.*)"))
    assert codes(shop.image(version_marker="(")) == {"pattern-invalid"}


def test_only_the_last_start_counts(shop: Shop) -> None:
    """The first start says a version, and the second none."""
    shop.entrypoint(114, says='[ -e /tmp/before ] || echo "Entrypoint $ENTRYPOINT_VERSION"; touch /tmp/before')
    shop.dockerfile("COPY entrypoint.sh /entrypoint.sh", 'ENTRYPOINT ["/entrypoint.sh"]')
    shop.write({"web": {"build": "."}})
    shop.deploy()
    shop.fine(version_marker=VERSION)
    shop.project.compose("restart", "-t", "1", "web")
    assert codes(shop.image(version_marker=VERSION)) == {"version-not-logged"}


def test_what_cannot_be_read_of_the_log_is_no_failure(shop: Shop) -> None:
    shop.begin(114, logging={"driver": "none"})
    assert codes(shop.fine(version_marker=VERSION)) == {"log-unreadable"}


def test_required_patterns_tell_four_errors_apart(shop: Shop) -> None:
    shop.begin()

    def required(pattern: str, path: str = "/entrypoint.sh") -> set[str]:
        return codes(shop.image(required_patterns=[{"service": "web", "path": path, "pattern": pattern}]))

    assert required("^# line 7$") == set()
    assert required("visitor pool") == {"pattern-missing"}
    assert required("x", "/no/such/file") == {"file-missing"}
    shop.project.compose("stop", "-t", "1", "web")
    assert required("^# line 7$") == {"container-not-running"}
    shop.project.compose("rm", "-f", "web")
    assert required("^# line 7$") == {"container-missing"}


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_old_images_are_pruned_but_never_those_that_ran_well(shop: Shop) -> None:
    ids = []
    for lines in (110, 111, 112, 113):
        if lines == 110:
            shop.begin(lines)
        else:
            shop.entrypoint(lines)
            shop.deploy()
        ids.append(shop.image_id())
    # One that never ran well, younger than all of them.
    (shop.folder / "entrypoint.sh").write_text("#!/bin/sh\nexit 3\n")
    shop.fails()
    bad = shop.image_id()
    shop.entrypoint(114)
    shop.deploy()
    ids.append(shop.image_id())

    there = {entry["Id"] for entry in shop.api.images(filters={"dangling": True})}
    assert {*ids[:-1], bad} <= there
    foretold = shop.fine(state="pruned", keep=3, check=True)
    done = shop.fine(state="pruned", keep=3)
    assert kinds(foretold) == kinds(done)
    assert _gone(shop, [*ids, bad]) == {ids[0], ids[1], bad}
    assert not shop.fine(state="pruned", keep=3)["changed"]
    assert shop.fine(state="pruned", keep=0)["changed"]
    assert _gone(shop, ids) == set(ids[:-1]), "what runs stays"
    shop.unchanged()


def test_pruning_spares_what_others_use_or_name(shop: Shop) -> None:
    shop.begin(110)
    first = shop.image_id()
    shop.api.tag(first, f"{shop.name}-mine", "1")
    shop.entrypoint(111)
    shop.deploy()
    second = shop.image_id()
    other = shop.api.create_container(second, name=f"{shop.name}-other", labels={"com.docker.compose.project": ""})
    shop.entrypoint(112)
    shop.deploy()
    assert not shop.fine(state="pruned", keep=0)["changed"]
    assert not _gone(shop, [first, second])
    shop.api.remove_container(other["Id"])
    assert shop.fine(state="pruned", keep=0)["changed"]
    assert _gone(shop, [first, second]) == {second}
    assert codes(shop.image(state="pruned", keep=-1)) == {"keep-invalid"}


def _gone(shop: Shop, ids: list[str]) -> set[str]:
    there = {entry["Id"] for entry in shop.api.images(all=True)}
    return set(ids) - there


# -- secrets, and what is remembered -----------------------------------------------------------------------------------


def test_nothing_secret_is_told_or_remembered(shop: Shop) -> None:
    secret = "Tr0ub4dor-und-3-horse"
    shop.entrypoint(114)
    shop.dockerfile("ARG API_TOKEN", "RUN echo using $API_TOKEN; test -e /nowhere", "COPY entrypoint.sh /e")
    shop.write({"web": {"build": {"context": ".", "args": {"API_TOKEN": secret}}, "environment": {"API_KEY": secret}}})
    assert codes(shop.image(state="present")) == {"build-failed"}
    shop.image(version_marker="nothing", check=True)
    state = Path(os.environ["XDG_STATE_HOME"]) / "shipshape"
    remembered = [entry.read_text() for entry in state.iterdir()]
    assert not leaks([secret], *shop.printed, *remembered)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in state.iterdir()} == {0o600}


def test_without_what_is_remembered_nothing_is_wrong(shop: Shop) -> None:
    shop.begin()
    for entry in (Path(os.environ["XDG_STATE_HOME"]) / "shipshape").iterdir():
        if shop.image_id() in entry.read_text():
            entry.write_text(json.dumps({"v": 99}))
    shop.unchanged()
    shop.fine()
    assert not shop.fine(state="pruned")["changed"]


def test_two_at_once(shop: Shop) -> None:
    shop.begin()
    shop.entrypoint(124)
    calls = [shop.call("image", state="present") for _ in range(2)]
    results = [call.wait(60) for call in calls]
    assert [result.get("failed", False) for result in results] == [False, False]
    assert sorted(result["changed"] for result in results) == [False, True]
