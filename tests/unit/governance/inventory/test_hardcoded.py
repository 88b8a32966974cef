"""REG-5: which values are taken for secrets, by which rule, and that none is ever shown."""

import hashlib

import pytest
from client_files import SECRETS, everything
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.governance.inventory.clients import CLIENTS, Scope
from exeat.governance.inventory.entries import Entry, Reach
from exeat.governance.inventory.hardcoded import fingerprint, secrets_of
from exeat.governance.inventory.survey import shown_target

CURSOR = CLIENTS["cursor"]


def entry(**fields: object) -> Entry:
    reach = Reach.HTTP if "url" in fields else Reach.STDIO
    return Entry(CURSOR, Scope.USER, "f", ("mcpServers", "x"), "x", "", reach, {}, **fields)  # type: ignore[arg-type]


def env(name: str, value: str) -> Entry:
    return entry(command=("c",), env={name: value})


@requirement("REG-5")
def test_the_secrets_of_every_client_are_found() -> None:
    found = {s.value for each in everything() for s in secrets_of(each)}
    assert found == set(SECRETS)


@requirement("REG-5")
@pytest.mark.parametrize(
    ("given", "where", "rule"),
    [
        (env("GITHUB_TOKEN", "abcdefgh"), "env GITHUB_TOKEN", "its name says so"),
        (env("DB_PASSWORD", "changeme"), "env DB_PASSWORD", "its name says so"),
        (env("STRIPE_KEY", "abcdefgh"), "env STRIPE_KEY", "its name says so"),
        (env("X", "ghp_EXAMPLEexampleEXAMPLE01"), "env X", "looks like: GitHub token"),
        (env("X", "github_pat_EXAMPLEexampleEXAMPLE"), "env X", "looks like: GitHub token"),
        (env("X", "glpat-EXAMPLE-example-00"), "env X", "looks like: GitLab token"),
        (env("X", "AKIAIOSFODNN7EXAMPLE"), "env X", "looks like: AWS access key"),
        (env("X", "xoxb-EXAMPLE-0000"), "env X", "looks like: Slack token"),
        (env("X", "-----BEGIN PRIVATE KEY-----\nEXAMPLE"), "env X", "looks like: private key"),
        (env("T_TOKEN", "${T:-fallback-value}"), "env T_TOKEN", "its name says so"),
        (env("DATABASE_URL", "postgres://u:EXAMPLE@h/d"), "env DATABASE_URL, user part", "an address with a password"),
        (entry(command=("c", "--token", "EXAMPLE0")), "args[1]", "its name says so"),
        (entry(command=("c", "--api-key=EXAMPLE0")), "args[0]", "its name says so"),
        (entry(command=("c", "-e", "SOME_SECRET=EXAMPLE0")), "args[1]", "its name says so"),
        (entry(command=("c", "--header", "Authorization: Bearer EXAMPLE0")), "args[1]", "its name says so"),
        (entry(command=("c", "--header=X-Api-Key:EXAMPLE0")), "args[0]", "its name says so"),
        (entry(command=("c", "https://h/sk-EXAMPLE-not-a-real-key-0/mcp")), "args[0]", "looks like: sk- key"),
        (entry(url="https://u:EXAMPLE@h/mcp"), "url, user part", "an address with a password"),
        (entry(url="https://EXAMPLE@h/mcp"), "url, user part", "an address with a user part"),
        (entry(url="https://h/mcp?api_key=EXAMPLE0"), "url, query api_key", "its name says so"),
        (entry(url="https://h/sk-EXAMPLE-not-a-real-key-0/mcp"), "url, path", "looks like: sk- key"),
        (entry(url="https://h", headers={"Authorization": "Basic EXAMPLE0"}), "header Authorization", "its name says so"),
        (entry(url="https://h", headers={"X-Api-Key": "EXAMPLE0"}), "header X-Api-Key", "its name says so"),
        (entry(url="https://h", sign_in={"oauth": {"clientSecret": "EXAMPLE0"}}), "oauth clientSecret", "its name says so"),
    ],
)  # fmt: skip
def test_each_rule_finds_its_secret(given: Entry, where: str, rule: str) -> None:
    (secret, *_) = secrets_of(given)
    assert (secret.where, secret.rule) == (where, rule)
    assert secret.value not in secret.shown and secret.value not in repr(secret)
    assert secret.value not in shown_target(given, secrets_of(given))


@requirement("REG-5")
@pytest.mark.parametrize(
    "given",
    [
        env("GITHUB_TOKEN", "${GITHUB_TOKEN}"),
        env("GITHUB_TOKEN", "$GITHUB_TOKEN"),
        env("GITHUB_TOKEN", "${env:GITHUB_TOKEN}"),
        env("GITHUB_TOKEN", "${input:github}"),
        env("GITHUB_TOKEN", "%GITHUB_TOKEN%"),
        env("GITHUB_TOKEN", ""),
        env("GITHUB_TOKEN", "<your token>"),
        env("MAX_TOKENS", "4096"),
        env("GOOGLE_APPLICATION_CREDENTIALS", "/home/ada/key.json"),
        env("LOG_LEVEL", "debug"),
        entry(url="https://h/mcp?lang=en", headers={"Authorization": "Bearer ${TOKEN}"}),
        entry(command=("c", "--token", "--verbose")),
        entry(command=("c", "--token-file", "/run/token")),
        entry(command=("npx", "-y", "@modelcontextprotocol/server-github@1.2.3")),
    ],
)
def test_references_and_plain_settings_are_no_secrets(given: Entry) -> None:
    assert secrets_of(given) == ()


@requirement("REG-5")
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=6, max_size=60))
def test_a_fingerprint_tells_length_and_sameness_only(value: str) -> None:
    shown = fingerprint(value)
    assert shown.startswith(f"{len(value)} characters")
    if len(value) <= 15:
        assert shown == f"{len(value)} characters"  # or a list of passwords could be tried
    else:
        assert shown.endswith(hashlib.sha256(value.encode()).hexdigest()[:12])
