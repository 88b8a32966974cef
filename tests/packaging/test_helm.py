"""The chart, rendered by Helm itself and validated against the schemas of Kubernetes."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from requirements import requirement

from exeat.app.settings import Settings, load_settings
from exeat.evidence.keys import create_master, load_master

ROOT = Path(__file__).parents[2]
CHART = ROOT / "packaging" / "helm" / "exeat"
PYTHON = ROOT / ".tools" / "packaging" / "bin" / "python"
POSTGRESQL = {
    "mode": "postgresql",
    "postgresql": {"existingSecret": "db"},
    "keys": {"existingSecret": "exeat-keys"},
}


class Refused(Exception):
    pass


def render(values: dict[str, Any], chart: Path = CHART) -> dict[str, dict[str, Any]]:
    """Kind → object; there is at most one of a kind."""
    if not PYTHON.exists():
        pytest.skip("the packaging tools are not installed: make packaging")
    script = Path(__file__).with_name("render_chart.py")
    done = subprocess.run(
        [PYTHON, "-W", "ignore", script, chart, json.dumps(values)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    objects = json.loads(done.stdout)["objects"]
    assert len({each["kind"] for each in objects}) == len(objects)
    return {each["kind"]: each for each in objects}


@pytest.fixture(scope="module")
def sqlite() -> dict[str, dict[str, Any]]:
    return render({"allowedHosts": ["gate.example"], "settings": {"upstream_answer_max_s": 60}})


@pytest.fixture(scope="module")
def postgresql() -> dict[str, dict[str, Any]]:
    peer = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432}]}]
    return render({**POSTGRESQL, "serverSecrets": ["bank"], "networkPolicy": {"egress": peer}})


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found


def containers(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for kind in ("StatefulSet", "Deployment", "Job"):
        if kind in objects:
            spec = pod(objects[kind])
            found += [*spec["containers"], *spec.get("initContainers", [])]
    return found


@requirement("GW-12")
def test_each_mode_has_its_objects(
    sqlite: dict[str, dict[str, Any]], postgresql: dict[str, dict[str, Any]]
) -> None:
    assert set(sqlite) == {"StatefulSet", "Service", "NetworkPolicy"}
    assert set(postgresql) == {
        "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Job", "Service",
        "NetworkPolicy",
    }  # fmt: skip
    assert sqlite["StatefulSet"]["spec"]["replicas"] == 1  # one ledger has one writer
    assert sqlite["StatefulSet"]["spec"]["volumeClaimTemplates"]
    assert "replicas" not in postgresql["Deployment"]["spec"]  # the autoscaler's
    assert "pre-upgrade" in postgresql["Job"]["metadata"]["annotations"]["helm.sh/hook"]


@requirement("GW-12")
def test_every_container_is_confined(
    sqlite: dict[str, dict[str, Any]], postgresql: dict[str, dict[str, Any]]
) -> None:
    found = containers(sqlite) + containers(postgresql)
    assert len(found) == 5
    for each in found:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["limits"]["memory"]
    for workload in (sqlite["StatefulSet"], postgresql["Deployment"], postgresql["Job"]):
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False  # a Service `exeat` would set EXEAT_PORT
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@requirement("GW-14")
def test_probes_ask_what_the_gateway_answers_with_a_host_that_it_serves(
    sqlite: dict[str, dict[str, Any]],
) -> None:
    (container,) = pod(sqlite["StatefulSet"])["containers"]
    paths = {
        name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert [each["path"] for each in paths.values()] == ["/healthz", "/healthz", "/readyz"]
    for each in paths.values():
        assert each["httpHeaders"] == [{"name": "Host", "value": "localhost"}]


@requirement("GW-14")
def test_selectors_meet_the_pods_and_never_the_migration(
    postgresql: dict[str, dict[str, Any]],
) -> None:
    gateway = postgresql["Deployment"]["spec"]["template"]["metadata"]["labels"]
    migration = postgresql["Job"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        postgresql["Service"]["spec"]["selector"],
        postgresql["Deployment"]["spec"]["selector"]["matchLabels"],
        postgresql["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        postgresql["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= gateway.items()
        assert not selector.items() <= migration.items()
    assert postgresql["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gate"


@requirement("GW-14")
def test_nothing_goes_out_but_what_is_named(
    sqlite: dict[str, dict[str, Any]], postgresql: dict[str, dict[str, Any]]
) -> None:
    policy = sqlite["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and len(policy["egress"]) == 1
    assert {each["port"] for each in policy["egress"][0]["ports"]} == {53}
    assert len(postgresql["NetworkPolicy"]["spec"]["egress"]) == 2
    assert "NetworkPolicy" not in render({"networkPolicy": {"enabled": False}})


@requirement("REG-1")
def test_the_environment_is_one_that_the_gateway_understands(
    sqlite: dict[str, dict[str, Any]],
    postgresql: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for workload in (sqlite["StatefulSet"], postgresql["Deployment"]):
        with monkeypatch.context() as patched:
            for name in [name for name in os.environ if name.startswith("EXEAT_")]:
                patched.delenv(name)
            for each in pod(workload)["containers"][0]["env"]:
                source = each.get("valueFrom", {})
                secret = "postgresql://u@h/d" if "secretKeyRef" in source else ""
                field = "gate-7d9f8b6c5d-x2x4z" if "fieldRef" in source else ""
                patched.setenv(each["name"], each.get("value") or secret or field)
                name = each["name"].removeprefix("EXEAT_").lower()
                assert name == "home" or name in Settings.model_fields, name
            found = load_settings(tmp_path)
            assert found.host == "0.0.0.0" and "gate.prod.svc" in found.allowed_hosts
            if workload["kind"] == "Deployment":
                assert found.instance.startswith("gate-") and found.database_url
            else:
                assert found.upstream_answer_max_s == 60 and "gate.example" in found.allowed_hosts


@requirement("GW-12")
def test_the_init_containers_commands_do_what_they_are_for(
    sqlite: dict[str, dict[str, Any]], postgresql: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Run here with the same shell command: a home is made once; keys are readable by us alone."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": programs, "EXEAT_HOME": str(tmp_path / "v" / "home"), "FIRST_PERSON": "ada"}
    (tmp_path / "v").mkdir()
    (init,) = pod(sqlite["StatefulSet"])["initContainers"]
    for _ in range(2):
        subprocess.run(init["command"], env=env, check=True, capture_output=True)
    assert (tmp_path / "v" / "home" / "operator").read_text() == "ada\n"
    secret = tmp_path / "secret"
    create_master(secret / "master.key", os.urandom)
    create_master(secret / "state.key", os.urandom)
    for path in secret.iterdir():
        path.chmod(0o440)  # as Kubernetes mounts it with an fsGroup
    (init,) = pod(postgresql["Deployment"])["initContainers"]
    *shell, line = init["command"]
    env["EXEAT_HOME"] = str(tmp_path / "v" / "other")
    line = line.replace("/run/exeat-keys", str(secret))
    subprocess.run([*shell, line], env=env, check=True)
    for name in ("master.key", "state.key"):
        assert load_master(tmp_path / "v" / "other" / "keys" / name)
    assert stat.S_IMODE((tmp_path / "v" / "other").stat().st_mode) == 0o700


@requirement("REG-1")
def test_the_schema_refuses_what_would_not_work(tmp_path: Path) -> None:
    for values in (
        {"mode": "mysql"},
        {"replicas": 3},
        {"mode": "postgresql"},
        {**POSTGRESQL, "keys": {"existingSecret": ""}},
        {"settings": {"instance": "x"}},
        {"image": {"repository": "exeat", "digest": "latest"}},
        {"persistence": {"accessModes": ["ReadWriteMany"]}},
    ):
        with pytest.raises(Refused):
            render(values)
    bent = shutil.copytree(CHART, tmp_path / "exeat")
    service = bent / "templates" / "network.yaml"
    service.write_text(service.read_text().replace("sessionAffinity", "sessionAfinity"))
    with pytest.raises(Refused, match="sessionAfinity"):
        render({}, bent)
