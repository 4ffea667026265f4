"""What the documents and the container and service files say is so."""

import re
from pathlib import Path

import yaml

from ffaa.serve import settings as module
from ffaa.serve.problems import CODES
from ffaa.serve.settings import ServeSettings
from ffaa.settings import load_yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def test_the_settings_in_the_document_are_those_there_are():
    """To mend it: python -c 'from ffaa.serve.settings import table; print(table())'"""
    assert (ROOT / "docs/serve.md").read_text().endswith(module.table() + "\n")
    assert all(field.description for field in ServeSettings.model_fields.values())


def test_every_error_is_in_the_document():
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", (ROOT / "docs/serve.md").read_text(), re.MULTILINE)
    told = {int(status): codes for status, codes in rows}
    assert set(told) == set(CODES) - {405}
    for status, codes in told.items():
        assert f"`{CODES[status]}`" in codes
    source = "".join(path.read_text() for path in (ROOT / "src/ffaa/serve").glob("*.py"))
    for code in re.findall(r'ApiError\(\d+, [^\n]*"([a-z_]+)"(?:, [^"\n]*)?\)', source):
        assert any(f"`{code}`" in codes for codes in told.values()) or code == "gone", code


def test_the_image_runs_without_rights_on_the_cpu_build():
    lines = (DEPLOY / "Dockerfile").read_text()
    user = re.findall(r"^USER (\S+)", lines, re.MULTILINE)
    assert user
    assert user[-1] not in {"0", "root"}
    assert lines.index("\nUSER") < lines.index("ENTRYPOINT")
    pinned = re.search(r"torch==\S+", (ROOT / "Makefile").read_text())[0]
    assert f"{pinned} --index-url https://download.pytorch.org/whl/cpu" in lines
    assert lines.index("whl/cpu") < lines.index("'.[serve]'")
    for wheel in re.findall(r"--no-deps (\S+)", (ROOT / "Makefile").read_text()):
        assert wheel in lines
    for copied in re.findall(r"^COPY (.+) \S+$", lines, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in (ROOT / ".dockerignore").read_text().split("\n")


def test_the_containers_may_do_nothing_else():
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(found["services"]) == {"ffaa", "worker"}
    for service in found["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["volumes"] == ["jobs:/var/lib/ffaa"]
        assert "environment" not in service
    assert found["services"]["ffaa"]["ports"] == ["127.0.0.1:7860:7860"]
    assert "ports" not in found["services"]["worker"]
    inside = load_yaml(DEPLOY / "serve.yaml", ServeSettings)
    assert (str(inside.jobs), str(inside.keys), inside.no_keys) == ("/var/lib/ffaa", "/run/secrets/ffaa_keys", False)
    grace = float(found["services"]["ffaa"]["stop_grace_period"].removesuffix("s"))
    assert grace > inside.seconds + inside.body_seconds + inside.drain_seconds


def test_the_service_has_a_user_of_its_own_and_one_folder():
    text = (DEPLOY / "ffaa.service").read_text()
    options = dict(line.split("=", 1) for line in text.split("\n") if "=" in line and not line.startswith("#"))
    expected = {"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "",
                "StateDirectory": "ffaa", "PrivateTmp": "yes", "IPAddressDeny": "any"}  # fmt: skip
    assert expected.items() <= options.items()
    defaults = ServeSettings()
    assert float(options["TimeoutStopSec"]) > defaults.seconds + defaults.body_seconds
    assert "--keys %d/keys" in options["ExecStart"]


def test_no_secrets_lie_about():
    for path in DEPLOY.iterdir():
        text = path.read_text()
        assert "ffaa_keys" in text or "ffaa_" not in text
        assert not re.search(r"[0-9a-f]{40}|BEGIN .*PRIVATE", text)
