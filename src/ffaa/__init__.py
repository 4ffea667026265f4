"""ffaa, the Face Forgery Analysis Assistant: is this face real or forged, how, how surely, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffaa.errors import FFAAError, InputError, MissingExtraError, UsageError, WeightsError
from ffaa.types import Analysis, Answer, Difficulty, Failure, ForgeryType, Label, NoFace, Support, Verdict
from ffaa.types_clip import ClipAnalysis, ClipVerdict, PersonVerdict

if TYPE_CHECKING:
    from ffaa.assistant import Assistant

__version__ = "0.1.0"
__all__ = [
    "Analysis",
    "Answer",
    "Assistant",
    "ClipAnalysis",
    "ClipVerdict",
    "Difficulty",
    "FFAAError",
    "Failure",
    "ForgeryType",
    "InputError",
    "Label",
    "MissingExtraError",
    "NoFace",
    "PersonVerdict",
    "Support",
    "UsageError",
    "Verdict",
    "WeightsError",
    "analyze",
]

_assistants: dict[tuple[str, str], Any] = {}


def analyze(
    photo: Any, model: str = "nano", whole_image: bool = False, device: str = "auto", evidence: bool = False
) -> Analysis:
    """Analyse one photo (path, PIL image, or uint8 RGB / grey array): see `Assistant.analyze`.

    The model is loaded once per process. Raises InputError, UsageError, WeightsError or, for evidence,
    MissingExtraError.
    """
    key = (str(model), device)
    if key not in _assistants:
        from ffaa.assistant import Assistant

        _assistants[key] = Assistant(model, device=device)
    return _assistants[key].analyze(photo, whole_image=whole_image, evidence=evidence)


def __getattr__(name: str) -> Any:
    # The assistant imports torch and transformers; nobody who only reads a Verdict should wait for them.
    if name == "Assistant":
        from ffaa.assistant import Assistant

        return Assistant
    raise AttributeError(f"module 'ffaa' has no attribute '{name}'")
