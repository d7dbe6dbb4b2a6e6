"""Pictures of a running page at four sizes: `python -m tests.screenshots URL FOLDER [NAME]`, to be looked at.

They are FOLDER/NAME-large.png, -laptop, -small and -phone, that of the phone as long as the page.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.helpers.launch.pages import CHROMIUM, OPTIONS, SIZES

SETTLED_MS = 3000  # the first picture and its figures are there


def main(url: str, folder: str, name: str = "page") -> None:
    """Take all four, one after the other."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        for size, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url)
            page.wait_for_timeout(SETTLED_MS)
            page.screenshot(path=Path(folder) / f"{name}-{size}.png", full_page=size == "phone")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
