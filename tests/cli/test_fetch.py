# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo fetch`: what it prints, its exit codes, and a training on what it wrote."""

import json
import os
import signal

import pytest
import yaml
from datasets import Dataset
from image_server import ImageServer
from recipes import miniature_recipe
from runs import png

from transformers_flamingo_cli import main


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a site with eight images, and write lists of their addresses in three layouts. One image more is gone."""
    monkeypatch.chdir(tmp_path)
    with ImageServer({f"/{i}.png": png(i) for i in range(8)}) as server:
        urls = [f"{server.url}/{i}.png" for i in range(8)] + [f"{server.url}/gone.png"]
        Dataset.from_dict({"URL": urls, "TEXT": ["a red circle"] * 9}).to_parquet("pairs.parquet")
        pages = [
            {"images": [url, None, urls[8], None], "texts": [None, "a red circle", None, "a blue square"]}
            for url in urls
        ]
        Dataset.from_list(pages).to_parquet("pages.parquet")
        infos = [{"image_name": "a", "raw_url": url, "matched_text_index": 0, "matched_sim": 0.3} for url in urls]
        lines = [
            json.dumps({"text_list": ["a red circle", "a green square"], "image_info": [info, infos[8]]})
            for info in infos
        ]
        (tmp_path / "mmc4.jsonl").write_text("\n".join(lines))
        yield server


FETCH = ["--allow_private_hosts", "--rows-per-shard", "5"]


def test_fetched_lists_are_trained_on(site, tmp_path, capsys):
    formats = {"pairs.parquet": "image_text_pairs", "pages.parquet": "obelics", "mmc4.jsonl": "mmc4"}
    for source, name in formats.items():
        folder = source.partition(".")[0]
        assert main(["fetch", source, "--output_dir", folder, *FETCH]) == 0
        out = capsys.readouterr().out
        assert f"{folder}: took it for {name}: '00000.parquet' and 1 more" in out
        assert f"flamingo train --data {folder}`" in out
    recipe = miniature_recipe("", tmp_path / "trained")
    recipe |= {"max_steps": 1, "save_strategy": "no"}
    recipe["data"] = {
        name: {"format": name, "path": source.partition(".")[0], "batch_size": 2, "streaming": name == "mmc4"}
        for source, name in formats.items()
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "recipe.yaml"]) == 0
    assert (tmp_path / "trained" / "config.json").exists()


def test_what_is_printed(site, capsys):
    assert main(["fetch", "pages.parquet", "--output-dir", "out", *FETCH]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        "9 rows (obelics)",
        "shard 00000: 5 of 5 rows, 5 of 10 images",
        "shard 00001: 3 of 4 rows, 3 of 8 images",
    ]
    assert [line.split()[:3] for line in out[3:9]] == [
        ["images", "18"],
        ["fetched", "8", "44.4%"],
        ["not_found", "10", "55.6%"],
        ["rows", "9"],
        ["kept", "8", "88.9%"],
        ["no_image_left", "1", "11.1%"],
    ]
    assert out[5].endswith("the site no longer has it (404, 410)")
    requests = sum(site.requests.values())
    assert main(["fetch", "pages.parquet", "--output-dir", "out", *FETCH]) == 0
    assert capsys.readouterr().out.startswith("9 rows (obelics), 9 of them done before\nimages ")
    assert sum(site.requests.values()) == requests
    site.pages["/gone.png"] = png(3)
    assert main(["fetch", "pages.parquet", "--output-dir", "out", *FETCH, "--retry_failed", "not_found"]) == 0
    assert "18  100.0%" in capsys.readouterr().out


def test_errors_are_one_line(site, capsys):
    def error(*arguments: str) -> str:
        main(["fetch", *arguments])
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "leads to no file" in error("nowhere.parquet", "--output_dir", "out")
    message = error("pairs.parquet", "--output_dir", "out", "--timeout", "2")
    assert message == "flamingo fetch: No row of 'pairs.parquet' has its images, so there is nothing to train on."
    assert "was begun with other options: `rows_per_shard` was 2000, and is 5" in error(
        "pairs.parquet", "--output_dir", "out", *FETCH
    )
    with pytest.raises(SystemExit):
        error("pairs.parquet", "--output_dir", "new", "--retry_failed", "404")
    assert "Reasons are not_found, forbidden" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_signals(site, capsys, number, name):
    site.pages["/7.png"] = lambda handler, count: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    assert main(["fetch", "pairs.parquet", "--output_dir", "stopped", *FETCH]) == 128 + number
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flamingo fetch: stopped by {name}. ")
    assert line.endswith(
        " of 2 shards are complete, and what was fetched of the next ones is kept. Run the same command again to go on."
    )
    assert signal.getsignal(number) == before
    site.pages["/7.png"] = png(7)
    assert main(["fetch", "pairs.parquet", "--output_dir", "stopped", *FETCH]) == 0
