# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` with what comes of files: images that are built, configs and secrets, what is mounted; and hooks,
which run where the container is started."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Project, unique
from tests.support.stacks import Stack, codes, job, kinds, leaks, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def test_build(stack: Stack) -> None:
    def dockerfile(text: str) -> None:
        (stack.project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN {text}\n", encoding="utf-8")

    dockerfile("echo one > /srv/version")
    stack.write({"web": {**service(), "image": f"{stack.name}-built:1", "build": "."}})
    done, _ = stack.predicted()
    assert ("build", f"image {stack.name}-built:1") in kinds(done)
    assert stack.shell("web", "cat /srv/version") == "one\n"
    first = stack.identities()

    result = stack.deploy(build="always")
    assert (result["changed"], stack.identities()) == (False, first), "an unchanged image is no reason for anything"

    dockerfile("echo two > /srv/version")
    assert not stack.deploy(build="never")["changed"]
    result = stack.deploy()  # build: auto sees that the image was made from other files
    assert kinds(result) == {("build", f"image {stack.name}-built:1"), ("recreate", f"{stack.name}-web-1")}
    assert stack.shell("web", "cat /srv/version") == "two\n"
    new = stack.identities()

    dockerfile("echo broken; exit 3")
    result = stack.fails(build="always")
    assert codes(result) == {"build-failed"}
    assert any("broken" in line for lines in result["logs"].values() for line in lines)
    assert stack.identities() == new


def test_one_service_builds_what_others_merely_name(stack: Stack) -> None:
    (stack.project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\n", encoding="utf-8")
    image = f"{stack.name}-shared:1"
    stack.write({"web": {**service(), "image": image, "build": "."}, "worker": {**service(), "image": image}})
    done, _ = stack.predicted()
    assert {action for action in kinds(done) if action[1].startswith("image ")} == {("build", f"image {image}")}
    assert set(stack.identities()) == {f"{stack.name}-web-1", f"{stack.name}-worker-1"}


@pytest.mark.parametrize("version", ["machine", "newest"])
def test_hooks_and_contents(stack: Stack, compose_versions: dict[str, dict[str, str]], version: str) -> None:
    """Compose up to 2.29 knows no hooks; newer ones leave hooks and contents to the start, which is ours."""
    oldest, newest = sorted(compose_versions, key=lambda text: [int(part) for part in text.split(".")])
    hooks = version == "newest"
    stack.project.engine.env.update(compose_versions[newest if hooks else oldest])
    secret = f"file-{unique()}"
    stack.env["FROM_OUTSIDE"] = secret
    web = service("cat /run/secrets/key > /tmp/at-start; cat /etc/app.conf >> /tmp/at-start")
    web |= {"configs": [{"source": "app", "target": "/etc/app.conf"}], "secrets": ["key"], "volumes": ["data:/data"]}
    if hooks:
        web["post_start"] = [{"command": ["sh", "-c", "echo started >> /data/hooks"]}]
        web["pre_stop"] = [{"command": ["sh", "-c", "echo stopping >> /data/hooks"]}]
    top: dict[str, Any] = {
        "volumes": {"data": {}},
        "configs": {"app": {"content": "colour=blue price=$$5\n"}},
        "secrets": {"key": {"environment": "FROM_OUTSIDE"}},
    }
    stack.write({"web": web}, **top)
    try:
        stack.predicted()
        assert stack.shell("web", "cat /tmp/at-start") == f"{secret}colour=blue price=$5\n"
        if hooks:
            assert stack.shell("web", "cat /data/hooks") == "started\n"
        stack.write({"web": web}, **{**top, "configs": {"app": {"content": "colour=red\n"}}})
        done, _ = stack.predicted()
        assert done == {("recreate", f"{stack.name}-web-1", "configs_content.app changed")}
        assert stack.shell("web", "cat /tmp/at-start") == f"{secret}colour=red\n"
        if hooks:
            assert stack.shell("web", "cat /data/hooks") == "started\nstopping\nstarted\n"
        assert not leaks([secret], *stack.printed)
    finally:
        stack.project.engine.env.clear()


def test_a_failing_hook_fails_the_replacement(stack: Stack, compose_versions: dict[str, dict[str, str]]) -> None:
    newest = max(compose_versions, key=lambda text: [int(part) for part in text.split(".")])
    stack.project.engine.env.update(compose_versions[newest])
    try:
        stack.write({"web": service()})
        stack.deploy()
        before = stack.container("web")["Id"]
        stack.write({"web": service(post_start=[{"command": ["sh", "-c", "echo cannot warm up; exit 7"]}])})
        result = stack.fails()
        assert codes(result) >= {"hook-failed"}
        assert "7" in result["msg"]
        assert any("cannot warm up" in line for lines in result["logs"].values() for line in lines)
        assert stack.container("web")["Id"] == before
        assert stack.running() == stack.names("web")
    finally:
        stack.project.engine.env.clear()


@pytest.mark.parametrize("with_baked", [False, True])
def test_a_look_makes_nothing_where_a_mounted_file_is_missing(stack: Stack, with_baked: bool) -> None:
    """To read in a container that has ended the engine mounts its mounts, and makes a directory where one's source is
    missing: a plan would put a directory where the next deploy is to bring a file."""
    conf = stack.project.folder / "app.conf"
    conf.write_text("a\n", encoding="utf-8")
    stack.write({"migrate": job("true", volumes=["./app.conf:/etc/app.conf"])})
    baked = [{"service": "migrate", "path": "/etc/app.conf", "src": "compose.yml"}]
    options = {"baked_files": baked} if with_baked else {}
    stack.deploy()
    conf.unlink()

    stack.run("stack_info", **options)
    stack.run(check=True, **options)
    stack.call("image", check=True, **options).wait(120)
    assert not conf.exists()

    conf.write_text("a\n", encoding="utf-8")
    stack.unchanged()
