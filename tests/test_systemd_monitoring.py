"""Monitoring under a real systemd: the metrics unit at work, and what check and doctor say of the host's agent."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser

from d7agent.sandbox import Sandbox, Settings
from tests.support.sources import ROOT
from tests.support.systemd_session import COMMAND, OTHER, SystemManager

FOLDER = "/var/lib/prometheus/node-exporter"
parse: Callable[[str], Iterable[Metric]] = parser.text_string_to_metric_families
UNITS = ("d7agent-metrics.service", "d7agent-metrics.timer")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def host(box: Sandbox) -> Iterator[SystemManager]:
    """The host's agent installed, with a credential and the units for metrics."""
    with SystemManager() as manager:
        manager.write("/etc/credstore/d7agent.client_id", "sandbox-id", mode="600")
        manager.write("/etc/credstore/d7agent.client_secret", "sandbox-secret", mode="600")
        manager.write("/etc/d7agent/profiles/default.toml", f'base_url = "{box.url}"\nstore = "directory:%d"\n')
        manager.out("d7agent", "service", "install", "--system")
        manager.out("mkdir", "-p", FOLDER)
        for unit in UNITS:
            text = (ROOT / "systemd" / "system" / unit).read_text().replace("/usr/bin/d7agent", COMMAND)
            manager.write(f"/etc/systemd/system/{unit}", text)
        manager.out("systemctl", "daemon-reload")
        yield manager


def metrics(host: SystemManager) -> dict[str, float]:
    families = parse(host.out("cat", f"{FOLDER}/d7agent.prom") + "\n")
    return {sample.name: sample.value for family in families for sample in family.samples}


def findings(host: SystemManager, user: str = "root") -> list[dict[str, Any]]:
    return list(json.loads(host.run("d7agent", "doctor", "--json", user=user).stdout)["findings"])


def test_the_metrics_unit_does_its_work_within_its_walls(host: SystemManager) -> None:
    """The timer's service writes the file for everybody to read; with the agent gone the file says so and it fails."""
    host.out("d7agent", "token")
    host.out("systemctl", "start", UNITS[0])
    found = metrics(host)
    assert (found["d7agent_up"], found["d7agent_token_left_seconds"] > 500) == (1, True)
    assert host.out("stat", "--format=%a %U", f"{FOLDER}/d7agent.prom") == "644 root"
    assert host.out("ls", "-A", FOLDER) == "d7agent.prom"
    host.out("systemctl", "enable", "--now", UNITS[1])
    assert host.out("systemctl", "is-active", UNITS[1]) == "active"

    host.out("systemctl", "stop", "d7agent.socket", "d7agent.service")
    assert host.run("systemctl", "start", UNITS[0]).returncode != 0
    assert metrics(host) == {"d7agent_up": 0}


def test_doctor_and_check_of_the_hosts_agent(host: SystemManager, box: Sandbox) -> None:
    """Root sees all well, [access] by user and unit included; who is not let in is told so, and so is a socket off."""
    host.write("/etc/d7agent/config.toml", f'[access]\nusers = ["{OTHER}"]\nunits = ["cron.service"]\n')
    host.out("d7agent", "token")
    found = findings(host)
    assert [one for one in found if one["level"] != "ok"] == []
    assert {"socket", "agent", "version", "units", "config", "file-mode", "access", "network"} <= {
        f["id"] for f in found
    }
    assert host.run("d7agent", "check", user=OTHER).returncode == 0

    host.write("/etc/d7agent/config.toml", "")
    host.out("d7agent", "reload")
    denied = host.run("d7agent", "check", user=OTHER)
    assert (denied.returncode, f'users = ["{OTHER}"]' in denied.stdout) == (2, True)
    assert [one["remedy"] for one in findings(host, OTHER) if one["id"] == "agent"] == [
        f'as root, add users = ["{OTHER}"] under [access] in /etc/d7agent/config.toml, then run d7agent reload'
    ]

    host.out("systemctl", "disable", "--now", "d7agent.socket")
    host.out("systemctl", "stop", "d7agent.service")
    sick = [one for one in findings(host) if one["level"] != "ok"]
    assert {"agent", "units"} <= {one["id"] for one in sick}
    assert "systemctl enable --now d7agent.socket" in [one["remedy"] for one in sick]
    assert box.stats.logins == 1
