"""Makes docs/page-*.png: the web page as it opens, with a result, and with the second of two faces chosen.

Run: python examples/make_page_pictures.py (needs the extra `test` and a Chromium)
"""

from __future__ import annotations

import io
import shutil
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from ffaa.assistant import Assistant
from ffaa.serve.api import create_app
from ffaa.serve.server import listen, make_server
from ffaa.serve.settings import ServeSettings

ROOT = Path(__file__).parent.parent
SIZE = {"width": 920, "height": 900}


def pair() -> bytes:
    """The two real portraits side by side, as a PNG."""
    photos = [Image.open(ROOT / "examples/photos" / name) for name in ("grace_hopper.jpg", "astronaut.jpg")]
    sheet = Image.new("RGB", (sum(photo.width for photo in photos), min(photo.height for photo in photos)))
    sheet.paste(photos[0], (0, 0))
    sheet.paste(photos[1], (photos[0].width, 0))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def picture(tab: Page, name: str) -> None:
    shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    shot.quantize(128).save(ROOT / "docs" / f"page-{name}.png", optimize=True)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    settings = ServeSettings(port=0)
    app = create_app(settings, Assistant())
    server, listening = make_server(app, settings), listen(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = browser.new_page(viewport=SIZE)
            tab.goto(f"http://127.0.0.1:{listening.getsockname()[1]}")
            tab.locator("#page-file").wait_for(state="attached")
            tab.wait_for_timeout(1000)
            picture(tab, "start")
            tab.get_by_role("button", name="Forged").click()
            tab.locator("#page-status", has_text="done.").wait_for()
            tab.wait_for_timeout(500)
            picture(tab, "result")
            two = {"name": "two_portraits.png", "mimeType": "image/png", "buffer": pair()}
            tab.locator("#page-file").set_input_files(two)
            tab.locator("#page-status", has_text="two_portraits.png: done.").wait_for()
            tab.locator(".report .box").nth(1).click()
            tab.wait_for_timeout(500)
            picture(tab, "second")
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
