# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`benchmarks/peers.py` reports why a peer cannot be timed."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the source distribution has no benchmarks")


@pytest.fixture(scope="module")
def peers():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(SCRIPT.parent)  # for `import common`
        spec = spec_from_file_location("benchmarks_peers", SCRIPT)  # other tests have a helper called `peers`
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "choose a peer: --open-flamingo PATH"),
        (["--open-flamingo", "."], r"--open-flamingo is \., but there is no folder open_flamingo in it"),
        (["--flamingo-mini", "no/where"], "--flamingo-mini is no/where, but there is no folder flamingo_mini in it"),
        (["--open-flamingo", ".", "--text", "gpt2"], "--text gpt2: .* use opt"),
        (["--flamingo-mini", ".", "--workload", "large"], "--text llama-1b: flamingo-mini supports only opt"),
    ],
)
def test_a_peer_that_cannot_be_timed_is_an_error_with_the_reason(
    peers, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["peers.py", *options])
    with pytest.raises(SystemExit):
        peers.main()
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error)
