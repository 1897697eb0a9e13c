"""`type=gha` of `--cache-from` and `--cache-to`: the cache service of the job that this runs in.

Address and token come from the attributes or the variables of the job. The token, a JWT, says which branches the job
may read and write; nothing depends on it being genuine, since the service checks it.

Source: BuildKit, cache/remotecache/gha/gha.go; tonistiigi/go-actions-cache, cache.go; docker/buildx,
util/buildflags/cache.go.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from builder.cli.option_values import parse_duration
from builder.errors import UsageError
from registry.actions_cache import ActionsCache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.cli.environment import Environment

PLACE_KEYS: Final = ("url", "url_v2", "token", "scope", "timeout")
"""What says where the cache is, alike for both options."""

_READ, _WRITE = 1, 2
_MAX_SCOPE: Final = 200


class _Grant(NamedTuple):
    """What the token says of one branch."""

    ref: str
    permission: int


def parse_actions_caches(
    option: str, values: Mapping[str, str], environment: Environment, *, write: bool
) -> tuple[ActionsCache, ...]:
    """Return the caches that the attributes of one option name: one a branch, the job's own first.

    Outside of a job there is one without an address; what uses it says so.

    Args:
        option: for messages.
        values: its attributes.
        environment: has the variables of the job.
        write: for the branch that may be written alone.

    Raises:
        UsageError: a value cannot be.
    """
    if "url" in values:
        hint = "drop url=, or name the service of version 2 with url_v2="
        raise UsageError(f"option {option}: url is the cache service of version 1, which is not supported", hint=hint)
    scope = values.get("scope") or "pybuild"
    if "," in scope or not scope.isprintable() or len(scope) > _MAX_SCOPE:
        raise UsageError(f"option {option}: not a scope: `{scope}`", hint="use letters, digits, - and _")
    url = values.get("url_v2") or environment.variables.get("ACTIONS_RESULTS_URL", "")
    token = values.get("token") or environment.variables.get("ACTIONS_RUNTIME_TOKEN", "")
    if url and (urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname):
        raise UsageError(f"option {option}: url_v2 is no http or https address: `{url}`")
    timeout = parse_duration(option, "timeout", values, default=600.0)
    if not url or not token:
        return (ActionsCache(url="", token="", scope=scope, timeout=timeout),)
    grants = sorted(_read_grants(token), key=lambda grant: not grant.permission & _WRITE)
    wanted = [grant.ref for grant in grants if grant.permission & (_WRITE if write else _READ)] or [""]
    places = tuple(ActionsCache(url=url, token=token, scope=scope, ref=ref, timeout=timeout) for ref in wanted)
    return places[:1] if write else places


def _read_grants(token: str) -> list[_Grant]:
    """Read the branches of a token; none if it is of another form, as that of other services may be."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return [_Grant(str(each["Scope"]), int(each["Permission"])) for each in json.loads(claims["ac"])]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
