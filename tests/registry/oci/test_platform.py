"""Platforms: the table shared with other tools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import PlatformInvalidError
from registry.oci.platform import Platform, best_match, host_platform, parse_platform

CASES = json.loads((Path(__file__).parents[2] / "conformance" / "platforms.json").read_text(encoding="utf-8"))
HOST = Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("text", "expected"), [pytest.param(case["text"], case["platform"], id=case["text"]) for case in CASES["parse"]]
)
def test_platform_is_read_and_normalised(text: str, expected: str) -> None:
    """A text gives the platform of the shared table."""
    assert str(parse_platform(text, default=HOST)) == expected


@pytest.mark.parametrize("text", [pytest.param(text, id=text or "empty") for text in CASES["invalid"]])
def test_platform_that_is_malformed_is_refused(text: str) -> None:
    """The error shows how a platform is written."""
    with pytest.raises(PlatformInvalidError, match="invalid platform") as caught:
        parse_platform(text, default=HOST)

    assert caught.value.exit_code == 2
    assert "linux/amd64" in str(caught.value.hint)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{case['wanted']} of {' '.join(case['candidates'])}") for case in CASES["match"]],
)
def test_platform_best_match_prefers_the_nearest(case: dict[str, Any]) -> None:
    """The choice is that of the shared table."""
    candidates = [Platform(*text.split("/")) for text in case["candidates"]]
    best = best_match(candidates, Platform(*case["wanted"].split("/")))

    assert (best and str(best)) == case["best"]


@given(st.builds(Platform, st.text(max_size=8), st.text(max_size=8), st.text(max_size=3)))
def test_platform_matches_itself_whatever_it_is(platform: Platform) -> None:
    """Even nonsense from a registry is comparable."""
    assert platform.matches(platform)


@given(st.text(max_size=20) | st.from_regex(r"(linux|arm|armhf|amd64|x)(/[a-z0-9]{1,5}){0,3}"))
def test_platform_normal_form_is_stable(text: str) -> None:
    """Reading what was written changes nothing."""
    try:
        platform = parse_platform(text, default=HOST)
    except PlatformInvalidError:
        return

    assert platform.normalized() == platform


def test_platform_of_windows_is_compared_by_version_prefix() -> None:
    """A wanted version is a prefix of the candidate's."""
    wanted = Platform("windows", "amd64", "", "10.0.17763")

    assert Platform("windows", "amd64", "", "10.0.17763.999").matches(wanted)
    assert not Platform("windows", "amd64", "", "10.0.20348.1").matches(wanted)


def test_platform_of_the_host_is_that_of_the_kernel() -> None:
    """The machine's own name is translated to Go's."""
    assert host_platform() == parse_platform(f"linux/{os.uname().machine}")
