"""Many steps, killed steps, and a zygote that is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.userns


def test_threads_run_steps_at_the_same_time(run_body):
    """Steps started by several threads each report their own status."""
    out = run_body("""
statuses = {}
def one(n):
    statuses[n] = zygote.run(spec(f's{n}', 'sh', '-c', f'exit {n}'), stdout=1, stderr=2).wait().status
threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(statuses == {n: n for n in range(8)})
""")

    assert out == "True\n"


def test_killed_step_has_a_negative_status(run_body):
    """A killed step ends with signal 9, and killing it again is harmless."""
    out = run_body("""
step = zygote.run(spec('k', 'sleep', '300'), stdout=1, stderr=2)
step.kill(); print(step.wait().status); step.kill(); print(step.wait().status)
""")

    assert out == "-9\n-9\n"


def test_step_result_counts_resources(run_body):
    """Processor time and memory of the command are reported."""
    out = run_body("""
result = zygote.run(spec('r', 'sh', '-c', 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'), stdout=1, stderr=2).wait()
print(result.user_seconds > 0, result.max_resident > 1 << 18)
""")

    assert out == "True True\n"


def test_large_script_reaches_the_step(run_body):
    """A command of a hundred kilobytes arrives whole."""
    out = run_body("""
zygote.run(spec('l', 'sh', '-c', 'echo $#; : ' + 'x' * 100_000, 'sh', 'a'), stdout=1, stderr=2).wait()
""")

    assert out == "1\n"


def test_closing_kills_what_runs(run_body):
    """A zygote that is closed takes its steps with it."""
    out = run_body("""
step = zygote.run(spec('c', 'sleep', '300'), stdout=1, stderr=2)
zygote.close()
try: step.wait()
except SandboxError as error: print(error.message)
try: zygote.run(spec('d', 'true'), stdout=1, stderr=2)
except SandboxError as error: print(error.message)
""")

    assert out == "the process that starts steps has died\nthe process that starts steps is not running\n"


def test_zygote_does_not_keep_descriptors(run_body):
    """A pipe of the inner process ends when the inner process closes it, zygote or not."""
    out = run_body("""
reader, writer = os.pipe()
step = zygote.run(spec('p', 'echo', 'hi'), stdout=writer, stderr=2)
os.close(writer)
print(open(reader).read(), step.wait().status)
""")

    assert out == "hi\n 0\n"


@pytest.mark.parametrize(("single_id", "made"), [(False, "0"), (True, "00")], ids=["ranges", "single-id"])
def test_filters_are_not_made_by_each_step(run_body, single_id, made):
    """What a step loads is there when it is forked: making it takes longer than all else that is done for its rights."""
    out = run_body(
        """
from runtime import seccomp
from runtime.zygote import Zygote
def count():
    return sum(made.cache_info().misses for made in (seccomp.filter_program, seccomp.supervised_program))
def watched(load):
    def watch():
        before = count()
        result = load()
        os.write(1, b'%d' % (count() - before))
        return result
    return watch
seccomp.load, seccomp.load_supervised = watched(seccomp.load), watched(seccomp.load_supervised)
with Zygote() as second:
    second.run(spec('f', 'true'), stdout=1, stderr=2).wait()
""",
        single_id=single_id,
    )

    assert out == made


NEEDED = (
    "layers.apply", "layers.diff", "namespace", "networks", "snapshots.overlay", "spec", "starter", "zygote"
)  # fmt: skip


def test_what_a_first_step_needs_loads_nothing_slow():
    """What takes milliseconds to be loaded, and is memory that each step has to copy, stays out."""
    slow = {"argparse", "ast", "dataclasses", "inspect", "logging", "pyroute2", "subprocess", "tempfile"}
    needed = ", ".join(f"runtime.{name}" for name in NEEDED)
    source = f"import sys; sys.path[:0] = {sys.path!r}; import {needed}; print(*sorted({slow!r} & set(sys.modules)))"
    command = [sys.executable, "-I", "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "\n"


def test_builder_does_not_load_what_only_steps_need(run_body):
    """The zygote loads it for itself, while the inner process goes on."""
    out = run_body("""
print(zygote.run(spec('m', 'true'), stdout=1, stderr=2).wait().status)
print(*sorted({'runtime.starter', 'runtime.sandbox', 'runtime.seccomp'} & set(sys.modules)))
""")

    assert out == "0\n\n"
