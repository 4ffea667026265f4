"""Other models: an endpoint, served here, and a tiny random LLaVA, made here."""

import base64
import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from tests.vqa.openai_server import ANSWER, error, serve
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from ffaa.errors import FFAAError, InputError, UsageError
from ffaa.eval.asked import Asked, plain_name, prompt
from ffaa.eval.asked_local import ImageTextModel
from ffaa.eval.benchmark import BenchRecipe
from ffaa.eval.detectors import About, load_detectors
from ffaa.eval.figures import make_result
from ffaa.eval.run import run
from ffaa.eval.tables import tables
from ffaa.mllm.answer import parse_plain
from ffaa.mllm.llava_tiny import _tokenizer
from ffaa.types import Box, Crop, Face, ForgeryType, Label
from ffaa.vqa.teachers.chat import Reply

REAL, FAKE = Label.REAL, Label.FAKE
FORGED = ANSWER.replace("result: real", "result: fake").replace("type: Real", "type: Identity exchange")
ABOUT = About(kind="asked", files={}, image_size=None, parameters=None, device="x")
SORRY = "I'm sorry, but I can't help with identifying people."


def face(value=100, size=64):
    box = Box(left=0, top=0, right=size, bottom=size)
    return Face(np.full((size, size, 3), value, np.uint8), box, Crop(region=box, padding=0, size=size))


def made(cot, plain):
    """A detector whose model says so."""
    told = {prompt("ask_cot.txt"): cot, prompt("ask_plain.txt"): plain}
    return Asked("m", lambda images, text: [told[text]] * len(images), ABOUT)


# --- what answers say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Real", REAL),
        ("**Fake.** The eyes do not match.", FAKE),
        ("fake - the skin is too smooth, although the light is real", FAKE),
        ("The image appears to be a real human face.", REAL),
        ("This looks AI-generated.", FAKE),
        ("A woman smiles.\nThe face is genuine.", REAL),
        ("Real or fake? Hard to tell.", None),
        ("Real-looking, but fake", None),
        ("The face is not real.", None),
        ("It could be fake.", None),
        ("I cannot determine whether this is real or fake.", None),
        ("It is a face.", None),
        ("Really nice.", None),
        ("", None),
    ],
)
def test_plain_answers(text, label):
    found = parse_plain(text)
    assert found == label if label else isinstance(found, str) and not isinstance(found, Label)


def test_both_prompts_are_read():
    one = made(Reply(text=FORGED), Reply(text="Real, I think."))
    found = one.judge([face(), face()])
    assert one.rows == ("m", "m/plain")
    assert len(found) == 2
    says = found[0].says
    assert (says["m"].label, says["m"].score) == (FAKE, 0.9)
    assert (says["m/plain"].label, says["m/plain"].score) == (REAL, 0)
    assert found[0].said_type is ForgeryType.IDENTITY_EXCHANGE
    assert found[0].words == {"m": FORGED, "m/plain": "Real, I think."}
    assert {"ask_cot.txt", "ask_plain.txt"} == one.about.files.keys()


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (Reply(text=SORRY), True),
        (Reply(text="", finish="content_filter", refusal="no faces"), True),
        (Reply(text="It is a face."), False),
        (Reply(text="The person is smil", finish="length"), False),
    ],
)
def test_refused_and_unread_are_told_apart(reply, refused):
    for says in made(reply, reply).judge([face()])[0].says.values():
        assert (says.label, says.score, says.refused) == (None, 0.5, refused)


def test_refusals_are_wrong_and_counted(tiny_manifest, tmp_path):
    """Real photos are refused, the others called fake."""
    recipe = BenchRecipe(name="t", per_class=2)
    asked = made(Reply(text=FORGED), Reply(text=SORRY))
    found = run(recipe, tiny_manifest, [asked], tmp_path)
    for outcome in found["m"]:
        if outcome.label is REAL:
            declined = outcome.says["m"].model_copy(update={"label": None, "score": 0.5, "refused": True})
            outcome.says["m"] = declined
    result = make_result(recipe, found, [asked], "x", 8, 20)
    of, plain = (result.pools["ALL"].rows[row] for row in ("m", "m/plain"))
    assert (of.acc, of.acc_answered, of.refused, of.unread) == (0.5, 1.0, 4, 0)
    assert (plain.acc, plain.acc_answered, plain.refused) == (0, None, 8)
    shown = {table.title: table for table in tables(result)}
    assert [row[:4] for row in shown["Refusals"].rows if row[0] == "ALL"] == [["ALL", "m", "4", "0"],
                                                                             ["ALL", "m/plain", "8", "0"]]  # fmt: skip
    assert result.photos.answers == {}  # one answer: nothing is easy or hard
    assert shown["Detectors"].rows[0][2:4] == ["-", "-"]


def test_explanations(hopper):
    crop = np.ascontiguousarray(hopper[110:350, 150:390])
    whole = Face(crop, Box(left=40, top=40, right=200, bottom=200), Crop(region=Box(left=0, top=0, right=240,
                 bottom=240), padding=40, size=240))  # fmt: skip
    found = made(Reply(text=ANSWER), Reply(text="")).explain(whole)
    assert found.label is REAL
    assert [s.text for s in found.sentences][:2] == ["A woman looks at the camera.", "Her hair is short."]
    assert found.heat is None
    unread = made(Reply(text=SORRY), Reply(text="")).explain(whole)
    assert (unread.label, unread.chosen, unread.sentences) == (None, None, [])


# --- an endpoint -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-word")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(server, settings...) -> the detector; waiting between attempts takes no time."""
    monkeypatch.setattr("ffaa.eval.asked_endpoint.back_off", lambda attempt, rng: 0.0)

    def call(server, **settings):
        (tmp_path / "asking.yaml").write_text("".join(f"{k}: {v}\n" for k, v in settings.items()))
        which = f"openai:some/model@{server.url}"
        return load_detectors([which], "cpu", tmp_path / "asking.yaml", tmp_path / "r" / "replies.sqlite")[0]

    return call


def _image(body):
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def test_the_crop_and_the_prompt_are_sent(load):
    with serve() as server:
        one = load(server)
        found = one.judge([face(10), face(200)])
    assert one.name == "some-model"
    assert [f.says["some-model"].label for f in found] == [REAL, REAL]
    assert len(server.requests) == 4
    asked = {(body["messages"][0]["content"][0]["text"], int(_image(body)[0, 0, 0])) for body in server.requests}
    assert asked == {(prompt(name), v) for name in ("ask_cot.txt", "ask_plain.txt") for v in (10, 200)}
    assert all(_image(body).shape == (64, 64, 3) for body in server.requests)
    assert server.requests[0]["temperature"] == 0
    assert server.headers[0]["authorization"] == "Bearer secret-word"
    assert "secret-word" not in one.about.model_dump_json()


def test_replies_are_paid_for_once(load):
    with serve() as server:
        one = load(server)
        first = one.judge([face(10)])
        assert len(server.requests) == 2
        again = load(server).judge([face(10), face(11)])  # as after a kill
        assert len(server.requests) == 4
        assert again[0].words == first[0].words
        load(server, temperature="null", send_seed="false").judge([face(10)])  # other settings are other requests
        assert len(server.requests) == 6
        assert {"temperature", "seed"}.isdisjoint(server.requests[-1])


def test_a_failing_server_is_asked_again_and_nothing_is_guessed(load):
    with serve(lambda seed, attempt: (500, error("busy"), {}) if attempt < 3 else None) as server:
        assert load(server, concurrency=1).judge([face()])[0].says["some-model"].label is REAL
    with serve(lambda seed, attempt: (500, error("busy"), {})) as server:
        with pytest.raises(InputError, match="500: busy; given up after 3 attempts, run again: replies are kept"):
            load(server, retries=2, concurrency=1).judge([face(1)])
        assert len(server.requests) == 3


def test_what_a_filter_declines_is_a_refusal(load):
    with serve(lambda seed, attempt: (400, error("no faces", "content_filter"), {})) as server:
        says = load(server).judge([face()])[0].says
    assert {(s.label, s.refused) for s in says.values()} == {(None, True)}


@pytest.mark.parametrize(("status", "told"), [(401, "the key is not accepted"), (404, "no model"), (400, "400: odd")])
def test_errors_end_the_run_at_once(load, status, told):
    with serve(lambda seed, attempt: (status, error("odd"), {})) as server:
        with pytest.raises(FFAAError, match=told):
            load(server, concurrency=1).judge([face(), face(2)])
        assert len(server.requests) == 1


def test_no_more_requests_at_a_time_than_allowed(load):
    gate = threading.Barrier(2, timeout=20)

    def script(seed, attempt):
        gate.wait()

    with serve(script) as server:
        load(server, concurrency=2).judge([face(v) for v in range(4)])
    assert server.most == 2


def test_a_killed_benchmark_pays_for_nothing_twice(load, tiny_manifest, tmp_path):
    recipe = BenchRecipe(name="t", per_class=1, in_domain_per_class=1)

    def broke(seed, attempt):
        return None if attempt < 7 else (402, error("no money"), {})

    with serve(broke) as server, pytest.raises(UsageError, match="no money left"):
        run(recipe, tiny_manifest, [load(server, concurrency=1)], tmp_path / "r", 1)
    paid = len(server.answered)
    assert paid == 7
    with serve() as second:
        # the address is part of what names a reply, so the second server must stand in for the first
        one = load(server, concurrency=1)
        one._ask._endpoint.client = load(second, concurrency=1)._ask._endpoint.client
        found = run(recipe, tiny_manifest, [one], tmp_path / "r", 1)["some-model"]
    assert len(found) == 6
    assert len(second.requests) == 2 * 6 - paid


def test_what_is_no_endpoint(monkeypatch, tmp_path):
    for which in ("openai:model", "openai:@http://x/v1", "openai:model@"):
        with pytest.raises(UsageError, match="give openai:MODEL@URL"):
            load_detectors([which], "cpu", None, tmp_path / "r")
    with pytest.raises(UsageError, match="no password in the address"):
        load_detectors(["openai:m@http://me:word@host/v1"], "cpu", None, tmp_path / "r")
    (tmp_path / "a.yaml").write_text("retrys: 3\n")
    with pytest.raises(UsageError, match="did you mean 'retries'"):
        load_detectors(["openai:m@http://h/v1"], "cpu", tmp_path / "a.yaml", tmp_path / "r")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        load_detectors(["openai:m@http://h/v1"], "cpu", None, tmp_path / "r")


def test_names():
    assert plain_name("org/model:7b") == "org-model-7b"
    assert plain_name("../x") == "-x".lstrip("-")
    assert plain_name("//") == "model"


# --- a folder --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random LLaVA of transformers: 56 px images, 16 image tokens, a tokenizer of bytes."""
    from transformers import CLIPImageProcessorPil

    root = tmp_path_factory.mktemp("llava")
    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, image_size=56,
                                       num_attention_heads=4, patch_size=14, projection_dim=16),
        text_config=LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                num_attention_heads=4, max_position_embeddings=4096),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=16,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(root)
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(root)  # fmt: skip
    return root


def test_a_model_of_transformers(folder):
    one = load_detectors([f"tiny=hf:{folder}"], "cpu", None, None)[0]
    one._ask._max = 12
    found = one.judge([face(10), face(200)])
    assert one.name == "tiny"
    assert one.about.parameters > 1000
    assert "model.safetensors" in one.about.files
    assert found[0].words["tiny"]
    assert found[0].words != found[1].words  # it looks at the image
    assert [f.words for f in found] == [one.judge([face(v)])[0].words for v in (10, 200)]  # alone or beside others
    assert found[0].words["tiny"] != found[0].words["tiny/plain"]
    assert all(says.label is None for f in found for says in f.says.values())  # random bytes say nothing


def test_the_models_own_chat_template_is_used(folder):
    model = ImageTextModel(folder, "cpu", 4)
    assert model._text("Why?") == "USER: <image>\nWhy? ASSISTANT:"
    model._processor.chat_template = "{% for m in messages %}[{{ m.content[1].text }}|<image>]{% endfor %}"
    assert model._text("Why?") == "[Why?|<image>]"
    assert len(model([face().image], "Why?")) == 1


def test_folders_that_are_no_such_model(tmp_path):
    with pytest.raises(UsageError, match=r"no config.json in it"):
        load_detectors([f"hf:{tmp_path}"], "cpu")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="not an image-text model that can be loaded") as caught:
        load_detectors([f"hf:{tmp_path}"], "cpu")
    assert "\n" not in str(caught.value)
