"""What is said when the host refuses."""

from __future__ import annotations

import errno

import pytest

from runtime.host import HostFacts, explain_refusal

FACTS = {
    "seccomp": 0,
    "userns_clone": None,
    "apparmor_restriction": None,
    "max_user_namespaces": "15000",
    "is_root": False,
}


@pytest.mark.parametrize(
    ("number", "facts", "reason", "hint"),
    [
        (errno.ENOSPC, {"max_user_namespaces": "0"}, "max_user_namespaces is 0", "max_user_namespaces=15000"),
        (errno.ENOSPC, {}, "is used up", "max_user_namespaces=100000"),
        (errno.EPERM, {"userns_clone": "0"}, "unprivileged_userns_clone is 0", "unprivileged_userns_clone=1"),
        (errno.EACCES, {"apparmor_restriction": "1"}, "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        (errno.EPERM, {"seccomp": 2}, "seccomp filter", "seccomp=unconfined"),
        (errno.EPERM, {"seccomp": 2, "userns_clone": "0", "is_root": True}, "seccomp filter", "seccomp=unconfined"),
        (errno.EINVAL, {}, "CONFIG_USER_NS", ""),
        (errno.EPERM, {}, "security module", ""),
    ],
)
def test_refusal_is_explained(number, facts, reason, hint):
    """The cause is named, and one cure can be pasted."""
    error = explain_refusal(number, HostFacts(**{**FACTS, **facts}))

    assert reason in error.message
    assert hint in (error.hint or "")
    assert error.exit_code == 4
