# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import EngineRefusedError
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.lifecycle import Lifecycle, refused
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import Project
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report

RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
RUNC_2010 = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
)
ENDPOINT = (
    "driver failed programming external connectivity on endpoint p-web-1 "
    "(28944702c87a15b5a9cfd58154f1d5ba103ef70990c3984602a7e39acc405135): "
)
PROXY = "Error starting userland proxy"
MOUNT = (
    'error during container init: error mounting "/nosuch/x" to rootfs at "/etc/passwd": mount /nosuch/x:/etc/passwd '
    "(via /proc/self/fd/6), flags: 0x5000: not a directory: unknown: Are you trying to mount a directory onto a file "
    "(or vice-versa)?"
)


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        # Engine 26.1.5
        (
            f"{ENDPOINT}Bind for 0.0.0.0:39217 failed: port is already allocated",
            "port-in-use",
            "0.0.0.0:39217 is in use",
        ),
        (f"{ENDPOINT}Bind for ::1:39218 failed: port is already allocated", "port-in-use", "::1:39218 is in use"),
        (
            f"{ENDPOINT}{PROXY}: listen tcp4 127.0.0.1:39219: bind: address already in use",
            "port-in-use",
            "127.0.0.1:39219 is in use",
        ),
        (
            f"{ENDPOINT}{PROXY}: listen udp 0.0.0.0:53: bind: address already in use",
            "port-in-use",
            "53 is in use",
        ),
        (
            f'{RUNC}exec: "nosuch": executable file not found in $PATH: unknown',
            "command-not-executable",
            "nosuch: executable file not found in $PATH",
        ),
        (
            f'{RUNC}exec: "/nosuch": stat /nosuch: no such file or directory: unknown',
            "command-not-executable",
            "/nosuch: no such file or directory",
        ),
        (
            f'{RUNC}exec: "/etc/passwd": permission denied: unknown',
            "command-not-executable",
            "/etc/passwd: permission denied",
        ),
        (
            f'{RUNC_2010}exec: \\"nosuch\\": executable file not found in $PATH: unknown',
            "command-not-executable",
            "nosuch: executable file not found",
        ),
        ("mkdir /var/lib/docker/overlay2/x-init: no space left on device", "disk-full", "disk is full"),
        # Not known: in the engine's own words.
        (
            f"{RUNC}{MOUNT}",
            "engine-refused",
            "Are you trying to mount a directory onto a file",
        ),
        (
            'error gathering device information while adding custom device "/dev/nosuch": no such file or directory',
            "engine-refused",
            "/dev/nosuch",
        ),
        ("unable to find user nosuch: no matching entries in passwd file", "engine-refused", "user nosuch"),
        (
            f"{ENDPOINT}{PROXY}: listen tcp4 203.0.113.9:39219: bind: cannot assign requested address",
            "engine-refused",
            "cannot assign requested address",
        ),
    ],
)
def test_recorded_refusals(said, code, told):
    (finding,) = refused("start", "p-web-1", "web", said).findings
    assert (finding.subject, finding.code) == ("web", code)
    assert "p-web-1" in finding.message
    assert told in finding.message
    assert finding.remedy
    assert "28944702c87a15b5a9cfd58154f1d5ba103ef70990c3984602a7e39acc405135" not in finding.message


def test_a_full_id_in_the_engine_s_words_is_cut_to_the_twelve_digits_that_people_use():
    error = refused("remove", "p-web-1", "web", f"container {'ab' * 32} is dead")
    assert f"container {'ab' * 6} is dead" in str(error)


def test_it_says_what_was_tried():
    assert "could not rename container p-web-1: because" in str(refused("rename", "p-web-1", "web", "because"))


class Engine:
    """Says `words` to a renaming, `times` times."""

    def __init__(self, words, times):
        self.words, self.times, self.asked = words, times, []

    def act(self, path, *, patience=0.0, **query):
        if path.endswith("/stop"):
            self.asked.append("stop")
            return
        asked = f"rename {query['name']}"
        self.asked.append(asked)
        if self.asked.count(asked) <= self.times:
            raise EngineRefusedError(500, f"POST {path}", self.words)


@pytest.mark.parametrize(
    ("words", "times", "asked"),
    [
        ("", 0, ["rename n"]),
        # In a crash loop, between two starts: it is at rest once it has been stopped.
        ("sandbox 003fa908c2d4 not found", 1, ["rename n", "stop", "rename n"]),
    ],
)
def test_renaming(words, times, asked):
    engine = Engine(words, times)
    Lifecycle(engine, Project("p", {}), Report()).rename("id", "n")
    assert engine.asked == asked


@pytest.mark.parametrize("words", ["sandbox 003fa908c2d4 not found", 'the name "/n" is already in use'])
def test_a_refused_renaming_is_told(words):
    with pytest.raises(ShipshapeError, match="could not rename container n"):
        Lifecycle(Engine(words, 9), Project("p", {}), Report()).rename("id", "n")
