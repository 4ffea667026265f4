"""How long one face takes: warm, cold, per stage, peak memory, and against the reference way.

The reference way: three `generate` calls of transformers one after the other, the image encoded in each, the same
weights and the same constraint, in the same process, then MIDS with an image encoding of its own.
Run: python benchmarks/analyze.py [PHOTO] [--threads 2] [--repeat 5] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from ffaa import Assistant
from ffaa.evidence.examine import examine_face
from ffaa.mids.decide import decide
from ffaa.mllm.constraint import AnswerConstraint
from ffaa.mllm.generate import QUESTIONS, assign_roles
from ffaa.mllm.train import prompt_ids
from ffaa.types import Answer, Face
from ffaa.vqa.sentences import read_words

PHOTO = Path(__file__).parent.parent / "examples/photos/astronaut.jpg"


class Constrained(LogitsProcessor):
    """The answer constraint in transformers' own generation loop, one row."""

    def __init__(self, constraint: AnswerConstraint, prompt_length: int):
        self.constraint, self.state, self.length = constraint, constraint.start(1), prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] > self.length:
            self.constraint.advance(self.state, input_ids[:, -1])
        return self.constraint.apply(self.state, scores)


def reference(assistant: Assistant, face: Face) -> tuple[list[str], float]:
    """(raw answers, forgery score) the reference way."""
    engine, mllm = assistant.engine, assistant.engine.mllm
    words = read_words(examine_face(face)) | engine.encode(face.image).words
    raws = []
    for question in QUESTIONS:
        pixels = engine.pixels(face.image)
        tokens = mllm.model.config.image_seq_length
        shared, own = prompt_ids(mllm.tokenizer, mllm.template, question, words, tokens)
        ids = torch.tensor([shared + own])
        processors = LogitsProcessorList([Constrained(mllm.constraint, ids.shape[1])]) if mllm.constraint else None
        with torch.inference_mode():
            out = mllm.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels,
                do_sample=False,
                max_new_tokens=mllm.constraint.max_new_tokens if mllm.constraint else mllm.max_new_tokens,
                logits_processor=processors,
                eos_token_id=mllm.tokenizer.eos_token_id,
                pad_token_id=mllm.tokenizer.pad_token_id,
            )
        raws.append(mllm.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    answers = assign_roles(raws)
    with torch.inference_mode():
        layers = engine.mids.encode_image(engine.pixels(face.image))
    results = [a.result if isinstance(a, Answer) else None for a in answers]
    return raws, decide(engine.probabilities(answers, layers, face.image), results).forgery_score


def timed(repeat: int, work) -> tuple[list[float], object]:
    """Seconds of each run after one that is not counted, and the last result."""
    result = work()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return seconds, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = [sys.executable, "-m", "ffaa", "analyze", str(options.photo), "--json", "--model", options.model]
    cold = []
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        cold.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20

    torch.set_num_threads(options.threads)
    assistant = Assistant(options.model, device="cpu")
    warm, analysis = timed(options.repeat, lambda: assistant.analyze(options.photo))
    face, verdict = analysis.faces[0], analysis.verdicts[0]
    slow, (raws, score) = timed(max(2, options.repeat // 2), lambda: reference(assistant, face))
    ours = {a.prompt: a.raw for a in verdict.answers}
    fast = [w - verdict.timings.detect for w in warm]
    report = {
        "photo": options.photo.name,
        "faces": len(analysis.verdicts),
        "threads": options.threads,
        "cold_s": [round(c, 2) for c in cold],
        "warm_s": {"median": round(statistics.median(warm), 3), "all": [round(w, 3) for w in warm]},
        "stages_s": {k: round(v, 3) for k, v in verdict.timings.model_dump().items()},
        "peak_gib": round(peak, 2),
        "reference_s": {"median": round(statistics.median(slow), 3), "all": [round(s, 3) for s in slow]},
        "ratio": round(statistics.median(slow) / statistics.median(fast), 2),
        "same_answers": [ours[q] for q in QUESTIONS] == raws,
        "score_difference": abs(score - verdict.forgery_score),
        "versions": {n: version(n) for n in ("ffaa", "torch", "transformers")},
        "weights": assistant.engine.hashes,
        "command": "python benchmarks/analyze.py " + " ".join(sys.argv[1:]),
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
