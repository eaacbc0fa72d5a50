"""A page in a headless Chromium: a script runs in it, and its answer comes back."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_FLAGS += ["--disable-component-update", "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

_PROBE = """
<script>
window.problems = []; window.addEventListener("error", e => window.problems.push(e.message));
console.error = (...words) => window.problems.push(words.join(" "));
window.addEventListener("load", () => setTimeout(() => {
  const answer = (() => { %s })();
  const node = document.createElement("pre"); node.id = "answer";
  node.textContent = JSON.stringify({problems: window.problems, ...answer});
  document.body.append(node);
}, 3000));
</script>
"""


def ask(page: Path, script: str, folder: Path) -> dict[str, Any]:
    """Open a page and give what the body of a JavaScript function returns there, with ``problems`` on the console.

    Args:
        page: HTML file.
        script: statements that end with ``return {...}``.
        folder: for a changed copy of the page and the browser's profile.
    """
    assert BROWSER is not None
    probed = folder / "probed.html"
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("<head>", "<head>" + _PROBE % script, 1), encoding="utf-8")
    command = [BROWSER, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=15000"]
    command += ["--dump-dom", probed.as_uri()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer
