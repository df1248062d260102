"""A headless Chromium, driven by Playwright. Every page fails its test on a console error or a request to elsewhere."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

_FLAGS = (
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
_NAMES = ("chromium", "chromium-browser", "google-chrome")
LOCAL = ("file://", "data:", "blob:", "http://127.0.0.1", "ws://127.0.0.1", "about:")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    assert program, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*_FLAGS])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    faults: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    def check(request: Request) -> None:
        if not request.url.startswith(LOCAL):
            faults.append(f"asks for {request.url}")

    page = browser.new_page(viewport={"width": 1100, "height": 700})
    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", check)
    yield page
    page.close()
    assert not faults
