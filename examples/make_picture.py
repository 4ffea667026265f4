"""Makes docs/demo.png: each example photo with its box and verdict, and its heatmaps with and without text.

Run: python examples/make_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ffaa import Assistant
from ffaa.data.images import load_photo

ROOT = Path(__file__).parent.parent


def main() -> None:
    photos = sorted((ROOT / "examples/photos").glob("*.jpg"))
    assistant = Assistant("nano")
    figure, axes = plt.subplots(3, len(photos), figsize=(3.1 * len(photos), 9.4))
    for column, photo in enumerate(photos):
        analysis = assistant.analyze(photo)
        verdict, face = analysis.verdicts[0], analysis.faces[0]
        box = verdict.box
        axes[0, column].imshow(load_photo(photo).pixels)
        axes[0, column].add_patch(
            plt.Rectangle((box.left, box.top), box.width, box.height, fill=False, linewidth=2, edgecolor="yellow")
        )
        kind = verdict.forgery_type.value if verdict.forgery_type else "no type"
        axes[0, column].set_title(
            f"{photo.stem}\n{verdict.label.value} ({kind})\nmatch {verdict.match_score:.2f}, "
            f"forgery {verdict.forgery_score:.2f}, {verdict.difficulty.value}",
            fontsize=9,
        )
        axes[1, column].imshow(assistant.heatmap(face, verdict))
        axes[2, column].imshow(assistant.heatmap(face, verdict, with_text=False))
    for row, name in enumerate(("photo", "heatmap", "heatmap without text")):
        axes[row, 0].set_ylabel(name)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(ROOT / "docs/demo.png", dpi=70)


if __name__ == "__main__":
    main()
