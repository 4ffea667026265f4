"""nano's own tokenizer and language body: small enough to be trained whole on a CPU and shipped in the package."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ffaa.evidence.examine import MEASURES
from ffaa.mllm.tower import ForensicVisionConfig, ForensicVisionModel
from ffaa.vqa.sentences import UNSEEN, read_items
from ffaa.vqa.trace import all_words

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"


class BodyArgs(BaseModel):
    """Sizes of the language body, a Llama."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(1536, ge=300)
    hidden_size: int = Field(384, ge=8)
    intermediate_size: int = Field(1024, ge=8)
    layers: int = Field(6, ge=1)
    heads: int = Field(6, ge=1)
    kv_heads: int = Field(2, ge=1)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on the conversations' text: any text can be written, theirs in few tokens.

    Every measured word (`<sharpness:soft>`) is one token of its own.
    """
    words = [f"<{name}:{word}>" for name in read_items() for word in (*MEASURES[name].words, UNSEEN)]
    words += [f"<{name}:{word}>" for name, word in all_words()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, BOS, EOS, IMAGE, *words],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[IMAGE, *words],
    )


def build(
    args: BodyArgs, tokenizer: PreTrainedTokenizerFast, tower: ForensicVisionModel
) -> LlavaForConditionalGeneration:
    """LLaVA with this tower and a new body; 1 + 49 image tokens, the pooled vector first."""
    pad, bos, eos, image = (int(tokenizer.get_vocab()[token]) for token in (PAD, BOS, EOS, IMAGE))
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.hidden_size, intermediate_size=args.intermediate_size,
        num_hidden_layers=args.layers, num_attention_heads=args.heads, num_key_value_heads=args.kv_heads,
        max_position_embeddings=1024, tie_word_embeddings=True, pad_token_id=pad, bos_token_id=bos,
        eos_token_id=eos,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=ForensicVisionConfig(**tower.config.to_dict()), text_config=text,
        image_token_index=image, image_seq_length=50, vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    return model
