"""Take the picture of the README: notebook 1 in JupyterLab, after its cells were run.

``python docs/screenshot.py``, in the development environment, with Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browsing import find_browser, open_notebook, press, run_all, running_lab  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab:
        name = "01_separate.ipynb"
        shutil.copy(ROOT / "notebooks" / name, lab.folder)
        with open_notebook(lab, name, find_browser()) as visit:
            page = visit.page
            page.set_viewport_size({"width": 1000, "height": 2200})
            run_all(page)
            press(page, "Spectrogram")
            press(page, "Play")
            page.wait_for_function(
                "() => document.querySelector('.stemlab-mixer').mixer.seconds > 6"
            )
            press(page, "Pause")
            page.wait_for_timeout(3000)  # Until all spectrograms are painted.
            page.locator(".stemlab-mixer").first.screenshot(path=ROOT / "docs" / "screenshot.png")
            print(visit.complaints() or "docs/screenshot.png")


if __name__ == "__main__":
    main()
