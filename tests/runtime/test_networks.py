"""Private networks: what a step has of one, who shares it, and what becomes of it."""

from __future__ import annotations

import pytest

from runtime import networks
from runtime.networks import Helper, PrivateNetworks

pytestmark = pytest.mark.userns

# Inside: two pools of one helper each, and a way to run a step in a network.
PRELUDE = """
import time
from runtime import networks
def pool_of(name):
    return networks.PrivateNetworks(tuple(h for h in (networks._SLIRP4NETNS, networks._PASTA) if h.name == name))
def step(network, name, script):
    spawned = spec(name, 'sh', '-c', script, network='private')
    return zygote.run(spawned, stdout=1, stderr=2, network_namespace=network.fd)
def number(network):
    return os.fstat(network.fd).st_ino
"""

both_helpers = pytest.mark.parametrize("name", ["slirp4netns", "pasta"])


@pytest.fixture
def run_pool(run_body):
    """Return a function that runs a source inside, with `pool` of the named helper."""

    def run(source: str, name: str = "slirp4netns") -> str:
        return run_body(f"{PRELUDE}\npool = pool_of({name!r})\n{source}\npool.close()")

    return run


@pytest.mark.tun
@both_helpers
def test_step_has_links_addresses_and_a_route(run_pool, name):
    """A step in a private network has a loopback and a link that are up, and a default route."""
    out = run_pool(
        "with pool.lent() as network: step(network, 's', 'ip -o addr; ip route | cut -d\" \" -f1-3').wait()", name
    )

    assert "inet 127.0.0.1/8" in out
    assert "inet 10.0.2.100/24" in out
    assert "default via 10.0.2.2" in out


@pytest.mark.tun
@both_helpers
def test_network_of_an_ended_step_is_used_again(run_pool, name):
    """The next step gets the network that is free, so no helper is started for it."""
    out = run_pool(
        """
pool.prepare()
with pool.lent() as network: first = number(network), network._pid
with pool.lent() as network: print(first == (number(network), network._pid))
""",
        name,
    )

    assert out == "True\n"


@pytest.mark.tun
def test_steps_at_the_same_time_have_networks_of_their_own(run_pool):
    """Two steps that listen on the same port at the same time both can, and neither has the host's network."""
    out = run_pool("""
with pool.lent() as one, pool.lent() as two:
    numbers = {number(one), number(two), os.stat('/proc/self/ns/net').st_ino}
    steps = [step(n, f's{i}', 'timeout 1 nc -l -p 4000 127.0.0.1; test $? = 143 && sleep 0.1') for i, n in enumerate((one, two))]
    print(len(numbers), [s.wait().status for s in steps])
""")

    assert out == "3 [0, 0]\n"


@pytest.mark.tun
def test_own_network_is_thrown_away(run_pool):
    """What a step that may change settings has used, no other step gets."""
    out = run_pool("""
with pool.lent() as network: before = number(network)
with pool.lent(own=True) as network: own, pid = number(network), network._pid
with pool.lent() as network: after = number(network)
print(before == after, own != before, os.path.exists(f'/proc/{pid}'))
""")

    assert out == "True True False\n"


@pytest.mark.tun
def test_network_of_a_failed_block_is_thrown_away(run_pool):
    """A step of which nobody knows whether it has ended leaves its network to nobody."""
    out = run_pool("""
try:
    with pool.lent() as network:
        pid = network._pid
        raise KeyError
except KeyError: print(os.path.exists(f'/proc/{pid}'))
with pool.lent() as network: print(network._pid != pid)
""")

    assert out == "False\nTrue\n"


@pytest.mark.tun
@both_helpers
def test_dead_helper_hangs_nobody(run_pool, name):
    """A step whose helper dies is without a network at once, and the next step has a working one."""
    out = run_pool(
        """
with pool.lent() as network:
    before = number(network)
    os.kill(network._pid, 9)
    while network.is_alive(): time.sleep(0.01)
    step(network, 's', 'timeout 5 nc 192.0.2.7 80 2>&1').wait()
with pool.lent() as network:
    print(number(network) != before, network.is_alive())
""",
        name,
    )

    assert out == "nc: can't connect to remote host (192.0.2.7): Network is unreachable\nTrue True\n"


@pytest.mark.tun
def test_step_holds_nothing_of_its_network(run_pool):
    """The descriptor of the namespace does not reach the command, and the helper is no process it could see."""
    out = run_pool("""
with pool.lent() as network: step(network, 's', 'ls /proc/self/fd; set -- /proc/[0-9]*; echo $#').wait()
""")

    assert out.split() == ["0", "1", "2", "3", "1"]  # 3 is the folder that is listed; then the shell runs alone


@pytest.mark.tun
@both_helpers
def test_helper_holds_little(run_pool, name):
    """A helper gets no descriptor and no variable of ours, and gives up its rights."""
    out = run_pool(
        """
reader = os.dup2(os.pipe()[0], 50)  # inheritable, and none of those that a helper gets
os.environ['SECRET'] = 'x'
with pool.lent() as network:
    folder = Path('/proc') / str(network._pid)
    deadline = time.monotonic() + 10
    while 'Seccomp:\\t2' not in (folder / 'status').read_text() and time.monotonic() < deadline: time.sleep(0.01)
    links = [os.readlink(fd) for fd in (folder / 'fd').iterdir()]
    print(os.readlink(f'/proc/self/fd/{reader}') in links, b'SECRET' in (folder / 'environ').read_bytes())
    fields = dict(line.split(':\\t') for line in (folder / 'status').read_text().splitlines() if ':\\t' in line)
    print(fields['Seccomp'], fields['NoNewPrivs'], hex(int(fields['CapEff'], 16) & ~(1 << 10)))
""",
        name,
    )

    # pasta says that it is ready just before it loads its filter. It keeps SYS_ADMIN behind that; both keep
    # NET_BIND_SERVICE, which is masked out above.
    assert out == f"False False\n2 1 {'0x0' if name == 'slirp4netns' else '0x200000'}\n"


@pytest.mark.tun
def test_closed_pool_leaves_no_helper(run_pool):
    """The end of a pool is the end of its helpers, also of one that is still lent."""
    out = run_pool("""
pool.prepare()
with pool.lent() as one, pool.lent() as two:
    pids = one._pid, two._pid
    pool.close()
print([os.path.exists(f'/proc/{pid}') for pid in pids])
""")

    assert out == "[False, False]\n"


@pytest.mark.tun
@pytest.mark.parametrize(
    ("helpers", "reason"),
    [
        ("()", "neither slirp4netns nor pasta is installed"),
        ("(Helper(name='no-such-helper', args=()),)", "neither slirp4netns nor pasta is installed"),
        ("(Helper(name='sh', args=('-c', 'echo a; echo b >&2; exit 3')),)", "sh fails: b"),
        ("(Helper(name='false', args=()),)", "false fails: no message"),
        ("(Helper(name='sleep', args=('60',)),)", "sleep fails: not ready after 1 seconds"),
        ("(Helper(name='no-such-helper', args=()), Helper(name='false', args=()))", "false fails: no message"),
    ],
)
def test_lack_says_why(run_body, helpers, reason):
    """Where no helper works, the reason is what the first that is there said, whether it was prepared or not."""
    for first in ("pool.find_lack()", "pool.prepare()"):
        out = run_body(f"""
from runtime import networks
from runtime.networks import Helper
networks._PATIENCE_SECONDS = 1.0
pool = networks.PrivateNetworks({helpers})
{first}
with pool.lent() as network: print(network)
print(pool.find_lack().reason, len(pool._all))
""")

        assert out == f"None\n{reason} 0\n"


@pytest.mark.tun
def test_second_helper_is_tried(run_body):
    """A helper that fails makes room for the next, and is not tried again."""
    out = run_body("""
from runtime import networks
pool = networks.PrivateNetworks((networks.Helper(name='false', args=()), networks._SLIRP4NETNS))
pool.prepare()
with pool.lent() as one, pool.lent() as two: print(one.helper.name, two.helper.name)
print(pool.find_lack())
pool.close()
""")

    assert out == "slirp4netns slirp4netns\nNone\n"


@pytest.mark.parametrize(
    ("make", "reason", "remedy"),
    [
        (lambda path: None, "no such file or directory", "modprobe tun"),
        (lambda path: path.mkdir(), "is a directory", "--network host"),
    ],
    ids=["absent", "something else"],
)
def test_lack_of_tun_says_how_to_get_it(monkeypatch, tmp_path, make, reason, remedy):
    """Without a tun device no helper is started, and the lack names it."""
    make(tmp_path / "tun")
    monkeypatch.setattr(networks, "TUN", str(tmp_path / "tun"))
    pool = PrivateNetworks((Helper(name="false", args=()),))

    lack = pool.find_lack()

    assert lack is not None
    assert lack.reason == f"{tmp_path / 'tun'}: {reason}"
    assert remedy in lack.remedy
    with pool.lent() as network:
        assert network is None
