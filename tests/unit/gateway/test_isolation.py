"""GW-12: what a server cannot reach, tried with real children."""

import asyncio
import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.gateway import confine
from exeat.gateway.isolation import Isolation, choose_isolation, landlock_abi, proven
from exeat.gateway.process import StdioProcess

pytestmark = pytest.mark.anyio
SPEC = ServerSpec(ServerId("git"), Transport.STDIO)
BIN = Path(sys.executable).parent
needs_landlock = pytest.mark.skipif(landlock_abi() < 3, reason="the kernel has no Landlock ABI 3")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "deep" / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "x").write_text("the-key")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("plain")
    return home


def landlocked(home: Path) -> Isolation:
    chosen = choose_isolation(SPEC, home, os.geteuid(), landlock_abi())
    assert chosen.label == "landlock"
    return chosen


def run(isolation: Isolation, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        isolation.argv(command), capture_output=True, text=True, timeout=20, check=False
    )


def shell(isolation: Isolation, script: str) -> subprocess.CompletedProcess[str]:
    return run(isolation, "/bin/sh", "-c", script)


@requirement("GW-12")
@needs_landlock
def test_neither_read_nor_list_nor_write_nor_delete_in_the_home(home: Path) -> None:
    isolation, beside = landlocked(home), home.parent.parent / "beside"
    for script in (
        f"cat {home}/keys/x",
        f"ls {home}",
        f"echo 1 > {home}/new",
        f"echo 1 > {home}/keys/x",
        f"rm {home}/keys/x",
        f"mkdir {home}/d",
        f"mv {home} {home}2",
        f"mv {home.parent} {home.parent}2",
        f"ln {home}/keys/x {beside}/hard && cat {beside}/hard",
        f"cd {home}/keys && cat x",
        f"cat /proc/self/root{home}/keys/x",
        f"cat /proc/{os.getpid()}/root{home}/keys/x",
    ):
        done = shell(isolation, script)
        assert done.returncode != 0 and "the-key" not in done.stdout, script
    assert (home / "keys" / "x").read_text() == "the-key"
    assert [entry.name for entry in home.iterdir()] == ["keys"]


@requirement("GW-12")
@needs_landlock
def test_everything_beside_the_home_works(home: Path) -> None:
    beside = home.parent.parent / "beside"
    script = (
        f"cat {beside}/file && echo new > {beside}/new && mv {beside}/new {beside}/moved && ls /"
    )
    done = shell(landlocked(home), script.removesuffix(" && ls /"))
    assert (done.returncode, done.stdout) == (0, "plain"), done.stderr
    assert (beside / "moved").read_text() == "new\n"


@requirement("GW-12")
@needs_landlock
def test_a_link_beside_the_home_opens_no_door(home: Path) -> None:
    (home.parent / "to-home").symlink_to(home)
    (home.parent / "to-root").symlink_to("/")
    assert "to-home" not in "".join(confine.openings([str(home)]))
    for path in (home.parent / "to-home/keys/x", f"{home.parent}/to-root{home}/keys/x"):
        assert shell(landlocked(home), f"cat {path}").stdout == ""


@requirement("GW-12")
@needs_landlock
def test_the_gateway_itself_is_out_of_reach(home: Path) -> None:
    me = os.getpid()
    with (home / "keys" / "x").open() as key:
        tried = [f"/proc/{me}/{name}" for name in ("mem", "environ", "maps", f"fd/{key.fileno()}")]
        code = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, "rb").read(1)
    except PermissionError:
        continue
    print(path)
"""
        done = run(landlocked(home), sys.executable, "-I", "-S", "-c", code, *tried)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@requirement("GW-12")
@needs_landlock
def test_its_children_are_bound_too_and_nothing_lifts_it(home: Path) -> None:
    script = f"sh -c 'sh -c \"cat {home}/keys/x\"'; unshare -rm cat {home}/keys/x; true"
    assert "the-key" not in shell(landlocked(home), script).stdout


@requirement("GW-12")
@needs_landlock
@needs_root
def test_root_loses_what_walks_around_it(home: Path) -> None:
    isolation = landlocked(home)
    held = shell(isolation, "grep CapEff /proc/self/status").stdout.split()[1]
    assert int(held, 16) & ~sum(1 << kept for kept in (0, 1, 3, 4, 6, 7, 10)) == 0
    for script in (
        f"mount --bind {home} /mnt",
        f"mknod {home.parent.parent}/beside/disk b 8 0",
        "echo x > /proc/sys/kernel/core_pattern",
        f"kill -0 {os.getpid()}",
    ):
        assert shell(isolation, script).returncode != 0, script


@requirement("GW-12")
@needs_root
def test_another_user_cannot_read_a_closed_home_even_without_landlock(home: Path) -> None:
    home.chmod(0o700)
    for step in (home.parent, home.parent.parent):
        step.chmod(0o755)
    spec = replace(SPEC, run_as="nobody")
    bare = choose_isolation(spec, home, 0, 0)
    assert (bare.label, bare.abi) == ("user:nobody", 0)
    assert shell(bare, f"cat {home}/keys/x").stdout == ""
    seen = shell(bare, "id -u; id -G").stdout.split()
    assert seen == [str(pwd.getpwnam("nobody").pw_uid), str(pwd.getpwnam("nobody").pw_gid)]
    assert proven(bare) == bare


@requirement("GW-12")
@needs_root
def test_another_user_with_an_open_home_is_called_not_isolated(home: Path) -> None:
    home.chmod(0o755)
    chosen = choose_isolation(replace(SPEC, run_as="nobody"), home, 0, 0)
    assert chosen.label == "none" and chosen.evidence.startswith("not isolated")


@requirement("GW-12")
def test_no_landlock_and_no_user_says_not_isolated(home: Path) -> None:
    chosen = choose_isolation(SPEC, home, 1000, 0)
    assert (chosen.label, chosen.isolated) == ("none", False)
    assert chosen.evidence.startswith("not isolated")


@requirement("GW-12")
def test_an_old_landlock_says_what_it_cannot_stop(home: Path) -> None:
    assert "truncation" in choose_isolation(SPEC, home, 1000, 2).evidence


@requirement("GW-12")
@pytest.mark.parametrize(
    ("run_as", "euid", "said"),
    [("no-such-user-x", 0, "no such user"), ("nobody", 1000, "only a gateway started by root")],
)
def test_a_run_as_that_cannot_be_kept_stops_the_start(
    home: Path, run_as: str, euid: int, said: str
) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        choose_isolation(replace(SPEC, run_as=run_as), home, euid, 7)
    assert caught.value.remedy


@requirement("GW-12")
@needs_landlock
def test_the_claim_is_tried_and_a_false_one_becomes_none(home: Path) -> None:
    isolation = landlocked(home)
    assert proven(isolation) == isolation
    false_claim = replace(isolation, abi=0)
    assert proven(false_claim).label == "none"
    assert "was tried and failed" in proven(false_claim).evidence


@requirement("GW-12")
def test_a_child_that_cannot_be_confined_never_runs(home: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    impossible = Isolation("user:x", "", str(home), 0, uid=-7)
    done = shell(impossible, f"touch {ran}")
    assert done.returncode == 126 and not ran.exists()
    assert done.stderr.startswith("exeat: ")


@requirement("GW-12")
def test_other_mounts_of_the_home_are_found() -> None:
    table = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 8:1 /srv/exeat /mnt/a\\040b rw - ext4 /dev/sda1 rw\n"
        "3 1 8:1 /srv /mnt/srv rw - ext4 /dev/sda1 rw\n"
        "4 1 8:1 /srv/exeat/keys /mnt/keys rw - ext4 /dev/sda1 rw\n"
        "5 1 8:1 /opt /mnt/opt rw - ext4 /dev/sda1 rw\n"
        "6 1 8:2 /srv /mnt/other rw - ext4 /dev/sdb rw\n"
    )
    found = set(confine.aliases("/srv/exeat", table))
    assert found == {"/mnt/a b", "/mnt/srv/exeat", "/mnt/keys"}


async def _ask(
    process: StdioProcess, lines: asyncio.Queue[bytes], line: object
) -> dict[str, object]:
    process.send(json.dumps(line).encode())
    async with asyncio.timeout(20):
        answer: dict[str, object] = json.loads(await lines.get())
    return answer


@requirement("GW-5", "GW-12")
@needs_landlock
@pytest.mark.parametrize("name", ["git", "time"])
async def test_real_servers_start_and_answer_confined(home: Path, name: str) -> None:
    beside = home.parent.parent / "beside"
    subprocess.run(["git", "init", "-q", str(beside)], check=True)
    command: tuple[str, ...] = (str(BIN / f"mcp-server-{name}"),)
    if name == "git":
        command = (*command, "--repository", str(beside))
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    process = StdioProcess(
        ServerSpec(ServerId(name), Transport.STDIO, command=command),
        isolation=landlocked(home),
        environ=os.environ,
        on_line=lines.put_nowait,
        on_exit=lambda reason: lines.put_nowait(json.dumps({"ended": reason}).encode()),
    )
    await process.start()
    try:
        hello = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        }
        assert "result" in await _ask(process, lines, hello)
        process.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
        listed = await _ask(process, lines, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        assert "result" in listed
        if name == "git":
            call = {"name": "git_status", "arguments": {"repo_path": str(beside)}}
            asked = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call}
            assert "No commits yet" in json.dumps(await _ask(process, lines, asked))
    finally:
        await process.stop(1)
