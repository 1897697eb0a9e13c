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


def test_step_sees_what_is_mounted_when_it_starts(run_ahead, tmp_path):
    """A spare is older than the mounts that its step is given."""
    (tmp_path / "file").write_text("mounted\n")
    (tmp_path / "place").mkdir()
    printed = run_ahead(
        f"""
from pathlib import Path
from runtime import syscalls
from runtime.mounts import BindMount
zygote.run(spec('a', 'true'), stdout=1, stderr=2).wait()
syscalls.mount({str(tmp_path)!r}, {str(tmp_path / "place")!r}, None, syscalls.MS_BIND)
given = BindMount(source=Path({str(tmp_path / "place")!r}), target='/given')
print(zygote.run(spec('b', 'cat', '/given/file', binds=(given,)), stdout=1, stderr=2).wait().status)
"""
    )

    assert printed == ["mounted", "0"]


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
