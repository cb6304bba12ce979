# SPDX-License-Identifier: GPL-3.0-or-later
"""Which place decides what a variable is: each row is one project, and what it comes to."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.database.places import (
    SHELL,
    Texts,
    env_file_paths,
    origins,
    outside,
)

COMPOSE = "`environment` in compose.yaml"


def texts(service, files, env_files=(), shell=None):
    return Texts({"services": {"web": service}}, tuple(env_files), files, shell or {}, "compose.yaml")


@pytest.mark.parametrize(
    ("service", "files", "env_files", "shell", "value", "place", "in_file"),
    [
        ({"env_file": "e"}, {"e": "A=1\n"}, (), {}, "1", "e", "1"),
        ({"env_file": ["e", "f"]}, {"e": "A=1\n", "f": "A=2\n"}, (), {}, "2", "f", "2"),
        ({"env_file": ["e", "f"]}, {"e": "A=1\n", "f": "B=2\n"}, (), {}, "1", "e", "1"),
        ({"env_file": [{"path": "e", "required": False}]}, {"e": "A=1\n"}, (), {}, "1", "e", "1"),
        ({"env_file": ["gone"]}, {}, (), {}, None, "", None),
        # `environment` wins, and what the file says is still known.
        ({"env_file": "e", "environment": {"A": "2"}}, {"e": "A=1\n"}, (), {}, "2", COMPOSE, "1"),
        ({"env_file": "e", "environment": ["A=2"]}, {"e": "A=1\n"}, (), {}, "2", COMPOSE, "1"),
        ({"environment": {"A": True}}, {}, (), {}, "true", COMPOSE, None),
        # Filled in: the shell beats the file that Compose interpolates with.
        ({"environment": {"A": "${X}"}}, {".env": "X=1\n"}, (".env",), {}, "1", COMPOSE, None),
        ({"environment": {"A": "${X}"}}, {".env": "X=1\n"}, (".env",), {"X": "2"}, "2", COMPOSE, None),
        ({"environment": {"A": "${A}"}}, {".env": "A=1\n"}, (".env",), {}, "1", COMPOSE, "1"),
        ({"environment": {"A": "${X:-d}"}}, {}, (), {}, "d", COMPOSE, None),
        # A name alone is taken from outside.
        ({"environment": {"A": None}}, {".env": "A=1\n"}, (".env",), {}, "1", ".env", "1"),
        ({"environment": ["A"]}, {}, (), {"A": "3"}, "3", SHELL, None),
        ({"env_file": "e"}, {"e": "A\n", ".env": "A=5\n"}, (".env",), {}, "5", "e", "5"),
        # One file's variables are there for the next one's.
        ({"env_file": ["e", "f"]}, {"e": "X=1\n", "f": "A=${X}2\n"}, (), {}, "12", "f", "12"),
    ],
)
def test_who_decides(service, files, env_files, shell, value, place, in_file):
    found = origins(texts(service, files, env_files, shell), "web").get("A")
    if value is None:
        assert found is None
        return
    assert (found.value, found.place, found.in_file) == (value, place, in_file)
    assert found.literal == (place == COMPOSE)


def test_what_a_value_is_made_of():
    given = texts(
        {"environment": {"A": "postgres://${U}:${P}@db/${D:-x}"}}, {"e": "U=app\nP=s\n"}, ("e",), {"P": "shell"}
    )
    assert origins(given, "web")["A"].refs == {"U": "e", "P": SHELL, "D": SHELL}
    inside = texts({"env_file": "f"}, {"f": "P=s\nA=postgres://u:${P}@db\n"})
    assert origins(inside, "web")["A"].refs == {"P": "f"}


def test_the_last_of_several_files_to_interpolate_with_counts():
    known = outside(texts({}, {"e": "A=1\nB=1\n", "f": "A=2\n"}, ("e", "f"), {"C": "3"}))
    assert known.values == {"A": "2", "B": "1", "C": "3"}
    assert known.places == {"A": "f", "B": "e", "C": SHELL}


def test_the_name_of_an_env_file_may_be_a_variable():
    given = texts({"env_file": ["${STAGE}.env"]}, {}, (), {"STAGE": "live"})
    assert env_file_paths(given.document, "web", outside(given)) == ["live.env"]
