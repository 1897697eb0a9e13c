"""The attributes of `type=gha`, and what the token of a job says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.cli.actions_options import parse_actions_caches
from builder.cli.environment import Environment
from builder.errors import UsageError
from registry.actions_cache import ActionsCache
from tests.fakes.actions_cache_server import OF_TOPIC, REFS, make_token

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://results.example/"


def parse(folder: Path, values: dict[str, str], *, write: bool = False, **variables: str) -> tuple[ActionsCache, ...]:
    """Parse attributes in a place with these variables."""
    environment = Environment(variables=variables, cwd=folder, home=folder)
    return parse_actions_caches("--cache-to", values, environment, write=write)


@pytest.mark.parametrize(("write", "refs"), [(False, [REFS[1], REFS[0]]), (True, [REFS[1]])])
def test_job_reads_of_its_own_branch_first_and_writes_to_it(tmp_path, write, refs):
    """Which branch is its own, and which it grew from, stands in the token."""
    found = parse(tmp_path, {}, write=write, ACTIONS_RESULTS_URL=URL, ACTIONS_RUNTIME_TOKEN=OF_TOPIC)

    assert found == tuple(ActionsCache(url=URL, token=OF_TOPIC, ref=ref) for ref in refs)


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.e30.c", make_token()])
def test_token_of_another_form_leaves_the_branch_to_the_service(tmp_path, token):
    """Services that take the place of GitHub's have tokens of their own."""
    values = {"url_v2": URL, "token": token, "scope": "s", "timeout": "90s"}

    assert parse(tmp_path, values) == (ActionsCache(url=URL, token=token, scope="s", timeout=90.0),)


@pytest.mark.parametrize("variables", [{}, {"ACTIONS_RESULTS_URL": URL}, {"ACTIONS_RUNTIME_TOKEN": OF_TOPIC}])
def test_cache_without_a_job_has_no_address(tmp_path, variables):
    """What uses it says so; it is no mistake of the command line."""
    assert parse(tmp_path, {}, **variables) == (ActionsCache(url="", token=""),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": URL}, "url is the cache service of version 1, which is not supported"),
        ({"url_v2": "results.example"}, "url_v2 is no http or https address: `results.example`"),
        ({"scope": "a,b"}, "not a scope: `a,b`"),
        ({"timeout": "ten"}, "timeout is no duration: `ten`"),
    ],
)
def test_mistake_is_explained(tmp_path, values, message):
    """One line says what is wrong."""
    with pytest.raises(UsageError) as raised:
        parse(tmp_path, values)

    assert raised.value.message == f"option --cache-to: {message}"
