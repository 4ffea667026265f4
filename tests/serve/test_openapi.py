import os
import subprocess
import sys
from pathlib import Path

import pytest

from ffaa.serve import openapi
from ffaa.serve.api import create_app
from ffaa.serve.keys import new_key
from ffaa.serve.problems import CODES
from ffaa.serve.results import AnalyzeReply, JobReply


@pytest.fixture
def described(settings, fake):
    return lambda **changes: create_app(settings(**changes), fake).openapi()


def test_the_examples_are_answers(described, tmp_path):
    paths = described(jobs=tmp_path)["paths"]
    ok = paths["/v1/analyze"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
    for example in ok.values():
        AnalyzeReply.model_validate(example["value"])
    job = paths["/v1/jobs/{job}"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    JobReply.model_validate(job)
    assert len(job["id"]) == 22


def test_every_error_has_an_example_of_its_status(described, tmp_path):
    found = described(jobs=tmp_path)
    for path, item in found["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if status[0] in "45" and path != "/healthz":
                    content = answer["content"]["application/json"]
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorReply"}, (path, status)
                    assert content["example"]["error"]["code"] == CODES[int(status)]
                    assert status not in {"429", "503"} or "Retry-After" in answer["headers"]
    assert set(openapi.MESSAGES) | {405, 500} == set(CODES)


def test_it_says_what_the_settings_make_of_it(described, tmp_path):
    plain = described()
    assert not any("/jobs" in path for path in plain["paths"])
    assert "security" not in plain["paths"]["/v1/analyze"]["post"]

    def body(found, path="/v1/analyze"):
        return found["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]

    assert body(plain)["required"] == ["file"]
    assert set(body(plain)["properties"]) == {"file", "whole_image", "evidence"}
    assert "url" in body(described(allow_urls=True))["properties"]
    assert body(described(jobs=tmp_path, job_files=7), "/v1/jobs")["properties"]["files"]["maxItems"] == 7
    new_key(tmp_path / "keys")
    keyed = described(keys=tmp_path / "keys", jobs=tmp_path)["paths"]
    assert {path for path, item in keyed.items() for o in item.values() if "security" not in o} == {"/healthz"}
    assert body(described())["required"] == ["file"]  # the others have left no trace


def test_schemathesis_finds_nothing(start, tmp_path):
    """Every phase and check of it, few examples; the long run is in docs/serve.md."""
    key = new_key(tmp_path / "keys")
    server = start(keys=tmp_path / "keys", jobs=tmp_path / "jobs", waiting_files=10**6)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--no-color", "-n", "3",
               "--seed", "1", "-H", f"Authorization: Bearer {key}"]  # fmt: skip
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(Path(__file__).parent / "schemathesis_hooks.py")}
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "No issues found" in found.stdout
    text = server.client.get("/metrics", headers={"authorization": f"Bearer {key}"}).text
    expected = [
        ("POST", "/v1/analyze", 200), ("POST", "/v1/analyze", 401), ("POST", "/v1/jobs", 202),
        ("GET", "/v1/jobs/{job}", 200), ("DELETE", "/v1/jobs/{job}", 204),
    ]  # fmt: skip
    for method, route, status in expected:
        assert f'ffaa_requests_total{{method="{method}",route="{route}",status="{status}"}}' in text
    assert 'status="5' not in text
