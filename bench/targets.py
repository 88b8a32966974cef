"""What is measured: each target is started, pinned to a core, and stopped again.

``direct`` (no gateway), nginx ``proxy_pass``, FastMCP's proxy, mcp-proxy, and exeat as it is shipped:
a home with two servers, 100 agents and 1,000 policies, and `exeat up` as a process of its own.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from load import LEGACY, Plan
from policies import AGENT, AGENTS, GROUPS, policies
from upstream import TOOLS_DEFAULT, tool_names

HERE: Final = Path(__file__).resolve().parent
TESTS: Final = HERE.parent / "tests"
READY_S: Final = 120.0
POLICIES: Final = 1_000
PEERS: Final = {
    "fastmcp": ("fastmcp<4.1.6",),
    "mcp-proxy": ("mcp-proxy>=0.13",),
}


@dataclass(frozen=True, slots=True)
class Target:
    """``path``: of MCP; ``args_path``: the same for tools under argument rules (exeat only)."""

    name: str
    port: int
    path: str
    args_path: str = ""
    bearer: str = ""
    pid: int = 0
    eras: tuple[str, ...] = ()

    def plan(self, era: str, tools: list[str], kind: str = "free") -> Plan:
        path = self.args_path if kind != "free" and self.args_path else self.path
        fresh = kind == "fresh"
        return Plan("127.0.0.1", self.port, path, era, tuple(tools), self.bearer, fresh=fresh)


class Missing(Exception):
    """This target cannot run here; the message says why."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> set[int]:
    """The process and all that it started."""
    found, parents = {pid}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process with its threads, and of its children."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = (Path("/proc") / str(each) / "stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def memory_kib(pid: int) -> int:
    """Resident memory of the process and of its children."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            for line in (Path("/proc") / str(each) / "status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total


@contextlib.contextmanager
def started(
    command: list[str], port: int, core: int, log: Path, env: dict[str, str]
) -> Iterator[int]:
    """A process on one core that listens on the port; ended, with its children, on leaving."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env},
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(
                    f"{command[0]} did not start: {log.read_text(errors='replace')[-600:]}"
                )
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def upstream(core: int, tools: int, out: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, str(HERE / "upstream.py"), str(port), str(tools)]
    with started(command, port, core, out / "upstream.log", {}):
        yield port


@contextlib.contextmanager
def nginx(upstream_port: int, path: str, core: int, out: Path) -> Iterator[Target]:
    """Debian's nginx, one worker, connections to the upstream kept alive, no logs."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise Missing("nginx is not installed (Debian: apt-get install nginx-light)")
    port, folder = free_port(), out / "nginx"
    folder.mkdir(exist_ok=True)
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
{temporary}
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  upstream mcp {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://mcp; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    command = [
        binary,
        "-c",
        str(folder / "nginx.conf"),
        "-p",
        str(folder),
        "-e",
        str(folder / "error.log"),
    ]
    with started(command, port, core, out / "nginx.log", {}) as pid:
        yield Target("nginx", port, path, pid=pid)


def peer(name: str, out: Path) -> Path:
    """The bin folder of a peer's own environment, installed on first use."""
    folder = out / "peers" / name
    if not (folder / "installed").exists():
        uv = Path(sys.executable).with_name("uv")
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                folder / "bin" / "python",
                "uvloop",
                *PEERS[name],
            ],
        ):
            done = subprocess.run(
                [str(x) for x in command], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise Missing(f"{name} cannot be installed: {done.stderr[-300:]}")
        (folder / "installed").touch()
    return folder / "bin"


FASTMCP_PROXY: Final = """
import asyncio, sys
from fastmcp import Client
from fastmcp.server import create_proxy
async def main(url, port):
    async with Client(url) as client:
        await create_proxy(client, name="proxy").run_http_async(
            transport="http", host="127.0.0.1", port=port, show_banner=False, log_level="error",
            json_response=True)
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@contextlib.contextmanager
def fastmcp(upstream_port: int, path: str, core: int, out: Path) -> Iterator[Target]:
    """FastMCP's proxy with a client that stays connected, its best configuration."""
    python, port = peer("fastmcp", out) / "python", free_port()
    script = out / "fastmcp_proxy.py"
    script.write_text(FASTMCP_PROXY)
    command = [str(python), str(script), f"http://127.0.0.1:{upstream_port}{path}", str(port)]
    with started(command, port, core, out / "fastmcp.log", {}) as pid:
        yield Target("fastmcp", port, "/mcp", pid=pid)


@contextlib.contextmanager
def mcp_proxy(upstream_port: int, path: str, core: int, out: Path) -> Iterator[Target]:
    """mcp-proxy as HTTP server in front of mcp-proxy as HTTP client, which is how it bridges HTTP."""
    binary, port = str(peer("mcp-proxy", out) / "mcp-proxy"), free_port()
    url = f"http://127.0.0.1:{upstream_port}{path}"
    command = [binary, "--port", str(port), "--log-level", "ERROR", "--"]
    command += [binary, "--transport", "streamablehttp", "--log-level", "ERROR", url]
    with started(command, port, core, out / "mcp-proxy.log", {}) as pid:
        yield Target("mcp-proxy", port, "/mcp/", pid=pid, eras=(LEGACY,))


@contextlib.contextmanager
def exeat(upstream_port: int, path: str, core: int, out: Path, **settings: str) -> Iterator[Target]:
    """A home with 1,000 policies in force, then `exeat up`."""
    home, port = out / "exeat-home", free_port()
    shutil.rmtree(home, ignore_errors=True)
    bearer = prepare_home(home, f"http://127.0.0.1:{upstream_port}{path}")
    command = [str(Path(sys.executable).with_name("exeat")), "up", "--home", str(home)]
    command += ["--port", str(port)]
    env = {
        f"EXEAT_{name.upper()}": value for name, value in {"control_port": "0", **settings}.items()
    }
    with started(command, port, core, out / "exeat.log", env) as pid:
        yield Target("exeat", port, "/mcp/shop", "/mcp/bank", bearer, pid)


def prepare_home(home: Path, url: str) -> str:
    """Servers, pins, agents, policies; returns the calling agent's key."""
    sys.path.insert(0, str(TESTS))
    from homes import Home

    made = Home(home)
    for server in ("bank", "shop"):
        made.pin_all(made.server(server, url=url))
    for number in range(AGENTS - 1):
        made.agent(f"agent-{number}", ["shop"], groups=[f"g{number % GROUPS}"])
    bearer = made.agent(AGENT, ["bank", "shop"], groups=["g0"])
    made.policy(policies(POLICIES, tool_names(TOOLS_DEFAULT)))
    made.state.close()
    return bearer
