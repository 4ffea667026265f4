"""Makes docs/report.png: the head of a report on the example photos, and one photo of it as on a telephone.

Run: python examples/make_report_picture.py (needs the extra `test` and a Chromium)
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from ffaa.cli.main import main as ffaa

ROOT = Path(__file__).parent.parent
PHOTOS = ("forged_swap.jpg", "grace_hopper.jpg", "astronaut.jpg")
HEIGHT = 1400


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        if ffaa(["report", *(str(ROOT / "examples/photos" / name) for name in PHOTOS), "--out", str(report)]):
            raise SystemExit("the report was not made")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shots = []
        for width, start in ((900, "html"), (360, "#face-1-1")):
            tab = browser.new_page(viewport={"width": width, "height": HEIGHT})
            tab.goto(report.as_uri())
            top = tab.locator(start).evaluate("node => node.getBoundingClientRect().top + scrollY")
            clip = {"x": 0, "y": max(0, top - 12), "width": width, "height": HEIGHT}
            shots.append(Image.open(io.BytesIO(tab.screenshot(full_page=True, clip=clip))).convert("RGB"))
        browser.close()
    gap = 30
    sheet = Image.new("RGB", (sum(shot.width for shot in shots) + gap, HEIGHT), "#888888")
    sheet.paste(shots[0], (0, 0))
    sheet.paste(shots[1], (shots[0].width + gap, 0))
    sheet.quantize(208).save(ROOT / "docs/report.png", optimize=True)


if __name__ == "__main__":
    main()
