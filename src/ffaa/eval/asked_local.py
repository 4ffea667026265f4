"""An image-text model of transformers from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ffaa import weights
from ffaa.assistant import choose_device
from ffaa.errors import UsageError
from ffaa.eval.detectors import About
from ffaa.vqa.teachers.chat import Reply


class ImageTextModel:
    """Greedy decoding, one image at a time, so that no reply depends on the batch. Code that a folder brings is not
    run. Raises UsageError for a folder that is no such model."""

    def __init__(self, folder: Path, device: str, max_tokens: int):
        place = choose_device(device)
        dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder}: no config.json in it; give the folder of a model of transformers")
        try:
            self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=dtype)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UsageError(f"{folder}: not an image-text model that can be loaded ({_line(error)})") from error
        self._model, self._max = model.eval().to(place), max_tokens
        files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
        self.about = About(
            kind="asked", files={file.name: weights.sha256(file) for file in files}, image_size=None,
            parameters=sum(p.numel() for p in model.parameters()), device=str(place),
        )  # fmt: skip

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray], prompt: str) -> list[Reply]:
        """Replies about uint8 RGB images (H, W, 3), in order."""
        text, replies = self._text(prompt), []
        for image in images:
            given = self._processor(images=Image.fromarray(image), text=text, return_tensors="pt").to(
                self._model.device
            )
            given["pixel_values"] = given["pixel_values"].to(self._model.dtype)
            made = self._model.generate(**given, do_sample=False, max_new_tokens=self._max)
            new = made[0, given["input_ids"].shape[1] :]
            said = self._processor.decode(new, skip_special_tokens=True).strip()
            replies.append(Reply(text=said, finish="length" if len(new) == self._max else "stop"))
        return replies

    def _text(self, prompt: str) -> str:
        """The prompt in the model's own chat template; in LLaVA's where it has none."""
        if getattr(self._processor, "chat_template", None):
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            return self._processor.apply_chat_template(asked, add_generation_prompt=True)
        return f"USER: {getattr(self._processor, 'image_token', '<image>')}\n{prompt} ASSISTANT:"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
