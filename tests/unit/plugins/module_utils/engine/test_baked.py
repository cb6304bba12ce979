# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layer is stale, and what is said about it: a row a case."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.baked import (
    Baked,
    Layers,
    ServiceFiles,
    altered_files,
    findings,
    judged,
    notes,
    summary,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.contents import Content, cover, found_version
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.history import History
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.observed import since_last_start
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.versions import (
    Said,
    version_findings,
    version_summary,
)

NEW, OLD, OTHER = Content("n" * 64, 124, "2.0"), Content("o" * 64, 114, "1.0"), Content("x" * 64, 3)
IMAGE, OLD_IMAGE = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def layers(source=NEW, image=NEW, container=NEW, *, hidden=False, **file):
    return Layers(
        Baked("/e.sh", "/p/e.sh", **file),
        "/e.sh",
        source,
        image,
        {"p-web-1": container},
        {"p-web-1": "/vol"} if hidden else {},
    )


def service(*files, current=False, image=IMAGE, ran=IMAGE):
    return ServiceFiles("web", "web:1", image, files, {"p-web-1": ran}, current, builds=True)


def told(at, known=None, severity="critical"):
    return {(entry.severity, entry.code) for entry in findings(at, known or History(), severity)}


STALE = ("critical", "baked-file-stale")
REMEMBERED = History(altered={"web": {"/e.sh": (NEW.digest, OTHER.digest)}})
GONE = History(altered={"web": {"/e.sh": (NEW.digest, "")}})
DOUBT = {"doubt": "the RUN at Dockerfile:3"}


@pytest.mark.parametrize(
    ("seen", "current", "known", "stale", "codes"),
    [
        (layers(), False, None, (), set()),
        (layers(NEW, OLD, OLD), False, None, ("image", "container"), {STALE}),  # the seed's case
        (layers(NEW, NEW, OLD), False, None, ("container",), {STALE}),  # rebuilt, and only restarted
        (layers(NEW, OLD, NEW), False, None, ("image",), {STALE}),
        (layers(NEW, None, None), False, None, ("image", "container"), {STALE}),
        (layers(None, OLD, OLD), False, None, (), {("critical", "baked-source-missing")}),
        # The build itself changes the file: known because the image is current, or because it was remembered.
        (layers(NEW, OTHER, OTHER), True, None, (), set()),
        (layers(NEW, OTHER, NEW), True, None, ("container",), {STALE}),
        (layers(NEW, OTHER, OTHER), False, REMEMBERED, (), set()),
        (layers(NEW, None, None), False, GONE, (), set()),
        (layers(OLD, OTHER, OTHER), False, REMEMBERED, ("image", "container"), {STALE}),
        # Nobody knows yet, and there is a RUN that may do it.
        (layers(NEW, OTHER, OTHER, **DOUBT), False, None, (), {("warning", "baked-file-doubtful")}),
        # What the owner has declared has to be the same, whatever the build does.
        (layers(NEW, OTHER, OTHER, declared=True, **DOUBT), True, REMEMBERED, ("image", "container"), {STALE}),
        (layers(NEW, NEW, OLD, hidden=True), False, None, (), {("warning", "baked-file-hidden")}),
        (layers(NEW, NEW, NEW, hidden=True), False, None, (), set()),
    ],
)
def test_verdicts(seen, current, known, stale, codes):
    at = service(seen, current=current)
    assert judged(seen, at, known or History()).layers == stale
    assert told(at, known) == codes
    assert [entry["layers"] for entry in summary(at, known or History())["stale"]] == ([list(stale)] if stale else [])


def test_the_seeds_words():
    (found,) = findings(service(layers(NEW, OLD, OLD)), History())
    assert found.message == (
        "/e.sh is stale in image web:1 and in container p-web-1: source /p/e.sh has 124 lines, nnnnnnnnnnnn, "
        "the image 114 lines, oooooooooooo, container p-web-1 114 lines, oooooooooooo"
    )
    assert "build: auto" in found.remedy
    (found,) = findings(service(layers(NEW, NEW, OLD)), History())
    assert "a restart keeps the old one" in found.remedy


def test_a_container_that_lags_behind_is_as_bad_as_the_caller_says():
    assert told(service(layers(NEW, NEW, OLD)), severity="warning") == {("warning", "baked-file-stale")}
    assert told(service(layers(NEW, OLD, OLD)), severity="warning") == {STALE}


def test_another_image_with_the_same_files():
    assert told(service(layers(), ran=OLD_IMAGE)) == {("warning", "container-outdated")}
    assert told(service(layers(NEW, NEW, OLD), ran=OLD_IMAGE)) == {STALE}


def test_no_image():
    assert told(service(layers(NEW, None, None), image=None)) >= {("critical", "image-not-found")}


def test_many_files_are_not_told_one_by_one_for_ever():
    files = [layers(NEW, OLD, OLD) for _ in range(50)]
    found = findings(service(*files), History())
    assert len(found) == 21
    assert "30 more" in found[-1].message


def test_what_it_starts_with_comes_first():
    script = layers(NEW, OLD, OLD, script=True)
    found = findings(service(layers(NEW, None, None), script), History())
    assert "124 lines" in found[0].message
    assert "no such file" not in found[0].message


def test_what_is_remembered():
    at = service(layers(NEW, OTHER, OTHER), current=True)
    assert altered_files(at, History()) == {"/e.sh": (NEW.digest, OTHER.digest)}
    assert altered_files(service(layers()), History()) == {}
    assert altered_files(service(layers(NEW, None, None), current=True), History()) == {"/e.sh": (NEW.digest, "")}


def test_notes_are_one_finding():
    assert notes("web", []) == []
    (found,) = notes("web", [f"Dockerfile:{line}: why" for line in range(8)])
    assert "3 more" in found.message


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "said", "codes"),
    [
        (layers(), Said("2.0"), set()),
        (layers(NEW, OLD, OLD), Said("1.0"), {"version-mismatch"}),
        (layers(NEW, OTHER, OTHER), Said("2.0"), {"version-missing"}),
        (layers(OTHER, OLD, OLD), Said("1.0"), {"version-missing"}),
        (layers(), Said("1.0"), {"version-mismatch"}),
        (layers(), Said(None), {"version-not-logged"}),
        (layers(), Said(problem="not readable"), {"log-unreadable"}),
        (layers(OTHER, OTHER, OTHER), Said(None), set()),
    ],
)
def test_versions(seen, said, codes):
    at = service(seen)
    assert {entry.code for entry in version_findings(at, {"p-web-1": said})} == codes


def test_versions_are_returned():
    (entry,) = version_summary(service(layers(NEW, NEW, OLD)), {"p-web-1": Said("1.0")})
    assert (entry["source"], entry["image"], entry["containers"], entry["logs"]) == (
        "2.0",
        "2.0",
        {"p-web-1": "1.0"},
        {"p-web-1": "1.0"},
    )


@pytest.mark.parametrize(
    ("pattern", "text", "version"),
    [
        (r'VERSION="([^"]+)"', 'VERSION="2.0.0-beta"', "2.0.0-beta"),
        (r"VERSION=[\d.]+", "x VERSION=1.2 y", "VERSION=1.2"),
        (r"a=(\d)|b=(\d)", "b=7", "7"),
        (r"none", "text", None),
    ],
)
def test_a_version_is_the_group_or_all(pattern, text, version):
    import re

    assert found_version(re.compile(pattern), text) == version


@pytest.mark.parametrize(
    ("paths", "most", "roots"),
    [
        (["/a", "/b"], 5, ["/a", "/b"]),
        (["/app/x/1", "/app/x/2", "/app/y/1"], 2, ["/app/x", "/app/y"]),
        (["/app/x/1", "/app/x/2", "/app/y/1"], 1, ["/app"]),
        (["/a/1", "/b/1", "/c/1"], 1, ["/a", "/b", "/c"]),
        (["/etc/x", "/usr/local/bin/a", "/usr/local/bin/b"], 2, ["/etc/x", "/usr/local/bin"]),
    ],
)
def test_many_files_are_read_by_directories(paths, most, roots):
    assert cover(paths, most) == roots


@pytest.mark.parametrize(
    ("ended", "started", "since"),
    [
        ("0001-01-01T00:00:00Z", "2026-11-23T10:00:00.5Z", "0"),  # its first start: every line is of it
        ("2026-11-23T10:00:00.25Z", "2026-11-23T10:00:00.75Z", "1795428000.500000000"),
        ("2026-11-23T09:59:59.999999999Z", "2026-11-23T10:00:01.000000001Z", "1795428000.500000000"),
        ("2026-11-23T10:00:09Z", "2026-11-23T10:00:00.3Z", "1795428000.100000000"),  # it has ended again
    ],
)
def test_from_when_on_a_log_is_of_the_last_start(ended, started, since):
    assert since_last_start({"FinishedAt": ended, "StartedAt": started}) == since
