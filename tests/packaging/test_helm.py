"""The chart, rendered by Helm itself and validated against the schemas of Kubernetes."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, POSTGRESQL, Refused, pod, render
from requirements import requirement

from exeat.app.settings import Settings, load_settings
from exeat.evidence.keys import create_master, load_master


@pytest.fixture(scope="module")
def sqlite() -> dict[str, dict[str, Any]]:
    return render({"allowedHosts": ["gate.example"], "settings": {"upstream_answer_max_s": 60}})


@pytest.fixture(scope="module")
def postgresql() -> dict[str, dict[str, Any]]:
    peer = [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432}]}]
    return render({**POSTGRESQL, "serverSecrets": ["bank"], "networkPolicy": {"egress": peer}})


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
    assert set(sqlite) == {"StatefulSet", "Service", "NetworkPolicy", "ConfigMap"}
    assert set(postgresql) == {
        "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Job", "Service",
        "NetworkPolicy", "ConfigMap",
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
        assert each["scheme"] == "HTTP"


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


def settings_of(
    objects: dict[str, dict[str, Any]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """As the gateway in the pod reads them: its exeat.toml and its environment."""
    (workload,) = [objects[kind] for kind in ("StatefulSet", "Deployment") if kind in objects]
    home.mkdir(exist_ok=True)
    (home / "exeat.toml").write_text(objects["ConfigMap"]["data"]["exeat.toml"])
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
        return load_settings(home)


@requirement("REG-1")
def test_the_settings_are_those_that_the_gateway_understands(
    sqlite: dict[str, dict[str, Any]],
    postgresql: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settings_of(sqlite, tmp_path / "a", monkeypatch)
    assert found.host == "0.0.0.0" and {"gate.prod.svc", "gate.example"} <= found.allowed_hosts
    assert found.upstream_answer_max_s == 60 and found.database_url is None
    found = settings_of(postgresql, tmp_path / "b", monkeypatch)
    assert found.instance.startswith("gate-") and found.database_url and found.port == 8717
    kinds = {
        "connections_max": 2_000_000, "heartbeat_s": 0.25, "allowed_origins": ["https://a.example/<x>"],
    }  # fmt: skip
    found = settings_of(render({"settings": kinds}), tmp_path / "c", monkeypatch)
    assert (found.connections_max, found.heartbeat_s) == (2_000_000, 0.25)
    assert found.allowed_origins == {"https://a.example/<x>"}


@requirement("REG-1")
def test_a_change_of_settings_starts_new_pods(sqlite: dict[str, dict[str, Any]]) -> None:
    def mark(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
        found: dict[str, str] = objects["StatefulSet"]["spec"]["template"]["metadata"][
            "annotations"
        ]
        return found

    other = render({"podAnnotations": {"team": "iam"}})
    assert mark(other)["exeat/settings"] != mark(sqlite)["exeat/settings"]
    assert mark(other)["team"] == "iam"


@requirement("GW-14")
def test_tls_of_the_gateway_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render({"tls": {"existingSecret": "gate-tls"}})
    found = settings_of(objects, tmp_path / "home", monkeypatch)
    (container,) = pod(objects["StatefulSet"])["containers"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    for file, key in ((found.tls_certificate, "tls.crt"), (found.tls_key, "tls.key")):
        assert file is not None and mounts[str(file.parent)] == "tls" and file.name == key
    volumes = {each["name"]: each for each in pod(objects["StatefulSet"])["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "gate-tls"
    for probe in ("startup", "liveness", "readiness"):
        assert container[f"{probe}Probe"]["httpGet"]["scheme"] == "HTTPS"


@requirement("GW-12")
def test_the_init_containers_commands_do_what_they_are_for(
    sqlite: dict[str, dict[str, Any]], postgresql: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Run here with the same shell command: a home is made once; what is in it is ours alone."""
    secret, config = tmp_path / "secret", tmp_path / "config"
    config.mkdir()
    (config / "exeat.toml").write_text(sqlite["ConfigMap"]["data"]["exeat.toml"])
    create_master(secret / "master.key", os.urandom)
    create_master(secret / "state.key", os.urandom)
    for path in (*secret.iterdir(), *config.iterdir()):
        path.chmod(0o440)  # as Kubernetes mounts them with an fsGroup

    def start(objects: dict[str, dict[str, Any]], kind: str, home: Path) -> None:
        (init,) = pod(objects[kind])["initContainers"]
        *shell, lines = init["command"]
        lines = lines.replace("/run/exeat-keys", str(secret))
        lines = lines.replace("/run/exeat-config", str(config))
        home.parent.mkdir(exist_ok=True)
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {"PATH": programs, "EXEAT_HOME": str(home), "FIRST_PERSON": "ada"}
        for _ in range(2):  # each start of the pod
            subprocess.run([*shell, lines], env=env, check=True, capture_output=True)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        for path in (home / "exeat.toml", *(home / "keys").iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600  # also writable at the next start
        assert load_settings(home).allowed_hosts >= {"gate.prod.svc"}

    home = tmp_path / "v" / "home"
    start(sqlite, "StatefulSet", home)
    assert (home / "operator").read_text() == "ada\n" and not list((home / "keys").iterdir())
    given = render({"keys": {"existingSecret": "exeat-keys"}})
    for objects, kind in ((postgresql, "Deployment"), (given, "StatefulSet")):
        home = tmp_path / "w" / kind
        start(objects, kind, home)
        for name in ("master.key", "state.key"):
            assert load_master(home / "keys" / name)


@requirement("REG-1")
def test_the_schema_refuses_what_would_not_work(tmp_path: Path) -> None:
    for values in (
        {"mode": "mysql"},
        {"replicas": 3},
        {"mode": "postgresql"},
        {**POSTGRESQL, "keys": {"existingSecret": ""}},
        {"settings": {"instance": "x"}},
        {"settings": {"tls_key": "/x"}},
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
