# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection URLs of databases, as applications are given them: `postgresql://app:password@db:5432/studio`. Pure.

`parse` reads a URL as libpq does and says of everything else where exactly it is wrong, by position and never by
showing it. Libraries disagree about what is not escaped: libpq ends a password at the first @, most others at the last,
and some take # and ? for what follows the path. A flaw that libpq stumbles over is `fatal`; the others work with some
libraries and not with others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

POSTGRESQL, REDIS, MYSQL, AMQP = "postgresql", "redis", "mysql", "amqp"
# scheme: (family, whether it stands for TLS). What follows a + in a scheme names a driver.
_SCHEMES: Mapping[str, tuple[str, bool]] = {
    "postgresql": (POSTGRESQL, False),
    "postgres": (POSTGRESQL, False),
    "postgis": (POSTGRESQL, False),
    "psql": (POSTGRESQL, False),
    "pgsql": (POSTGRESQL, False),
    "jdbc:postgresql": (POSTGRESQL, False),
    "redis": (REDIS, False),
    "rediss": (REDIS, True),
    "valkey": (REDIS, False),
    "valkeys": (REDIS, True),
    "mysql": (MYSQL, False),
    "mysql2": (MYSQL, False),
    "mariadb": (MYSQL, False),
    "jdbc:mysql": (MYSQL, False),
    "jdbc:mariadb": (MYSQL, False),
    "amqp": (AMQP, False),
    "amqps": (AMQP, True),
    "pyamqp": (AMQP, False),
}
_PORTS = {POSTGRESQL: 5432, REDIS: 6379, MYSQL: 3306, AMQP: 5672}
_AMQPS_PORT = 5671
# Close to one of ours in spelling, but something else.
_FOREIGN = frozenset({"mssql", "redis+sentinel", "redis+socket", "redis+unix"})
# Names that only ever hold such a URL: a value that is none is a mistake.
NAMES = re.compile(
    r"(^|_)(DATABASE|DB|DIRECT|POSTGRES|POSTGRESQL|PG|REDIS|MYSQL|MARIADB|AMQP|RABBITMQ)_(URL|URI|DSN)$", re.IGNORECASE
)
_SCHEME = re.compile(r"((?:jdbc:)?[A-Za-z][A-Za-z0-9+.-]*):(/{0,2})")
_OUTSIDE = re.compile(r"\s*(?:export\s+)?(?:[A-Za-z_][A-Za-z0-9_]*=)?\s*[\"']?\s*")
_HOST = re.compile(r"(\[[^\]@/?#]*\]|[^\[\]@/?#:,]*)(?::([^@/?#,]*))?")
_HEX = frozenset("0123456789abcdefABCDEF")


Params = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Flaw:
    """What is wrong at which character (from 1; 0 for the whole), and what to write instead."""

    position: int
    what: str
    remedy: str
    fatal: bool = True


@dataclass(frozen=True)
class Url:
    """A connection URL taken apart, with what was percent-encoded decoded. `socket`: it names no host but a socket."""

    family: str
    tls: bool
    user: str
    password: str | None
    host: str
    port: int
    database: str
    params: Params = ()
    scheme: str = ""

    @property
    def socket(self) -> bool:
        return self.host.startswith(("/", "@"))

    def param(self, name: str) -> str:
        """The last value of a parameter, '' for none."""
        return next((value for key, value in reversed(self.params) if key == name), "")


@dataclass(frozen=True)
class Parsed:
    """What became of one text. `url` is None when it is too broken to be read; `password_span` is where the password
    stands in the text as written, (0, 0) when there is none."""

    text: str
    url: Url | None
    flaws: tuple[Flaw, ...] = ()
    password_span: tuple[int, int] = (0, 0)

    @property
    def fatal(self) -> bool:
        return self.url is None or any(flaw.fatal for flaw in self.flaws)

    @property
    def doubtful(self) -> bool:
        """Whether an @ stands behind the one that ends user and password as we read them: they may reach that far."""
        own = self.password_span != (0, 0) or (self.url is not None and self.url.user != "")
        return self.text[self.password_span[1] :].count("@") > int(own)


def looks_like_one(name: str, value: str) -> bool:
    """Whether variable `name` with `value` is a database's connection URL, be it a broken one."""
    found = _SCHEME.match(value, _start(value))
    if found is None:
        return bool(NAMES.search(name)) and bool(value.strip())
    scheme = found[1].lower()
    if _family(scheme) is not None:
        return True
    return bool(NAMES.search(name)) and scheme not in _FOREIGN and bool(_close(scheme))


def parse(text: str) -> Parsed:
    """`text` as a connection URL, and everything that is wrong with it."""
    start, end, flaws = _outside(text)
    core = text[start:end]
    found = _SCHEME.match(core)
    if found is None or (not found[2] and _family(found[1].lower()) is None):
        flaws.append(Flaw(0, "is not a URL", "Write scheme://user:password@host:port/database"))
        return Parsed(text, None, tuple(flaws))
    scheme = found[1]
    kind = _family(scheme.lower())
    if kind is None:
        flaws.append(Flaw(start + 1, f"begins with {scheme}://, which no database driver knows", _meant(scheme)))
        return Parsed(text, None, tuple(flaws))
    if scheme != scheme.lower():
        flaws.append(Flaw(start + 1, "has capital letters in its scheme", f"Write {scheme.lower()}://"))
    if found[2] != "//":
        flaws.append(Flaw(start + len(scheme) + 1, "lacks // after the scheme", f"Write {scheme.lower()}://"))
    return _Reader(text, start + found.end(), end, scheme.lower(), flaws).parsed()


def _start(text: str) -> int:
    """Where the URL proper begins in `text`."""
    found = _OUTSIDE.match(text)
    return found.end() if found else 0


def _family(scheme: str) -> tuple[str, bool] | None:
    return None if scheme in _FOREIGN else _SCHEMES.get(scheme.partition("+")[0])


def _close(scheme: str) -> list[str]:
    import difflib

    return difflib.get_close_matches(scheme.lower(), _SCHEMES, 1, 0.75)


def _meant(scheme: str) -> str:
    close = _close(scheme)
    return f"Write {close[0]}://" if close else "Write postgresql://, redis://, mysql:// or amqp://"


def _outside(text: str) -> tuple[int, int, list[Flaw]]:
    """Where the URL proper begins and ends, and what stands around it that is not part of a URL."""
    flaws = []
    start = _start(text)
    head = text[:start]
    end = len(text)
    if text.endswith(("\r", "\r\n")):
        remedy = "Save the file with Unix line ends (sed -i 's/\\r$//' FILE)"
        flaws.append(Flaw(len(text.rstrip("\r\n")) + 1, "ends with a carriage return", remedy))
        end = len(text.rstrip("\r\n"))
    elif text != text.rstrip():
        flaws.append(Flaw(len(text.rstrip()) + 1, "ends with white space", "Remove it"))
        end = len(text.rstrip())
    if "export" in head:
        flaws.append(Flaw(head.index("export") + 1, "has the word export in it", "Write NAME=value, without export"))
    elif "=" in head:
        flaws.append(Flaw(1, "has the variable's name in it", "Write the value alone"))
    mark = next((at for at, character in enumerate(head) if character in "\"'"), -1)
    if mark >= 0 or text[start:end].endswith(('"', "'")):
        where = mark + 1 if mark >= 0 else end
        remedy = (
            "Remove the quotes: here they are part of the value (a list entry in `environment`, or a quote doubled)"
        )
        flaws.append(Flaw(where, "has quotes in it that are part of the value", remedy))
        if text[start:end].endswith(('"', "'")):
            end -= 1
    elif head and head == text[:start] and not head.strip():
        flaws.append(Flaw(1, "begins with white space", "Remove it"))
    return start, max(start, end), flaws


class _Reader:
    """Takes apart what follows scheme:// in `text[at:end]`."""

    def __init__(self, text: str, at: int, end: int, scheme: str, flaws: list[Flaw]) -> None:
        self._text, self._at, self._end, self._scheme, self._flaws = text, at, end, scheme, flaws
        self._kind, self._tls = _family(scheme) or (POSTGRESQL, False)
        self._begun = at
        self._span = (0, 0)

    def parsed(self) -> Parsed:
        user, password = self._credentials()
        hosts, ports = self._hosts()
        database = self._database()
        params = tuple(self._params())
        url = self._url(user, password, hosts, ports, database, params)
        self._complete(url)
        self._spaces()
        return Parsed(self._text, url, tuple(self._flaws), self._span)

    def _url(
        self,
        user: str,
        password: str | None,
        hosts: str,
        ports: str,
        database: str,
        params: tuple[tuple[str, str], ...],
    ) -> Url:
        given = dict(params)
        if self._kind == POSTGRESQL:
            # libpq, and JDBC, take the parts of a URL from its parameters as well.
            hosts, ports = given.get("host", hosts), given.get("port", ports)
            user, password = given.get("user", user), given.get("password", password)
            database = given.get("dbname", database)
        elif self._scheme.startswith("jdbc:"):
            user, password = given.get("user", user), given.get("password", password)
        elif self._kind == REDIS:
            database = given.get("db", database)
        default = _AMQPS_PORT if (self._kind, self._tls) == (AMQP, True) else _PORTS[self._kind]
        first = ports.split(",")[0]
        port = int(first) if first.isascii() and first.isdigit() else default
        return Url(
            self._kind, self._tls, user, password, hosts.split(",")[0], port, database, params, scheme=self._scheme
        )

    def _complete(self, url: Url) -> None:
        """Flaws that only show when all is known."""
        if not url.host and self._kind == POSTGRESQL:
            what = "names no host: it would use the local socket, where nobody is asked for a password"
            self._flaw(self._at, what, "Write the database's service name after the @")
        elif not url.host and self._kind != REDIS:
            self._flaw(self._at, "names no host", "Write the database's service name after the @")
        if self._kind == REDIS and url.database and not url.database.isdigit():
            self._flaw(self._at, "has a database that is not a number, which Redis does not have", "Write /0")

    def _spaces(self) -> None:
        """White space and control characters anywhere: libpq refuses them, or drops them, by version and place."""
        for at in range(self._begun, self._end):
            character = self._text[at]
            if character.isspace() or ord(character) < 32 or character == "\x7f":
                self._flaw(at, "has white space or a control character in it", "Percent-encode or remove it")

    # -- user and password ------------------------------------------------------------------------------------------

    def _credentials(self) -> tuple[str, str | None]:
        text, start = self._text, self._at
        at = self._userinfo_end()
        if at < 0:
            return "", None
        colon = text.find(":", start, at)
        user_end = at if colon < 0 else colon
        self._at = at + 1
        self._characters(start, user_end, "user")
        user = self._decoded(start, user_end, "user")
        if colon < 0:
            return user, None
        self._span = (colon + 1, at)
        self._characters(colon + 1, at, "password")
        return user, self._decoded(colon + 1, at, "password")

    def _userinfo_end(self) -> int:
        """The @ that ends user and password, -1 without: the last one before the path, unless a password with a raw
        / ? or # has moved what looks like the path."""
        text, start, end = self._text, self._at, self._end
        cut = min((found for found in (text.find(mark, start, end) for mark in "/?#") if found >= 0), default=end)
        query = min((found for found in (text.find(mark, cut, end) for mark in "?#") if found >= 0), default=end)
        last = text.rfind("@", start, cut)
        in_path = text.rfind("@", cut, query)
        if in_path >= 0:
            return in_path
        if last >= 0:
            return last
        beyond = text.rfind("@", query, end)
        port = text[start:cut].rpartition(":")
        if beyond >= 0 and port[1] and not port[2].isdigit() and _HOST.match(text, beyond + 1, end):
            return beyond
        return -1

    def _characters(self, start: int, end: int, part: str) -> None:
        for at in range(start, end):
            character = self._text[at]
            if character in "@/":
                self._flaw(at, f"has an unescaped {character} in the {part}", f"Write {quote(character, safe='')}")
            elif character in ":#?":
                remedy = f"Write {quote(character, safe='')}"
                self._flaw(at, f"has an unescaped {character} in the {part}", remedy, fatal=False)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def _hosts(self) -> tuple[str, str]:
        """Hosts and ports, each a list with commas as in libpq."""
        hosts, ports = [], []
        while True:
            found = _HOST.match(self._text, self._at, self._end)
            if found is None:  # it matches the empty text as well
                break
            port = found[2] or ""
            if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                extra = ": a password with an unescaped @ or / does that" if self._span == (0, 0) else ""
                self._flaw(found.start(2), f"has a port that is not a number from 1 to 65535{extra}", "Correct it")
            brackets = int(found[1].startswith("["))  # an IPv6 address
            hosts.append(self._decoded(found.start(1) + brackets, found.end(1) - brackets, "host"))
            ports.append(port)
            self._at = found.end()
            if self._text[self._at : self._at + 1] != "," or self._at >= self._end:
                break
            self._at += 1
        return ",".join(hosts), ",".join(ports)

    def _database(self) -> str:
        if self._at >= self._end or self._text[self._at] != "/":
            return ""
        start = self._at + 1
        query = self._text.find("?", start, self._end)
        self._at = self._end if query < 0 else query
        for at in range(start, self._at):
            character = self._text[at]
            if character == "#":
                self._flaw(at, "has an unescaped # in the database's name", "Write %23", fatal=False)
        return self._decoded(start, self._at, "database's name")

    def _params(self) -> Iterator[tuple[str, str]]:
        if self._at >= self._end:
            return
        if self._text[self._at] != "?":
            self._flaw(self._at, "goes on after the host with what is no / or ?", "Percent-encode special characters")
            return
        at = self._at + 1
        for word in self._text[at : self._end].split("&"):
            name, equals, value = word.partition("=")
            middle = at + len(name)
            last = at + len(word) >= self._end
            if (word and (not equals or "=" in value)) or not (word or last):
                self._flaw(at, "has a parameter that is not name=value", "Correct what follows the ?")
            elif word:
                value_end = middle + 1 + len(value)
                yield self._decoded(at, middle, "parameters"), self._decoded(middle + 1, value_end, "parameters")
            at += len(word) + 1

    def _decoded(self, start: int, end: int, part: str) -> str:
        """Percent-decoded as libpq does it: two hex digits after each %, and no NUL."""
        raw, found = self._text[start:end], bytearray()
        at = 0
        while at < len(raw):
            if raw[at] != "%":
                found += raw[at].encode("utf-8", "surrogateescape")
                at += 1
                continue
            digits = raw[at + 1 : at + 3]
            if len(digits) != 2 or not set(digits) <= _HEX:
                self._flaw(start + at, f"has a % in the {part} that is not followed by two hex digits", "Write %25")
                found += b"%"
                at += 1
                continue
            if digits == "00":
                self._flaw(start + at, f"has %00 in the {part}", "Remove it: no password or name can hold that")
            found.append(int(digits, 16))
            at += 3
        try:
            return found.decode()
        except UnicodeDecodeError:
            self._flaw(start, f"has bytes in the {part} that are no UTF-8", "Encode it in UTF-8 first, then escape it")
            return found.decode("utf-8", "surrogateescape")

    def _flaw(self, at: int, what: str, remedy: str, *, fatal: bool = True) -> None:
        self._flaws.append(Flaw(at + 1, what, remedy, fatal))
