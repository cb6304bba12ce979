# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read out of a Dockerfile, a row a case."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.dockerfile import (
    Base,
    bases,
    recipe,
    scripts,
    touches,
)

HEAD = "FROM scratch\n"


def copied(text, **options):
    """(sources, place, whether it is a directory for sure) of every COPY and ADD."""
    return [(copy.sources, copy.dest, copy.into) for copy in recipe(text, **options).copies]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY a /b", [(("a",), "/b", False)]),
        ("copy a /b/", [(("a",), "/b", True)]),
        ("COPY a b /c/", [(("a", "b"), "/c", True)]),
        ("WORKDIR /app\nCOPY . .", [((".",), "/app", True)]),
        ("WORKDIR /app\nWORKDIR sub\nCOPY x y", [(("x",), "/app/sub/y", False)]),
        ("COPY x y", [(("x",), "/y", False)]),
        ("COPY --chown=1:2 --chmod=0755 a /b", [(("a",), "/b", False)]),
        ("COPY --link --exclude=*.md docs /d/", [(("docs",), "/d", True)]),
        ("FROM scratch AS built\nCOPY q /q\nFROM scratch\nCOPY --from=built /q /r", []),
        ('COPY ["a b", "/c d/"]', [(("a b",), "/c d", True)]),
        ("COPY a \\\n  b \\\n# a comment in between\n\n  /c/", [(("a", "b"), "/c", True)]),
        ("ADD a.conf /etc/", [(("a.conf",), "/etc", True)]),
        ("ADD https://example.org/x a /y/", [(("a",), "/y", True)]),
        ("ARG V=1\nENV W=/w\nCOPY app-${V}.sh $W/x", [(("app-1.sh",), "/w/x", False)]),
        ("ENV A 1 2\nCOPY $A.sh /x", [(("1 2.sh",), "/x", False)]),
        ('ENV A="b c" D=e\nCOPY $D /x', [(("e",), "/x", False)]),
        ("COPY ${NONE:-dflt} /x", [(("dflt",), "/x", False)]),
        ("ARG Y=1\nCOPY a${Y:+set} /x", [(("aset",), "/x", False)]),
        ("COPY 'single' /x", [(("single",), "/x", False)]),
        ("ONBUILD COPY a /b", []),
        ("COPY a /x/.", [(("a",), "/x", True)]),
        ("COPY a ..", [(("a",), "/", True)]),
    ],
)
def test_copies(text, expected):
    assert copied(HEAD + text) == expected


def test_an_escape_directive_and_windows_line_ends():
    assert copied("# escape=`\r\nFROM scratch\r\nCOPY a `\r\n  /b\r\n") == [(("a",), "/b", False)]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("COPY <<EOF /x\nhello $V\nEOF\nCOPY a /b", (("EOF", "hello 1\n"),)),
        ("COPY <<'EOF' /x\nhello $V\nEOF\nCOPY a /b", (("EOF", "hello $V\n"),)),
        ('COPY <<-"E" /x\n\t\thello\n\tE\nCOPY a /b', (("E", "hello\n"),)),
        ("COPY <<EOF /x\n\\$V and \\\\\nEOF\nCOPY a /b", (("EOF", "$V and \\\n"),)),
        ("COPY <<one.txt <<two.txt /x/\n1\none.txt\n2\ntwo.txt\nCOPY a /b", (("one.txt", "1\n"), ("two.txt", "2\n"))),
    ],
)
def test_texts_in_the_dockerfile(text, texts):
    first, second = recipe(f"{HEAD}ARG V=1\n{text}").copies
    assert (first.texts, first.sources, second.sources) == (texts, (), ("a",))


def test_a_script_in_a_run_is_no_instruction():
    made = recipe(f"{HEAD}RUN <<EOF\nCOPY not this\nsed -i s/a/b/ /x\nEOF\nCOPY a /b")
    assert [copy.sources for copy in made.copies] == [("a",)]
    assert touches(made.runs[0].command, "/x")


def test_stages():
    text = (
        "ARG VERSION=3\nFROM base:${VERSION} AS one\nWORKDIR /one\nCOPY 1 .\nONBUILD COPY late .\n"
        "FROM other AS two\nCOPY 2 /\nFROM One\nCOPY 3 .\n"
    )
    assert bases(text) == ("base:3",)
    assert bases(text, given={"VERSION": "4"}) == ("base:4",)
    assert bases(text, "two") == ("other",)
    assert [copy.sources for copy in recipe(text).copies] == [("1",), ("late",), ("3",)]
    assert [copy.dest for copy in recipe(text).copies] == ["/one"] * 3
    assert [copy.sources for copy in recipe(text, "two").copies] == [("2",)]
    assert [copy.sources for copy in recipe(text, "0").copies] == [("1",)]


def test_what_the_image_below_brings():
    base = Base("/srv", {"DIR": "d"}, ("COPY trigger .",))
    assert copied("FROM x\nCOPY ${DIR}/a .", base=base) == [(("trigger",), "/srv", True), (("d/a",), "/srv", True)]


def test_what_cannot_be_followed_is_said():
    made = recipe("FROM x\nCOPY a .\nWORKDIR sub\nCOPY $NONE /x\nCOPY --parents a/b /x/\nADD https://a.example/x /y\n")
    assert [line for line, _why in made.skipped] == [2, 4, 5, 6]


def test_build_arguments():
    text = "ARG TOP=t\nFROM scratch\nARG TOP\nARG OWN=o\nCOPY $TOP$OWN /x"
    assert copied(text) == [(("to",), "/x", False)]
    assert copied(text, given={"TOP": "T", "OWN": "O"}) == [(("TO",), "/x", False)]
    assert copied("ARG TOP=t\nFROM scratch\nCOPY x$TOP /x") == [(("x",), "/x", False)], "not declared in the stage"


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        ("chmod +x /entrypoint.sh", "/entrypoint.sh", False),
        ("sed -i 's/\\r//' /entrypoint.sh && chmod +x /entrypoint.sh", "/entrypoint.sh", True),
        ("sed -ri s/a/b/ *.sh", "/entrypoint.sh", True),
        ("sed s/a/b/ /entrypoint.sh", "/entrypoint.sh", False),
        ("dos2unix entrypoint.sh", "/app/entrypoint.sh", True),
        ("pip install -r requirements.txt > /dev/null", "/app/requirements.txt", False),
        ("pip install -r /tmp/r.txt && rm -rf /tmp/*", "/tmp/r.txt", True),
        ("rm -rf /app/docs", "/app/docs/a.md", True),
        ("echo x >> /app/a.conf", "/app/a.conf", True),
        ("cp /a.sh /usr/bin/", "/a.sh", False),
        ("cp /a.sh /b.sh", "/b.sh", True),
        ("find /app -name '*.sh' -exec chmod +x {} +", "/app/a.sh", False),
        ("find /app -name '*.sh' -exec dos2unix {} +", "/app/a.sh", True),
        ("--mount=type=cache,target=/c sed -i s/a/b/ /a.sh", "/a.sh", True),
        ("apt-get update && rm -rf /var/lib/apt/lists/*", "/app/a", False),
    ],
)
def test_what_a_run_may_change(command, path, expected):
    assert bool(touches(command, path)) is expected


def test_what_an_image_starts_with():
    made = recipe(f'{HEAD}ENTRYPOINT ["docker-entrypoint.sh"]\nCMD ./start.sh --port 1')
    paths = ["/usr/local/bin/docker-entrypoint.sh", "/app/start.sh", "/app/docker-entrypoint.sh", "/app/port"]
    assert scripts(made.programs, paths, "/app") == {"/usr/local/bin/docker-entrypoint.sh", "/app/start.sh"}
