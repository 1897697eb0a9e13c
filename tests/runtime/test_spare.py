"""Processes cloned ahead of their steps."""

from __future__ import annotations

import pytest

NAMED = "[n for n in os.listdir('/proc') if n.isdigit() and open(f'/proc/{n}/comm').read() == 'pybuild-zygote\\n']"


@pytest.fixture
def run_ahead(run_body):
    """Run Python inside the namespace, where `zygotes()` lists the zygote and what waits to be a step."""

    def run(code: str, *, single_id: bool = False) -> list[str]:
        return run_body(f"def zygotes():\n    return {NAMED}\n{code}", single_id=single_id).splitlines()

    return run


@pytest.mark.parametrize("single_id", [False, True], ids=["all-ids", "one-id"])
def test_step_after_step_has_a_process_of_its_own(run_ahead, single_id):
    """What one step leaves in its namespaces is not there for the next."""
    printed = run_ahead(
        """
for name in 'ab':
    script = 'hostname; ls /tmp; touch /tmp/left; echo $$'
    print(zygote.run(spec(name, 'sh', '-c', script), stdout=1, stderr=2).wait().status, flush=True)
""",
        single_id=single_id,
    )

    assert printed == ["buildkitsandbox", "1", "0", "buildkitsandbox", "1", "0"]


def test_spare_keeps_nothing_mounted(run_ahead, tmp_path):
    """What the builder mounts for itself is its own: no process that waits has it in its namespace."""
    (tmp_path / "place").mkdir()
    printed = run_ahead(
        f"""
from runtime import syscalls
syscalls.mount('tmpfs', {str(tmp_path / "place")!r}, 'tmpfs')
zygote.run(spec('a', 'true'), stdout=1, stderr=2).wait()
while len(zygotes()) < 2:
    pass
mounted = [open(f'/proc/{{pid}}/mountinfo').read().count({str(tmp_path / "place")!r}) for pid in ('self', *zygotes())]
print(mounted)
"""
    )

    assert printed == ["[1, 0, 0]"]


def test_spare_that_could_mount_nothing_says_so_when_it_is_wanted(run_ahead):
    """The step fails with the reason, as if it had been tried for it."""
    printed = run_ahead(
        """
zygote.close()
from runtime import sandbox, zygote as module
from runtime.errors import KernelError
def refuse():
    raise KernelError('fsmount', 1, subject='tmpfs')
sandbox.prepare = refuse
with module.Zygote() as other:
    try:
        other.run(spec('a', 'true'), stdout=1, stderr=2).wait()
    except SandboxError as error:
        print(error.message)
"""
    )

    assert printed == ["fsmount on `tmpfs`: Operation not permitted"]


def test_spare_that_died_is_no_success(run_ahead):
    """A step whose process is gone before it is used fails and says so; the next one works."""
    printed = run_ahead(
        """
zygote.run(spec('a', 'true'), stdout=1, stderr=2).wait()
while len(zygotes()) < 2:
    pass
spare = max(map(int, zygotes()))
os.kill(spare, 9)
while open(f'/proc/{spare}/stat').read().split()[2] != 'Z':
    pass
try:
    zygote.run(spec('b', 'echo', 'b'), stdout=1, stderr=2).wait()
except SandboxError as error:
    print(error.message, flush=True)
print(zygote.run(spec('c', 'echo', 'c'), stdout=1, stderr=2).wait().status)
"""
    )

    assert printed == ["the process that was to be the step has died", "c", "0"]


def test_spare_ends_with_the_zygote(run_ahead):
    """Nothing waits on when steps are no longer wanted."""
    printed = run_ahead(
        """
zygote.run(spec('a', 'true'), stdout=1, stderr=2).wait()
zygote.close()
print(zygotes())
"""
    )

    assert printed == ["[]"]


def test_no_process_waits_after_the_last_step_that_is_expected(run_ahead):
    """What will not be needed is not made; a step that comes all the same has to wait for it."""
    printed = run_ahead(
        """
zygote.expect(2)
for name in 'ab':
    print(zygote.run(spec(name, 'true'), stdout=1, stderr=2).wait().status)
print(len(zygotes()))
print(zygote.run(spec('c', 'true'), stdout=1, stderr=2).wait().status)
"""
    )

    assert printed == ["0", "0", "1", "0"]


def test_step_with_the_terminal_stays_in_the_session(run_ahead):
    """All other steps are in a session of their own."""
    printed = run_ahead(
        """
for name, interactive in (('a', True), ('b', False)):
    script = "read -r line < /proc/1/stat; echo ${line%%)*} ${line##*) }"
    print(os.getsid(0) > 0, flush=True)
    print(zygote.run(spec(name, 'sh', '-c', script, interactive=interactive), stdout=1, stderr=2).wait().status)
"""
    )

    sessions = [line.split()[5] for line in printed if line.startswith("1 ")]
    assert sessions == ["0", "1"]
