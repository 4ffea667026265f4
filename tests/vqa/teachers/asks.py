"""Asks and a teacher for the tests; run as a program, it teaches and prints each row's seed (see the kill test)."""

import functools
import sys
from pathlib import Path

import numpy as np

from ffaa.data.manifest import Row
from ffaa.mllm.answer import parse_answer
from ffaa.types import ForgeryType, Label, Role
from ffaa.vqa.teachers.base import Ask
from ffaa.vqa.teachers.chat import OpenAIArgs
from ffaa.vqa.teachers.openai_teacher import OpenAITeacher

PARSE = functools.partial(parse_answer, role=Role.ANCHOR, prompt="")


def make(count, first=0, label=Label.REAL, **more):
    """`count` asks with seeds first, first + 1 ..., and pictures of 32 px."""
    kind = ForgeryType.REAL if label is Label.REAL else ForgeryType.IDENTITY_EXCHANGE
    for seed in range(first, first + count):
        row = Row(path=f"{seed}.png", sha256=f"{seed:04}", label=label, forgery_type=kind, dataset="tiny")
        image = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        yield Ask(row, image, f"question {seed}", seed=seed, **more)


def teacher(url, cache, sleep=lambda seconds: None, **settings):
    args = OpenAIArgs(**{"base_url": url, "model": "tiny-vision", "timeout": 20.0} | settings)
    return OpenAITeacher(args, PARSE, Path(cache), key="secret", sleep=sleep)


if __name__ == "__main__":
    for made in teacher(sys.argv[1], sys.argv[2], concurrency=2).teach(make(int(sys.argv[3]))):
        print(made.seed, flush=True)
