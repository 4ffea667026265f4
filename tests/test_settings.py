import pytest
from pydantic import BaseModel, ConfigDict

from ffaa.errors import UsageError
from ffaa.settings import load_yaml


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    root: str
    frames: int | None = None


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    part: Part | None = None
    parts: list[Part] = []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x", "nam: Extra inputs are not permitted; did you mean 'name'?"),
        ("name: x\nparts: [{root: a}, {rot: b}]", "parts.1.rot: .*did you mean 'root'?"),
        ("name: x\npart: {root: a, frame: 3}", "part.frame: .*did you mean 'frames'?"),
        ("name: x\npart: {root: a, frames: many}", "part.frames: "),
        ("name: [", "not valid YAML"),
        ("- a", "r.yaml: Input should be"),
    ],
)
def test_errors_name_the_place(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        load_yaml(tmp_path / "r.yaml", Whole)
    assert "\n" not in str(error.value)


def test_settings(tmp_path):
    (tmp_path / "r.yaml").write_text("name: x\nparts: [{root: a}]\n")
    assert load_yaml(tmp_path / "r.yaml", Whole) == Whole(name="x", parts=[Part(root="a")])
    with pytest.raises(UsageError, match="no such recipe"):
        load_yaml(tmp_path / "none.yaml", Whole)
    (tmp_path / "b.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_yaml(tmp_path / "b.yaml", Whole)
