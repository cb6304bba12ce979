# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a build context get into an image, and where: `.dockerignore`, wildcards, directories, links."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import replace

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.context import build_digest, context_of
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.dockerfile import Base
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.dockerignore import DockerIgnore
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import Staged
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.staleness import changed, found_files
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import project

FILES = ["a.sh", "b.sh", "app/x.py", "app/sub/y.py", "app/notes.md", "docs/one.md", "docs/keep/two.md", ".hidden"]


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def service(root, **section):
    return project({"web": {"build": {"context": str(root), **section}}}).services["web"]


def placed(root, text, ignored="", **section):
    """Path in the image to the source relative to the context; and how much could not be followed."""
    (root / "Dockerfile").write_text(f"FROM scratch\n{text}")
    (root / ".dockerignore").write_text(f"Dockerfile\n.dockerignore\n{ignored}")
    context = context_of(service(root, **section))
    files, skipped = found_files(context, Base("/"), context.args, "/")
    return {file.path: os.path.relpath(file.source, root) for file in files if file.text is None}, len(skipped)


@pytest.mark.parametrize(
    ("text", "ignored", "expected"),
    [
        ("COPY a.sh /", "", {"/a.sh": "a.sh"}),
        ("COPY a.sh /entry", "", {"/entry": "a.sh"}),
        ("COPY ./a.sh /x/", "", {"/x/a.sh": "a.sh"}),
        ("COPY ../../a.sh /x/", "", {"/x/a.sh": "a.sh"}),
        ("COPY *.sh /x/", "", {"/x/a.sh": "a.sh", "/x/b.sh": "b.sh"}),
        ("COPY ?.sh /x/", "a.sh", {"/x/b.sh": "b.sh"}),
        ("COPY [a]*.sh /x/", "", {"/x/a.sh": "a.sh"}),
        ("COPY */*.md /x/", "", {"/x/notes.md": "app/notes.md", "/x/one.md": "docs/one.md"}),
        (
            "COPY app /srv",
            "",
            {"/srv/x.py": "app/x.py", "/srv/sub/y.py": "app/sub/y.py", "/srv/notes.md": "app/notes.md"},
        ),
        ("COPY app /srv", "**/*.md\napp/sub", {"/srv/x.py": "app/x.py"}),
        ("COPY --exclude=sub --exclude=*.md app /srv", "", {"/srv/x.py": "app/x.py"}),
        ("COPY docs /d", "docs\n!docs/keep", {"/d/keep/two.md": "docs/keep/two.md"}),
        ("COPY . /s", "*\n!a.sh", {"/s/a.sh": "a.sh"}),
        ("COPY . /s", "app\ndocs\n*.sh", {"/s/.hidden": ".hidden"}),
        ("COPY a.sh /x\nCOPY b.sh /x", "", {"/x": "b.sh"}),
        ("COPY a.sh ${TARGET}/", "", {"/t/a.sh": "a.sh"}),
        ("COPY app/sub app/notes.md /x/", "", {"/x/y.py": "app/sub/y.py", "/x/notes.md": "app/notes.md"}),
    ],
)
def test_files(root, text, ignored, expected):
    text = f"ARG TARGET\n{text}" if "TARGET" in text else text
    assert placed(root, text, ignored, args={"TARGET": "/t"}) == (expected, 0)


def test_what_is_not_there_or_is_unpacked_is_said(root):
    with tarfile.open(root / "x.tar.gz", "w:gz") as archive:
        archive.add(root / "a.sh", "a.sh")
    assert placed(root, "COPY none /x\nADD x.tar.gz /y/\nCOPY x.tar.gz /z/") == ({"/z/x.tar.gz": "x.tar.gz"}, 2)


def test_the_place_of_one_file_may_be_a_directory(root):
    (root / "Dockerfile").write_text('FROM scratch\nCOPY a.sh /bin\nRUN sed -i s/a/b/ /bin/a.sh\nENTRYPOINT ["a.sh"]')
    context = context_of(service(root))
    (file,), _skipped = found_files(context, Base("/"), {}, "/")
    assert (file.path, file.into, file.script) == ("/bin", "/bin/a.sh", True)
    assert "Dockerfile:3" in file.doubt


def test_an_ignore_file_of_the_dockerfiles_own_comes_first(root):
    (root / "Dockerfile").write_text("FROM scratch\nCOPY *.sh /x/")
    (root / ".dockerignore").write_text("*.sh")
    (root / "Dockerfile.dockerignore").write_text("b.sh")
    files, _skipped = found_files(context_of(service(root)), Base("/"), {}, "/")
    assert [file.path for file in files] == ["/x/a.sh"]


@pytest.mark.parametrize(
    ("patterns", "ignored", "not_ignored"),
    [
        ("*.md", ["a.md"], ["docs/a.md", "a.mdx"]),
        ("**/*.md", ["a.md", "docs/x/a.md"], ["a.txt"]),
        ("/node_modules/", ["node_modules", "node_modules/x/y"], ["app/node_modules"]),
        ("**/node_modules", ["node_modules/x", "app/node_modules/x"], ["app/modules"]),
        ("a/**", ["a/b", "a/b/c"], ["ab", "b/a"]),
        ("# *.md\n\n  x  ", ["x"], ["a.md"]),
        ("docs\n!docs/a.md\ndocs/a.*", ["docs/a.md", "docs/b"], ["a.md"]),
        ("docs\n!docs/a.md", ["docs/b"], ["docs/a.md"]),
        ("./a/../b", ["b", "b/c"], ["a"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
    ],
)
def test_patterns(patterns, ignored, not_ignored):
    rules = DockerIgnore.from_text(patterns)
    assert [name for name in ignored if not rules.ignores(name)] == []
    assert [name for name in not_ignored if rules.ignores(name)] == []


def test_what_is_ignored_asks_for_no_build(root):
    (root / "Dockerfile").write_text("FROM scratch")
    (root / ".dockerignore").write_text("*.log")
    first = build_digest(service(root))
    (root / "app.log").write_text("x")
    assert build_digest(service(root)) == first
    (root / "app.txt").write_text("x")
    assert build_digest(service(root)) != first


def test_a_dockerfile_outside_of_its_context_counts(root):
    (root / "Dockerfile").write_text("FROM scratch")
    web = service(root / "app", dockerfile="../Dockerfile")
    first = build_digest(web)
    (root / "Dockerfile").write_text("FROM scratch\nCOPY x.py /")
    assert build_digest(web) != first


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], set()),
        ([("/app", 0), ("/app/x.py", 0)], {"/app/x.py"}),
        ([("/app", 0), ("/app/other", 1)], set()),
        ([("/app", 2)], {"/app/x.py"}),
        ([("/usr/bin/run", 0)], {"/bin/run"}),
        ([("/apple", 1)], set()),
    ],
)
def test_what_changed_in_a_container(entries, expected):
    found = changed([{"Path": path, "Kind": kind} for path, kind in entries], ["/app/x.py", "/bin/run"])
    assert found == expected


def test_a_plan_asks_for_a_build_when_something_else_is_to_come(root, tmp_path_factory):
    (root / "Dockerfile").write_text("FROM scratch")
    (root / ".dockerignore").write_text("*.log")
    web = service(root)
    coming = tmp_path_factory.mktemp("plan") / root.name
    shutil.copytree(root, coming)  # with other times, and with links to what only the target has
    for path in coming.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    (root / "data").mkdir()
    (root / "data/x").write_text("x")
    first = build_digest(web)
    (coming / "data").symlink_to(root / "data")
    staged = Staged(str(root), str(coming))
    assert build_digest(replace(web, staged=staged)) == first
    assert build_digest(replace(web, staged=replace(staged, removed=frozenset({"a.log"})))) == first

    assert build_digest(replace(web, staged=replace(staged, removed=frozenset({"b.sh"})))) != first
    (coming / "new.log").write_text("x")
    assert build_digest(replace(web, staged=staged)) == first
    (coming / "Dockerfile").write_text("FROM scratch\nCOPY x /")
    assert build_digest(replace(web, staged=staged)) != first
