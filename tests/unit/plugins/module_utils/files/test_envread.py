# SPDX-License-Identifier: GPL-3.0-or-later
"""How an env file is read: every row is what `docker compose config` (2.26.1) was seen to make of that text."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.files.envread import evaluate, read
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

OUTSIDE = {"HOME": "/root"}
SEEN = [
    ("A=#x", {"A": "#x"}),
    ("A=b # c", {"A": "b"}),
    ("A=b#c", {"A": "b#c"}),
    ("A: b", {"A": "b"}),
    ("A\t=1", {"A": "1"}),
    ('A="b" # c', {"A": "b"}),
    ('A="b"c=d', {"A": "b", "c": "d"}),
    ('A=a"b"', {"A": 'a"b"'}),
    ("A=b\r\nC=\"d\"\r\nE='f'\r\n", {"A": "b", "C": "d", "E": "f"}),
    ("\ufeffA=1", {"A": "1"}),
    ("A-B=1\nA[0]=2\nÄ=3", {"A-B": "1", "A[0]": "2", "Ä": "3"}),
    ("export A=1", {"A": "1"}),
    ("export\nA=1", {"A": "1"}),
    ("export=1\nexportA=2", {"export": "1", "exportA": "2"}),
    ("A\nHOME\nB=2", {"HOME": "/root", "B": "2"}),
    ("A='a\\'b \\n $x'", {"A": "a'b \\n $x"}),
    ('A="\\$x $$y \\x \\n \\0101 \\07 \\a \\c"', {"A": "$x $y \\x \n A \\7 \x07 \\c"}),
    ('A="\\0 \\08 \\0400 \\0377"', {"A": "\\ \\8 \\400 ÿ"}),
    ('A="a\\\\$HOME"', {"A": "a\\/root"}),
    ("A=a\\ b\\n", {"A": "a\\ b\\n"}),
    ("A=$\nB=a$!b\nC=$1\nD=$-", {"A": "$", "B": "a$!b", "C": "$1", "D": "$-"}),
    ("A=x$$y", {"A": "x$y"}),
    ("A=1\nB=${A}2$A", {"A": "1", "B": "121"}),
    ("A=1\nA=$A$A", {"A": "11"}),
    ("A=1\nHOME=$A\nC=$HOME", {"A": "1", "HOME": "1", "C": "/root"}),
    ("A=${B:-${C:-d}}", {"A": "d"}),
    ("A=${B:-a}b}", {"A": "ab}"}),
    ('A=${B:-"q"}', {"A": '"q"'}),
    ("A=${HOME:+y${HOME+z}}", {"A": "yz"}),
]


@pytest.mark.parametrize(("text", "values"), SEEN, ids=[repr(text) for text, _ in SEEN])
def test_values_are_those_of_compose(text: str, values: dict[str, str]) -> None:
    assert evaluate(read(".env", text), OUTSIDE.get) == values


@pytest.mark.parametrize("text", ["A B=1", 'A="x', 'A="a\\"', "A='x", "A!=1"])
def test_what_compose_refuses(text: str) -> None:
    with pytest.raises(ShipshapeError, match=r"^\.env:2: "):
        read(".env", f"# first\n{text}")


@pytest.mark.parametrize("value", ["${}", "${1}", "${B!b}", "${B", "${B?no}", "${B:?}"])
def test_what_compose_cannot_fill_in(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        evaluate(read(".env", f"A={value}"), OUTSIDE.get)


@pytest.mark.parametrize("text", ["A=b # c\nB='d e'", 'export A="x\\"y" # z\nB=1', "A: v\r\nB=\n"])
def test_each_value_is_found_where_it_stands(text: str) -> None:
    """Cutting a value out and putting another in changes nothing else."""
    for entry in read(".env", text):
        after = f"{text[: entry.start]}new{text[entry.end :]}"
        wanted = {**evaluate(read(".env", text), OUTSIDE.get), entry.name: "new"}
        assert evaluate(read(".env", after), OUTSIDE.get) == wanted
