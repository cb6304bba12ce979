# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real logins over TCP, with what the server answered. Libraries are imported when they are needed."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ..report.finding import ShipshapeError, failure
from .keywords import keywords
from .known import LIBRARIES
from .url import POSTGRESQL, REDIS, Url

OK, REFUSED, MISSING, UNREACHABLE, UNTRIED = "ok", "refused", "missing", "unreachable", "untried"
TIMEOUT = 5.0
_PACKAGES = {"psycopg": "psycopg[binary]", "redis": "redis", "pymysql": "PyMySQL"}
# SQLSTATEs: 28xxx is authorization, 42501 a database that this role may not connect to, 3D000 one that is not there.
_SQLSTATE = re.compile(rb'\bC "([0-9A-Z]{5})"')
_REDIS_CODES = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "ERR"})
# MySQL's client error for TLS that could not be begun: a server without it.
_NO_TLS = 2026


@dataclass(frozen=True)
class Login:
    """How a login ended. `code` and `words` are the server's own; `asked`: it wanted to know the password."""

    outcome: str
    code: str = ""
    words: str = ""
    asked: bool = True


def log_in(url: Url, ip: str) -> Login:
    """Logs in to the server at `ip` as `url` says, and out again."""
    library = LIBRARIES[url.family]
    try:
        if url.family == POSTGRESQL:
            with postgresql(url, ip) as session:
                return session.login
        return _redis(url, ip) if url.family == REDIS else _mysql(url, ip)
    except ImportError:
        return Login(UNTRIED, "login-library-missing", f"the Python library {library} is not on the target")


def missing_library(family: str) -> str:
    """What to install for a scheme, as pip calls it."""
    return _PACKAGES[LIBRARIES[family]]


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


class Session:
    """A connection, or how the attempt at one ended. libpq tells why it failed only in the server's language; the
    code comes from its trace of the protocol, which goes to memory."""

    def __init__(self, connection: Any, login: Login) -> None:
        self._connection = connection
        self.login = login

    def run(self, statement: str) -> Login:
        """Runs one statement."""
        from psycopg import pq

        result = self._connection.exec_(statement.encode())
        if result.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            return Login(OK)
        code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        return Login(REFUSED, code, _one_line((result.error_message or b"").decode("utf-8", "replace")))

    def set_password(self, user: str, password: str) -> str:
        """The statement that gives `user` a new password. It holds a verifier and not the password, so that neither
        the server's log nor pg_stat_activity ever shows it."""
        from psycopg import pq

        hashed = self._connection.encrypt_password(password.encode(), user.encode(), None)
        escaping = pq.Escaping(self._connection)
        role, word = escaping.escape_identifier(user.encode()), escaping.escape_literal(hashed)
        return f"ALTER ROLE {bytes(role).decode()} PASSWORD {bytes(word).decode()}"

    def setting(self, statement: str) -> str:
        result = self._connection.exec_(statement.encode())
        value = result.get_value(0, 0) if result.ntuples else b""
        return (value or b"").decode("utf-8", "replace")


@contextmanager
def postgresql(url: Url, ip: str) -> Iterator[Session]:
    from psycopg import conninfo, pq

    text = conninfo.make_conninfo("", **keywords(url, ip))
    connection = pq.PGconn.connect_start(text.encode())
    trace = os.memfd_create("trace", os.MFD_CLOEXEC)
    try:
        with suppress(Exception):  # without a trace there is no code, and everything else is as it was
            connection.trace(trace)
        good = connection.status != pq.ConnStatus.BAD and _connected(connection)
        with suppress(Exception):
            connection.untrace()
        if good:
            yield Session(connection, Login(OK, asked=connection.used_password))
        else:
            yield Session(connection, _postgresql_refusal(connection, _traced(trace)))
    finally:
        os.close(trace)
        connection.finish()


def _connected(connection: Any) -> bool:
    from psycopg import pq

    deadline = time.monotonic() + TIMEOUT
    while True:
        state = connection.connect_poll()
        if state in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            return bool(state == pq.PollingStatus.OK)
        left = deadline - time.monotonic()
        reading = [connection.socket] if state == pq.PollingStatus.READING else []
        writing = [connection.socket] if state == pq.PollingStatus.WRITING else []
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            return False


def _traced(trace: int) -> str:
    found = _SQLSTATE.findall(os.pread(trace, 1 << 20, 0))
    return found[-1].decode() if found else ""


def _postgresql_refusal(connection: Any, code: str) -> Login:
    words = _one_line((connection.error_message or b"").decode("utf-8", "replace"))
    said = re.search(r"(?:FATAL|ERROR|FEHLER): *(.*)", words)
    words = said[1] if said else words or f"no answer within {TIMEOUT:g} s"
    if connection.needs_password or code.startswith("28") or code == "42501":
        return Login(REFUSED, code or "28P01", words)
    if code == "3D000":
        return Login(MISSING, code, words)
    return Login(UNREACHABLE, code, words)


# -- Redis and MySQL --------------------------------------------------------------------------------------------------


def _redis(url: Url, ip: str) -> Login:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    tls: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False} if url.tls else {}
    client = redis.Redis(
        host=ip,
        port=url.port,
        db=int(url.database or 0),
        username=url.user or None,
        password=url.password,
        protocol=2,  # with the newer one a server says less clearly why it lets nobody in
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )
    try:
        client.ping()
    except redis.exceptions.AuthenticationError as error:
        return Login(REFUSED, *_redis_said(error, "WRONGPASS"))
    except redis.exceptions.NoPermissionError:
        return Login(OK)  # it may not PING, so it has been let in
    except (redis.exceptions.BusyLoadingError, redis.exceptions.TimeoutError) as error:
        return Login(UNREACHABLE, "", _one_line(str(error)))
    except redis.exceptions.ConnectionError as error:
        denied = "protected mode" in str(error)
        return Login(REFUSED if denied else UNREACHABLE, "DENIED" if denied else "", _one_line(str(error)))
    except redis.exceptions.ResponseError as error:
        outcome = MISSING if "index" in str(error) else REFUSED
        return Login(outcome, *_redis_said(error, "ERR"))
    finally:
        client.close()
    return Login(OK, asked=bool(url.password))


def _redis_said(error: Exception, code: str) -> tuple[str, str]:
    """Code and words of a refusal. redis-py takes some codes off the message."""
    words = _one_line(str(error))
    first, _dummy, rest = words.partition(" ")
    if first in _REDIS_CODES:
        return first, rest
    return ("NOAUTH" if "required" in words.lower() else code), words


def _mysql(url: Url, ip: str) -> Login:
    """With TLS, because without it MySQL 8 takes a password only under its own public key; else without."""
    said = _mysql_login(url, ip, {"ssl": {"check_hostname": False, "verify_mode": "none"}})
    return _mysql_login(url, ip, {"ssl_disabled": True}) if said.code == str(_NO_TLS) else said


def _mysql_login(url: Url, ip: str, tls: dict[str, Any]) -> Login:
    import pymysql

    try:
        pymysql.connect(
            host=ip,
            port=url.port,
            user=url.user,
            password=url.password or "",
            database=url.database or None,
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            **tls,
        ).close()
    except pymysql.err.OperationalError as error:
        code = int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
        words = _one_line(str(error.args[-1]))
        outcome = {1049: MISSING, 1044: REFUSED, 1045: REFUSED, 1130: REFUSED, 1698: REFUSED, 1820: REFUSED}.get(code)
        return Login(outcome or UNREACHABLE, str(code or ""), words)
    except (pymysql.err.Error, OSError) as error:
        return Login(UNREACHABLE, "", _one_line(str(error)))
    except RuntimeError as error:  # a library for the server's way of asking is missing
        return Login(UNTRIED, "login-library-missing", _one_line(str(error)))
    return Login(OK)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def need(family: str) -> None:
    """Raises when the library for `family` is not there."""
    library = LIBRARIES[family]
    try:
        __import__(library)
    except ImportError:
        raise library_missing(family) from None


def library_missing(family: str) -> ShipshapeError:
    what = f"the Python library {LIBRARIES[family]}, which logs in to it, is not on the target"
    remedy = f"Install {missing_library(family)}; role shipshape.deploy.engine makes an environment that has it"
    return failure("target", "login-library-missing", what, remedy)
