"""What the documents say is what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ffaa.cli.main import main

ROOT = Path(__file__).parent.parent


def test_the_documented_schema_is_the_printed_one(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((ROOT / "docs/verdict.schema.json").read_text())


def test_every_file_the_readme_maps_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", readme, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 10
    known = [ROOT, ROOT / "src/ffaa"]
    assert [p for p in paths if not any((base / p).exists() for base in known)] == []


def test_every_picture_and_link_of_the_readme_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_recipe_is_listed():
    listed = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    recipes = [str(p.relative_to(ROOT / "recipes")) for p in (ROOT / "recipes").rglob("*.yaml")]
    assert recipes
    assert [name for name in recipes if f"`{name}`" not in listed] == []
