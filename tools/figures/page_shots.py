"""Screenshots of a result's page: `python -m tools.figures.page_shots RESULT docs/images/view.jpg` (needs Chromium)."""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from dpmesh.viewer.pages import write_page

_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


def main(result: str, target: str) -> None:
    """The camera's view, and a free view with skeleton, floor and colours by sigma, side by side."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "page.html"
        write_page(Path(result), page)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        tab = browser.new_page(viewport={"width": 1000, "height": 560})
        tab.goto(page.as_uri())
        tab.wait_for_function("window.dpmesh.ready")
        shots = [tab.screenshot()]
        for name in ("skeleton", "floor", "colour by sigma"):
            tab.get_by_label(name).check()
        tab.get_by_role("button", name="Free").click()
        tab.wait_for_timeout(500)
        shots.append(tab.screenshot())
        browser.close()
    images = [Image.open(io.BytesIO(shot), formats=("PNG",)).convert("RGB") for shot in shots]
    sheet = Image.new("RGB", (sum(image.width for image in images), images[0].height))
    for i, image in enumerate(images):
        sheet.paste(image, (i * image.width, 0))
    sheet.resize((sheet.width * 3 // 5, sheet.height * 3 // 5)).save(target, quality=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
