from functools import lru_cache

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ffaa.errors import UsageError
from ffaa.mllm.answer import format_answer, parse_answer, parse_strict
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.types import Answer, ForgeryType, Label, Role

TEXTS = [
    format_answer(f"A person {n} with “curly” hair.", f"The jaw is blurred; {n} seams.", label, n / 50, kind)
    for n in range(50)
    for label, kind in ((Label.REAL, ForgeryType.REAL), (Label.FAKE, ForgeryType.ENTIRE_FACE_SYNTHESIS))
] + [format_answer("été 面", "x.\n", Label.FAKE, 0.5, kind) for kind in ForgeryType]
SPECIAL = ["<unk>", "<s>", "</s>", "<image>"]


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def byte_level_bpe(newline_merges: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    if newline_merges:  # as in Llama 3, where '.\n' is one token
        split = pre_tokenizers.Split(Regex(r" ?[^\s\w]+\n*| ?\w+|\s+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrap(tokenizer)


def unigram() -> PreTrainedTokenizerFast:
    """Sentencepiece-like: Metaspace, a prefix space, digits alone, bytes as <0x0A>."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace("\t", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    trainer = trainers.UnigramTrainer(
        vocab_size=350, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False,
        initial_alphabet=[chr(c) for c in range(32, 127)] + ["\n"],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    return wrap(tokenizer)


def llama_like() -> PreTrainedTokenizerFast:
    """Llama 2: BPE over '▁' pieces with byte fallback; the newline exists only as <0x0A>."""
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(chr(c) for c in range(33, 127))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = []
    for left, right in (
        ("r", "e"),
        ("re", "a"),
        ("rea", "l"),
        ("▁", "real"),
        ("▁", "I"),
        ("▁I", "m"),
        ("0", "."),
        ("s", "u"),
    ):
        merges.append((left, right))
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrap(tokenizer)


MAKERS = {
    "byte level": byte_level_bpe,
    "byte level with '.newline'": lambda: byte_level_bpe(newline_merges=True),
    "unigram": unigram,
    "llama": llama_like,
}


@pytest.fixture(scope="module", params=MAKERS.values(), ids=MAKERS.keys())
def tokenizer(request):
    return request.param()


def generate(constraint: AnswerConstraint, seed: int, rows: int, vocab: int, boost: dict[int, float] | None = None):
    """Sampling from random logits, step by step; returns the token rows."""
    generator = torch.Generator().manual_seed(seed)
    state = constraint.start(rows)
    outputs: list[list[int]] = [[] for _ in range(rows)]
    for _ in range(constraint.max_new_tokens):
        logits = torch.randn(rows, vocab, generator=generator) * 3
        for index, value in (boost or {}).items():
            logits[:, index] += value
        masked = constraint.apply(state, logits)
        assert torch.isfinite(masked).any(-1).all()
        chosen = masked.argmax(-1)
        for row, forced in enumerate(constraint.forced(state)):
            assert (forced is not None) == (torch.isfinite(masked[row]).sum().item() == 1)
            assert forced is None or forced == chosen[row]
        for output, token, done in zip(outputs, chosen.tolist(), constraint.done(state), strict=True):
            if not done:
                output.append(token)
        constraint.advance(state, chosen)
        if all(constraint.done(state)):
            return outputs
    raise AssertionError("did not end within max_new_tokens")


@pytest.mark.parametrize("seed", range(5))
def test_random_logits_give_strict_answers(tokenizer, seed):
    constraint = AnswerConstraint(tokenizer, max_free_tokens=2 + seed * 3)
    special = set(tokenizer.all_special_ids)
    for tokens in generate(constraint, seed, rows=4, vocab=len(tokenizer) + 7):
        assert tokens[-1] == tokenizer.eos_token_id
        assert not special & set(tokens[:-1])
        text = constraint.decode(tokens)
        assert parse_strict(text) is not None, text
        answer = parse_answer(text, Role.ANCHOR, "q")
        assert isinstance(answer, Answer)
        assert answer.probability is not None
        assert (answer.forgery_type is ForgeryType.REAL) == (answer.result is Label.REAL)


def test_every_result_and_type_can_come_out(tokenizer):
    constraint = AnswerConstraint(tokenizer, max_free_tokens=2)
    seen = set()
    for seed in range(3):
        for tokens in generate(constraint, seed, rows=24, vocab=len(tokenizer)):
            answer = parse_answer(constraint.decode(tokens), Role.ANCHOR, "q")
            seen.add(answer.forgery_type)
    assert seen == set(ForgeryType)


@lru_cache
def roomy(tokenizer) -> AnswerConstraint:
    return AnswerConstraint(tokenizer, max_free_tokens=200)


@pytest.mark.parametrize("lead", ["", " "])
@pytest.mark.parametrize("text", TEXTS[:100:33])
def test_a_trained_answer_keeps_its_own_tokens(tokenizer, text, lead):
    """Any well-formed ASCII answer passes, tokenised as in training (after the prompt's last word)."""
    text = text.replace("“", "'").replace("”", "'")
    prompt = tokenizer.encode(":", add_special_tokens=False)
    full = tokenizer.encode(":" + lead + text, add_special_tokens=False)
    assert full[: len(prompt)] == prompt
    constraint = roomy(tokenizer)
    state = constraint.start(1)
    for token in [*full[len(prompt) :], tokenizer.eos_token_id]:
        assert constraint.mask(state)[0, token], (tokenizer.decode([token]), text)
        constraint.advance(state, [token])
    assert constraint.done(state) == [True]


def test_spaces_cannot_fill_a_text(tokenizer):
    constraint = AnswerConstraint(tokenizer, max_free_tokens=5)
    blank = {i: 100.0 for i in range(len(tokenizer)) if tokenizer.decode([i], skip_special_tokens=True).isspace()}
    for tokens in generate(constraint, 0, rows=2, vocab=len(tokenizer), boost=blank):
        values = parse_strict(constraint.decode(tokens))
        assert values is not None
        assert values["description"]
        assert values["reasoning"]


def test_rows_stand_alone():
    tokenizer = byte_level_bpe()
    constraint = AnswerConstraint(tokenizer)
    state = constraint.start(2)
    assert constraint.forced(state) == [None, None]  # with or without a leading space
    first = tokenizer.encode("Image", add_special_tokens=False)[0]
    other = tokenizer.encode(" Image", add_special_tokens=False)[0]
    constraint.advance(state, torch.tensor([first, other]))
    both = constraint.mask(state)
    swapped = constraint.mask(state.select([1, 0, 1]))
    assert torch.equal(swapped, both[[1, 0, 1]])


def test_refuses_a_token_that_was_not_allowed():
    tokenizer = byte_level_bpe()
    constraint = AnswerConstraint(tokenizer)
    with pytest.raises(ValueError, match="not allowed"):
        constraint.advance(constraint.start(1), [tokenizer.eos_token_id])
    with pytest.raises(UsageError, match="do not match"):
        constraint.apply(constraint.start(1), torch.zeros(1, 10))
    with pytest.raises(UsageError, match="at least 2"):
        AnswerConstraint(tokenizer, max_free_tokens=1)


def test_refuses_a_tokenizer_without_newline():
    tokenizer = Tokenizer(models.WordPiece({"<unk>": 0, "</s>": 1, "a": 2, "real": 3}, unk_token="<unk>"))
    tokenizer.decoder = decoders.WordPiece()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(UsageError, match="cannot write"):
        AnswerConstraint(wrapped)


@pytest.mark.parametrize("texts", [(), ("description",), ("reasoning",)], ids=["R", "DR", "FR"])
@pytest.mark.parametrize("seed", range(2))
def test_fewer_texts(tokenizer, texts, seed):
    """Fig. 3: random logits give the lines that are left, and what was learnt passes token by token."""
    constraint = AnswerConstraint(tokenizer, max_free_tokens=6, texts=texts)
    for tokens in generate(constraint, seed, rows=3, vocab=len(tokenizer)):
        answer = parse_answer(constraint.decode(tokens), Role.ANCHOR, "q", texts)
        assert isinstance(answer, Answer), constraint.decode(tokens)
        assert answer.probability is not None
        assert answer.forgery_type is not None
        assert {n for n in ("description", "reasoning") if getattr(answer, n)} == set(texts)
    learnt = " " + format_answer("A man.", "A seam.", Label.FAKE, 0.9, ForgeryType.IDENTITY_EXCHANGE, texts)
    prompt = len(tokenizer.encode(":", add_special_tokens=False))
    roomier = AnswerConstraint(tokenizer, texts=texts)
    state = roomier.start(1)
    for token in [*tokenizer.encode(":" + learnt, add_special_tokens=False)[prompt:], tokenizer.eos_token_id]:
        roomier.advance(state, [token])
    assert roomier.done(state) == [True]
