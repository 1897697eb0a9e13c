"""Modes that `--chmod` gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import DockerfileError
from builder.plan.mode import Mode

# Each mode given to COPY --chmod of BuildKit 0.25: mode of the source -> mode of the file, mode of the directory.
OBSERVED = json.loads(Path(__file__).with_name("symbolic_modes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", ["64a", "8", "0o644", "10000", "", "u", "u=q", "=,", "u+w,", "r+u", "-1", "+ x", "+7", "u+w,,+x"]
)
def test_wrong_mode_is_refused(text):
    """C22: the message is BuildKit's."""
    with pytest.raises(
        DockerfileError, match=r"invalid chmod parameter: .* it should be octal string and between 0 and 07777"
    ):
        Mode(text)


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "expected"),
    [
        ("0644", 0o4755, False, 0o644),
        ("4755", 0o600, False, 0o4755),
        ("u=rwX,go=rX", 0o640, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o700, True, 0o755),
        ("a+X", 0o600, True, 0o711),
        ("a+X", 0o600, False, 0o600),
        ("go-w", 0o777, False, 0o755),
        ("+x", 0o644, False, 0o755),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("g=u", 0o741, False, 0o771),
        ("o=", 0o777, False, 0o770),
        ("u=r", 0o4755, False, 0o455),
        ("g-x+w", 0o755, False, 0o765),
    ],
)
def test_mode_applies(text, mode, is_directory, expected):
    """C21: octal replaces, symbolic changes, X only where something is executable or a directory."""
    assert Mode(text).apply(mode, is_directory=is_directory) == expected


_clauses = st.builds(
    lambda who, operator, what: who + operator + what,
    st.text("ugoa", min_size=1, max_size=3),
    st.sampled_from("+-="),
    st.text("rwxXst", max_size=3) | st.sampled_from("ugo"),
)


@pytest.mark.parametrize("text", OBSERVED)
def test_symbolic_mode_is_that_of_buildkit(text):
    """Symbolic modes do what BuildKit did with files and directories of these modes."""
    given = OBSERVED[text]

    found = {
        mode: [f"{Mode(text).apply(int(mode, 8), is_directory=is_directory):04o}" for is_directory in (False, True)]
        for mode in given
    }
    assert found == given


@given(st.lists(_clauses, min_size=1, max_size=3).map(",".join), st.integers(0, 0o7777), st.booleans())
def test_mode_is_stable_for_assignments_of_itself(text, mode, is_directory):
    """Any symbolic mode gives twelve bits, and the same ones when asked again."""
    parsed = Mode(text)
    first = parsed.apply(mode, is_directory=is_directory)

    assert 0 <= first <= 0o7777
    assert parsed.apply(mode, is_directory=is_directory) == first


@given(st.text(max_size=8))
def test_any_text_is_a_mode_or_an_error(text):
    """No value of --chmod gives a traceback."""
    try:
        mode = Mode(text)
    except DockerfileError:
        return

    assert 0 <= mode.apply(0o644, is_directory=False) <= 0o7777
