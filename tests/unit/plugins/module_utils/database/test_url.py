# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection URLs: where exactly they are wrong, as a table; the rest means what libpq makes of it, by property."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ansible_collections.shipshape.deploy.plugins.module_utils.database.spelling import (
    is_placeholder,
    masked,
    secrets_in,
    with_password,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.database.url import looks_like_one, parse

FLAWS = [
    ("postgresql://app:p%40ss@db:5432/studio?sslmode=require", []),
    ("postgresql://app:p@ss@db/studio", [(19, "unescaped @ in the password", True)]),
    ("postgresql://app:p/ss@db/studio", [(19, "unescaped / in the password", True)]),
    ("postgresql://app:p:ss@db/studio", [(19, "unescaped : in the password", False)]),
    ("postgresql://app:p#ss@db/studio", [(19, "unescaped # in the password", False)]),
    ("postgresql://app:p?ss@db/studio", [(19, "unescaped ? in the password", False)]),
    ("postgresql://app:p%ss@db/studio", [(19, "not followed by two hex digits", True)]),
    ("postgresql://app:p%00@db/studio", [(19, "%00", True)]),
    ("postgresql://app:p ss@db/studio", [(19, "white space", True)]),
    ('"postgresql://app:pass@db/studio"', [(1, "quotes", True)]),
    ("'postgresql://app:pass@db/studio'", [(1, "quotes", True)]),
    ("postgresql://app:pass@db/studio'", [(32, "quotes", True)]),
    ("postgresql://app:pass@db/studio\r", [(32, "carriage return", True)]),
    ("postgresql://app:pass@db/studio ", [(32, "white space", True)]),
    (" postgresql://app:pass@db/studio", [(1, "white space", True)]),
    ("export DATABASE_URL=postgresql://app:pass@db/x", [(1, "export", True)]),
    ("DATABASE_URL=postgresql://app:pass@db/x", [(1, "the variable's name", True)]),
    ("postgress://app:pass@db/x", [(1, "no database driver knows", True)]),
    ("Postgres://app:pass@db/x", [(1, "capital letters", True)]),
    ("postgres:/app:pass@db/x", [(9, "lacks //", True)]),
    ("postgres://app:pass@db:54x/x", [(24, "port that is not a number", True)]),
    ("postgres://app:pass@db:0/x", [(24, "port that is not a number", True)]),
    ("postgres://app:pass@db:5432:1/x", [(24, "port that is not a number", True)]),
    ("postgres://app:pass@/x", [(23, "names no host", True)]),
    ("postgres://app:pass@[::1/x", [(21, "goes on after", True), (21, "names no host", True)]),
    ("postgres://app:pass@db/x?sslmode", [(26, "not name=value", True)]),
    ("postgres://app:pass@db/x#y", [(25, "unescaped # in the database", False)]),
    ("redis://:pass@cache/main", [(25, "not a number", True)]),
    ("amqp://u:pass@queue:5672//", []),
    ("mysql+pymysql://root:pass@[::1]:3307/x", []),
    ("rediss://:pass@cache:6380/0", []),
    ("nothing", [(0, "is not a URL", True)]),
]


@pytest.mark.parametrize(("text", "flaws"), FLAWS, ids=[text for text, _ in FLAWS])
def test_what_is_wrong_and_where(text: str, flaws: list[tuple[int, str, bool]]) -> None:
    found = parse(text).flaws
    assert [(at.position, at.fatal) for at in found] == [(at[0], at[2]) for at in flaws], found
    assert all(words in at.what for at, (_, words, _) in zip(found, flaws)), found
    assert all(at.remedy for at in found)
    assert "pass" not in " ".join(f"{at.what} {at.remedy}" for at in found).replace("password", "")


PART = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
HOST = st.from_regex(r"[a-z][a-z0-9.-]{0,12}", fullmatch=True)


def libpq(text: str) -> dict[str, str] | None:
    """What libpq makes of it; None when it refuses."""
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(text).items() if value}
    except ProgrammingError:
        return None
    if "port" in found:  # it keeps the digits as they are written, and reads them when it connects
        found["port"] = found["port"].lstrip("0")
    return found


def ours(text: str) -> dict[str, str]:
    url = parse(text).url
    assert url is not None
    port = str(url.port) if url.port != 5432 or ":5432" in text else ""
    found = {"user": url.user, "password": url.password or "", "host": url.host, "port": port, "dbname": url.database}
    return {name: value for name, value in found.items() if value}


@given(PART, PART, HOST, st.integers(1, 65535), PART)
def test_escaped_parts_come_back(user: str, password: str, host: str, port: int, database: str) -> None:
    words = [quote(word, safe="") for word in (user, password, database)]
    text = f"postgresql://{words[0]}:{words[1]}@{host}:{port}/{words[2]}"
    found = parse(text)
    assert found.flaws == ()
    assert found.url is not None
    assert (found.url.user, found.url.password, found.url.host) == (user, password, host)
    assert (found.url.port, found.url.database) == (port, database)
    assert libpq(text) == ours(text) | {"port": str(port)}
    assert with_password(found, "n w").replace(":n%20w@", f":{words[1]}@") == text


# Texts in which what separates the parts turns up anywhere.
ODD = st.text(st.sampled_from("abc0159:@/?#%&=[], '\".-_\\~éß4F"), max_size=24)


@settings(max_examples=1500)
@given(st.sampled_from(["postgresql://", "postgres://"]), ODD)
def test_what_is_not_fatal_means_the_same_to_libpq(scheme: str, rest: str) -> None:
    found = parse(scheme + rest)
    if found.fatal or "," in rest:
        return
    theirs = libpq(scheme + rest)
    params = {name for name, _ in found.url.params} if found.url else set()
    if theirs is None:
        # libpq knows its own parameters only, others have theirs; nothing else may be refused.
        assert params, f"libpq refuses {scheme + rest!r}, we do not"
        return
    if not params:
        assert theirs == ours(scheme + rest)


@given(PART, st.sampled_from(["postgresql", "redis", "mysql", "amqp", "jdbc:mysql", "postgis"]), ODD)
def test_nothing_shows_what_must_not_be_shown(password: str, scheme: str, noise: str) -> None:
    secret = f"S3cret{quote(password, safe='')}"
    for text in (f"{scheme}://app:{secret}@db/x{noise}", f"{scheme}://app:{noise}{secret}@db/x"):
        found = parse(text)
        assert "S3cret" not in masked(found), text
        assert any("S3cret" in word for word in secrets_in(found)), text


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("ANYTHING", "postgres://a:b@c/d", True),
        ("ANYTHING", "'postgres://a:b@c/d'", True),
        ("ANYTHING", "https://a:b@c/d", False),
        ("DATABASE_URL", "postgress://a:b@c/d", True),
        ("DATABASE_URL", "sqlite:///x", False),
        ("DATABASE_URL", "mongodb+srv://a:b@c/d", False),
        ("DATABASE_URL", "changeme", True),
        ("SHADOW_DATABASE_URL", "TODO", True),
        ("DATABASE_URL", "", False),
        ("LOG_LEVEL", "info", False),
    ],
)
def test_what_looks_like_one(name: str, value: str, is_one: bool) -> None:
    assert looks_like_one(name, value) == is_one


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        *((word, True) for word in ("changeme", "CHANGE_ME", "change-me-please", "<password>", "TODO", "xxx", "***")),
        *(
            (word, True)
            for word in ("your-password-here", "${DB_PASSWORD}", "{{ password }}", "REPLACE_ME", "PASSWORD")
        ),
        *(
            (word, False)
            for word in ("demo-only-db-password", "postgres", "s3cret", "password", "xK9...", "", "changed")
        ),
    ],
)
def test_placeholders(value: str, is_one: bool) -> None:
    assert is_placeholder(value) == is_one
