"""What the pods of the chart do, done here: the Job's command, the init container's, the gateway's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from charts import POSTGRESQL, pod, render
from faulting.database import Database
from gateways import TESTS, Server, Wire, environ, running, text
from homes import Home
from requirements import requirement

from exeat.evidence.keys import create_master
from exeat.evidence.verify import verify
from exeat.storage.ledger_postgres import PostgresLedgerReader, origins

PROGRAM = Path(sys.executable).with_name("exeat")


def prepare(objects: dict[str, Any], disk: Path, secret: Path) -> Path:
    """Run the init container's command on an empty disk.  Returns the home."""
    (init,) = pod(objects["Deployment"])["initContainers"]
    config = disk / "config"
    config.mkdir(parents=True)
    (config / "exeat.toml").write_text(objects["ConfigMap"]["data"]["exeat.toml"])
    *shell, lines = init["command"]
    lines = lines.replace("/run/exeat-keys", str(secret)).replace("/run/exeat-config", str(config))
    env = environ(EXEAT_HOME=str(disk / "home"), FIRST_PERSON="ada")
    subprocess.run([*shell, lines], env=env, check=True)
    return disk / "home"


class Pod(Server):
    """The gateway of a pod, on a disk of its own and under the name that Kubernetes gives it."""

    def __init__(self, objects: dict[str, Any], home: Path, name: str, url: str) -> None:
        self.env = environ(EXEAT_HOME=str(home), EXEAT_INSTANCE=name, EXEAT_DATABASE_URL=url)
        (container,) = pod(objects["Deployment"])["containers"]
        assert {each["name"] for each in container["env"]} <= set(self.env)
        argv = [str(PROGRAM), *container["args"], "--port", "0"]
        super().__init__(argv, "exeat is up: ", self.env)
        self.port = int(self.line.split(":")[3].split("/")[0])

    def problems(self) -> list[str]:
        env = {**self.env, "EXEAT_PORT": str(self.port)}
        argv = [PROGRAM, "doctor", "--json"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        return [each["id"] for each in json.loads(done.stdout) if each["status"] == "problem"]


@requirement("EVD-1", "REG-3")
def test_two_pods_on_one_database(database: Database, tmp_path: Path) -> None:
    objects, names = render(POSTGRESQL), ("gate-7d9f8b6c5d-x2x4z", "gate-7d9f8b6c5d-k8s9q")
    for name in ("master.key", "state.key"):
        create_master(tmp_path / "keys" / name, os.urandom)
    desk = Home(tmp_path / "desk", database.url)
    program = [sys.executable, str(TESTS / "e2e" / "matrix_server.py"), "--stdio"]
    desk.pin_all(desk.server("m", command=program))
    desk.policy('@id("all") permit(principal, action, resource);')
    key = desk.agent("bot", ["m"])
    desk.state.close()
    (job,) = pod(objects["Job"])["containers"]
    env = environ(EXEAT_HOME=str(tmp_path / "job"), EXEAT_DATABASE_URL=database.url)
    subprocess.run([PROGRAM, *job["args"]], env=env, check=True, capture_output=True)
    homes = [prepare(objects, tmp_path / name, tmp_path / "keys") for name in names]
    with (
        running(Pod(objects, homes[0], names[0], database.url)) as one,
        running(Pod(objects, homes[1], names[1], database.url)) as two,
    ):
        for each in (one, two):
            wire = Wire(each.port, key, "/mcp/m")
            assert text(wire.call("add", a=1, b=2)) == "3"
            wire.http.close()
            assert each.problems() == []
        assert one.stop() == two.stop() == 0
    assert origins(database.url) == sorted(f"exeat/{name}" for name in names)
    for origin in origins(database.url):
        reader = PostgresLedgerReader(database.url, origin)
        assert verify(reader).sound
        reader.close()
