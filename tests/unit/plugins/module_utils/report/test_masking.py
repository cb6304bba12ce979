# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import html
import itertools
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.report.masking import (
    MASK,
    Masker,
    assigned_secrets,
    forms,
    masked_line,
    masked_sides,
    secret_values,
)

SECRETS = [
    "correct-horse-battery",
    "p@ss/w0rd? &=#%",
    "quo\"te\\back'slash",
    "ümläut-pässword",
    "tab\there-and-there",
    "$2y$10$abcdefghijk",
    "+/+/+/+/+/",
    "a b c d e f",
    "<b>&amp;</b>",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "written",
    [
        str,
        quote,
        lambda text: quote(text, safe=""),
        quote_plus,
        lambda text: urlencode({"x": text})[2:],
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    ],
    ids=["raw", "url", "url without slash", "url plus", "form", "json", "json unicode", "base64", "base64 for urls"],
)
def test_every_form_is_masked(secret, written):
    text = Masker([secret]).text(f"before {written(secret)} after")
    assert text in (f"before {MASK} after", f"before {MASK}= after", f"before {MASK}== after") or (
        # In base64 the last group may be left when it is written differently; it holds two bytes at most.
        text.startswith(f"before {MASK}") and len(text) <= len(f"before {MASK} after") + 4
    )


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_at_each_alignment(secret, encode):
    """A secret in the middle of something longer, as in `user:password`: all but the outermost groups go."""
    masker = Masker([secret])
    for before, after in itertools.product(["", "u", "u:", "us:", "user:"], ["", "@", "@h", "@ho", "@host"]):
        written = encode((before + secret + after).encode()).decode()
        left = masker.text(written)
        assert MASK in left, (before, after)
        around = len(encode((before + after).encode()))
        assert len(left) - len(MASK) <= around + 8, (before, after, left)


@pytest.mark.parametrize("secret", SECRETS)
def test_masked_data_gives_nothing_away(secret):
    text = json.dumps(Masker([secret]).data({"a": [secret, {"b": f"x{secret}y"}], secret: (1, None, True, secret)}))
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text
    assert json.loads(text) == {"a": [MASK, {"b": f"x{MASK}y"}], MASK: [1, None, True, MASK]}


def test_json_inside_of_json():
    secret = 'quo"te-and-more'
    document = json.dumps({"outer": "x"})[:-1] + ', "inner": ' + json.dumps(secret) + "}"
    assert "and-more" not in Masker([secret]).text(document)


def test_what_javascript_leaves_alone_in_a_url():
    # encodeURIComponent keeps ! ' ( ) * where Python's quote does not.
    assert Masker(["p!a'b(c)*d e"]).text("x=p!a'b(c)*d%20e") == f"x={MASK}"


@pytest.mark.parametrize("secret", ["", "a", "ab", "abc", " a ", "\n\n"])
def test_very_short_secrets_are_left_alone(secret):
    text = "abc a b c, an ordinary text about a, ab and abc"
    assert Masker([secret]).text(text) == text


def test_four_characters_are_a_secret():
    assert Masker(["s3cr"]).text("is s3cr here") == "is *** here"


def test_the_longer_of_two_secrets_goes_whole():
    for secrets in (["horse", "horse-battery"], ["horse-battery", "horse"]):
        assert Masker(secrets).text("horse-battery horse") == "*** ***"


def test_each_line_of_a_key_is_masked():
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n  c2Vjb25kbGluZQ==\n-----END PRIVATE KEY-----\n"
    masker = Masker([key])
    for line in ("MIIEvQIBADANBgkq", "c2Vjb25kbGluZQ=="):
        assert line not in masker.text(f"log: {line}\n")
    assert "MIIE" not in masker.text(json.dumps(key))


def test_secrets_are_no_patterns():
    masker = Masker([".*.*", "a|b|c|d", "[a-z]+"])
    assert masker.text("anything at all") == "anything at all"
    assert masker.text("x .*.* y [a-z]+ z") == f"x {MASK} y {MASK} z"


def test_without_secrets_nothing_but_urls_is_masked():
    masker = Masker()
    assert masker.text("nothing here") == "nothing here"
    assert masker.data({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://u:hunter2@db:5432/x", "postgres://u:***@db:5432/x"),
        ("redis://:hunter2@cache/0", "redis://:***@cache/0"),
        ("amqp+ssl://u:p%40ss@mq", "amqp+ssl://u:***@mq"),
        ("postgres://u:hun@ter2@db/x", "postgres://u:***@db/x"),
        ('"postgres://u:hunter2@db/x" and "b@c"', '"postgres://u:***@db/x" and "b@c"'),
        ("a postgres://u:one@h b redis://u:two@h", "a postgres://u:***@h b redis://u:***@h"),
        ("https://host/path", "https://host/path"),
        ("https://host:8080/path", "https://host:8080/path"),
        ("https://host:8080/@scope/name", "https://host:8080/@scope/name"),
        ("https://host:8080", "https://host:8080"),
        ("git@github.com:a/b", "git@github.com:a/b"),
        ("https://u@host/x", "https://u@host/x"),
        ("a:b@c", "a:b@c"),
    ],
)
def test_passwords_in_urls(text, masked):
    assert Masker().text(text) == masked


@pytest.mark.parametrize(
    ("variables", "secrets"),
    [
        ({}, set()),
        ({"DEBUG": "1", "PATH": "/bin", "PWD": "/srv", "HOST": "db"}, set()),
        *(
            ({name: "hunter22"}, {"hunter22"})
            for name in (
                "PASSWORD",
                "POSTGRES_PASSWORD",
                "db_password",
                "PGPASSWORD",
                "MYSQL_PWD",
                "DB_PASS",
                "SMTP_PASSWD",
                "KEY_PASSPHRASE",
                "SECRET_KEY",
                "DJANGO_SECRET_KEY",
                "API_KEY",
                "APIKEY",
                "AWS_ACCESS_KEY_ID",
                "GITHUB_TOKEN",
                "TOKEN",
                "SENTRY_DSN",
                "GOOGLE_CREDENTIALS",
                "SSH_PRIVATE",
                "ENCRYPTION_KEY",
                "BASIC_AUTH",
            )
        ),
        *(({name: "hunter22"}, set()) for name in ("KEYBOARD", "AUTHOR", "TURNKEY_MODE", "PASSENGERS")),
        ({"PASSWORD": None}, set()),
        ({"PASSWORD": 12345678}, {"12345678"}),
        *(({"USE_TOKEN": value}, set()) for value in ("true", "false", "True", "none", "null", "yes")),
        ({"BYPASS_CACHE": "true", "BYPASS": "off"}, set()),
    ],
)
def test_which_variables_hold_secrets(variables, secrets):
    found = {value for value in secret_values(variables) if len(value) > 3}
    assert found == secrets


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:hunter22@db/x",
        "smtp://u:hunter22@host/?from=me@example.org",
        "smtp://u:hunter22@host?from=me@example.org",
        "amqp://u:hunter22@h1,amqp://u:another1@h2",
        "amqp://u:another1@h1,amqp://u:hunter22@h2",
        "amqp://u:another1@h1 amqp://u:hunter22@h2",
        "https://u:hunter22@host:8080/a@b",
    ],
)
def test_the_password_of_a_url_is_known_by_itself(url):
    assert "hunter22" in set(secret_values({"URL": url}))


def test_an_encoded_password_of_a_url_is_known_in_both_forms():
    assert {"hun%40ter22", "hun@ter22"} <= set(secret_values({"URL": "postgres://u:hun%40ter22@db/x"}))


def test_a_password_with_a_raw_at_sign_is_known_whole():
    assert "hun@ter22" in set(secret_values({"URL": "postgres://u:hun@ter22@db/x"}))


def test_forms_are_never_shorter_than_a_secret():
    for secret in [*SECRETS, "abcd", "abc", html.escape("<>&")]:
        assert all(len(form) >= 4 for form in forms(secret))


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("      POSTGRES_PASSWORD: s3cret word", "      POSTGRES_PASSWORD: ***"),
        ('  "api_key": "s3cret",', '  "api_key": ***'),
        ("export PGPASSWORD='s3cret'", "export PGPASSWORD=***"),
        ("    content: password = s3cret", "    content: password = ***"),
        ("environment: {A: 1, DB_PASSWORD: s3cret}", "environment: {A: 1, DB_PASSWORD: ***"),
        ("  DATABASE_URL: postgresql://app:s3cret@db/app", "  DATABASE_URL: postgresql://app:***@db/app"),
        ("  PASSWORD: ${DB_PASSWORD:?}", "  PASSWORD: ${DB_PASSWORD:?}"),
        ('TOKEN="$(cat /run/secrets/token)"', 'TOKEN="$(cat /run/secrets/token)"'),
        ("DB_PASSWORD=<unchanged>", "DB_PASSWORD=<unchanged>"),
        ("secrets:", "secrets:"),
        ("LOG_LEVEL=info", "LOG_LEVEL=info"),
    ],
)
def test_lines_of_files(line, shown):
    assert masked_line(f"{line}\r\n", MASK) == f"{shown}\r\n"


def test_a_secret_that_changes_in_a_file_shows_as_changed():
    before, after = "A=1\nTOKEN=one1\nKEEP_SECRET=same\n", "A=2\nTOKEN=two2\nKEEP_SECRET=same\n"
    assert masked_sides(before, after) == (
        "A=1\nTOKEN=<old value>\nKEEP_SECRET=***\n",
        "A=2\nTOKEN=<new value>\nKEEP_SECRET=***\n",
    )


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("password = one two # three", {"one two # three"}),
        ("a: 1\nDB_PASSWORD='s3cret'\n", {"'s3cret'", "s3cret"}),
        ('{"user": "app", "api_key": "s3cret",\n', {'"s3cret"', "s3cret"}),
        ("url = postgres://app:s3cret@db/app", {"s3cret"}),
        ("password = ,\ntoken: ;\n", set()),
        ("password = ${DB_PASSWORD}\nsecret: true\ntoken:\n", set()),
    ],
)
def test_what_a_configuration_file_gives_to_names_of_secrets(text, secrets):
    assert set(assigned_secrets(text)) == secrets
