import json

from ffaa.types import Failure


def test_schema_is_discriminated_by_kind(run):
    schema = json.loads(run("schema").out)
    assert schema["discriminator"]["propertyName"] == "kind"
    assert set(schema["discriminator"]["mapping"]) == {"verdict", "no_face", "clip_verdict", "error"}
    assert "1.3" in schema["title"]
    verdict = schema["$defs"]["Verdict"]["properties"]
    assert {"label", "match_score", "forgery_score", "difficulty", "answers", "probabilities"} <= verdict.keys()
    assert {"examined", "sentences"} <= verdict.keys()
    assert set(Failure.model_fields) == schema["$defs"]["Failure"]["properties"].keys()
