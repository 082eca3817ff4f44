# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The tutorial about sharing runs against the small Hub, and prints what it shows."""

import os
import subprocess
import sys
from pathlib import Path

from hub_server import HubServer


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "share-on-the-hub.md"


def test_the_tutorial_runs(tmp_path):
    code = f"from pathlib import Path; from page_blocks import check_page; print(check_page(Path({str(PAGE)!r})))"
    with HubServer() as hub:
        prefixes = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        environment |= hub.environment(tmp_path / "hf")
        paths = [str(ROOT / "tests" / "docs"), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.split()[-1] == "5"  # outputs that were compared
        assert hub.unknown_calls == []
        assert "my-name/my-photos" in hub.repositories["someone/my-flamingo"].files()["README.md"].decode()
