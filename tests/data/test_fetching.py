# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`fetch_data` on a local site: what is fetched, refused, tried again, counted, and how a run goes on that was killed."""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_factory import number_of, png, write_jsonl
from datasets import ClassLabel, Dataset, Features, Value
from image_server import ImageServer
from PIL import Image

from transformers_flamingo.data import FORMATS, decode_image, detect_format
from transformers_flamingo.data.errors import BadSampleError
from transformers_flamingo.data.fetching import FetchInterrupted, FetchOptions, addresses, downloads, fetch_data
from transformers_flamingo.data.fetching.client import directives_for
from transformers_flamingo.data.fetching.downloads import NetworkDownError
from transformers_flamingo.data.fetching.store import Store
from transformers_flamingo.data.fetching.url_lists import UrlList


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF_SECONDS", 0.01)


def fetch(tmp_path: Path, source: str | Path, output: str = "out", **options) -> dict:
    """Fetch from the local site."""
    options = {"allow_private_hosts": True, "timeout": 60.0, "concurrency": 4, **options}
    return fetch_data(FetchOptions(source=str(source), output_dir=str(tmp_path / output), **options))


def write_list(tmp_path: Path, server: ImageServer, names: list[str], **columns: list) -> Path:
    """Write a list of pairs; the caption of a file is its name."""
    path = tmp_path / "list.jsonl"
    records = [
        {
            "url": name if "://" in name else f"{server.url}/{name}",
            "caption": name,
            **{k: v[i] for k, v in columns.items()},
        }
        for i, name in enumerate(names)
    ]
    write_jsonl(path, records)
    return path


def rows_of(folder: Path) -> list[dict]:
    """Return the rows of all shards."""
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def failed(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "__fetch__" / "failed.jsonl").read_text().splitlines()]


def numbered(count: int) -> dict[str, bytes]:
    return {f"/{i}.png": png(i) for i in range(count)}


def drip(handler, count):
    """Send a byte from time to time, without end."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def test_every_failure_is_counted_by_its_reason(tmp_path):
    jpeg = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(jpeg, "JPEG")
    pages = {
        **numbered(3),
        "/gone.png": 410,
        "/paid.png": 403,
        "/teapot.png": 418,
        "/down.png": 503,
        "/shaky.png": lambda handler, count: handler.reply(png(9)) if count == 3 else handler.reply(b"", 500),
        "/page.png": b"<html>The image is no longer here</html>",
        "/cut.jpg": jpeg.getvalue()[:3000],
        "/large.png": lambda handler, count: handler.reply(b"", Content_Length="100000"),
        "/endless.png": lambda handler, count: handler.reply(b"x" * 100_000, Content_Length=None),
        "/wish.png": lambda handler, count: handler.reply(png(4), X_Robots_Tag="noai, noimageai"),
        "/other-wish.png": lambda handler, count: handler.reply(png(5), X_Robots_Tag="otherbot: noai"),
        "/broken.png": lambda handler, count: handler.reply(png(1)[:20], Content_Length="500"),
    }
    names = [
        "0.png",
        *(name[1:] for name in pages if name[1:] not in ("0.png", "1.png")),
        "1.png",
        "ftp://a/b.png",
        "http:///b.png",
    ]
    with ImageServer(pages) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
        closed.close()
        names += [f"http://127.0.0.1:{port}/a.png", "http://no-such-host.invalid/a.png"]
        report = fetch(tmp_path, write_list(tmp_path, server, names), timeout=60.0, max_bytes=50_000)
    assert report["images"]["failed"] == {
        "not_found": 1,
        "forbidden": 1,
        "http_error": 1,
        "server_error": 1,
        "connection": 2,
        "dns": 1,
        "bad_url": 2,
        "opted_out": 1,
        "too_large": 2,
        "not_an_image": 1,
        "damaged": 1,
    }
    kept = ["0.png", "2.png", "shaky.png", "other-wish.png", "1.png"]
    out = tmp_path / "out"
    assert [row["caption"] for row in rows_of(out)] == kept
    assert [number_of(decode_image(row["image"], "a row")) for row in rows_of(out)] == [0, 2, 9, 5, 1]
    assert (report["images"]["named"], report["images"]["fetched"]) == (len(names), len(kept))
    assert report["rows"] == {
        "in_source": len(names),
        "read": len(names),
        "kept": 5,
        "dropped": {"dead_image": len(names) - 5},
    }
    assert report["is_complete"] and json.loads((out / "__fetch__" / "report.json").read_text()) == report
    assert {entry["url"].rpartition("/")[2]: entry["detail"] for entry in failed(out)}["teapot.png"] == "status 418"
    assert [entry["row"] for entry in failed(out)] == [i for i, name in enumerate(names) if name not in kept]
    # What will not change is asked once, and what may change three times
    once = ("/gone.png", "/paid.png", "/teapot.png", "/page.png", "/cut.jpg", "/large.png", "/wish.png", "/2.png")
    assert {server.requests[path] for path in once} == {1}
    assert {server.requests[path] for path in ("/down.png", "/shaky.png", "/broken.png")} == {3}
    (agent,) = server.agents
    assert agent.startswith("transformers-flamingo/")
    assert not (out / "__fetch__" / "images").exists()


def test_a_site_that_sends_a_byte_from_time_to_time(tmp_path):
    with ImageServer({"/drip.png": drip}) as server:
        report = fetch(tmp_path, write_list(tmp_path, server, ["drip.png"]), timeout=0.5, retries=1)
    assert report["images"]["failed"] == {"timeout": 1}
    assert server.requests == {"/drip.png": 2}


def test_redirects(tmp_path, monkeypatch):
    def to(place):
        return lambda handler, count: handler.reply(b"", 302, Location=place)

    pages = {
        **numbered(2),
        "/moved.png": to("/0.png"),
        "/circle.png": to("/circle.png"),
        "/ftp.png": to("ftp://a/0.png"),
    }
    pages["/nowhere.png"] = 301
    with ImageServer(pages) as server:
        pages["/inside.png"] = to(f"http://127.0.0.2:{server.server_port}/1.png")
        names = ["moved.png", "circle.png", "ftp.png", "nowhere.png", "inside.png"]
        # As if the first of the two were on the internet
        monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
        report = fetch(tmp_path, write_list(tmp_path, server, names), allow_private_hosts=False)
        assert report["images"]["failed"] == {"redirects": 3, "private_address": 1}
        assert server.requests["/1.png"] == 0
    assert [row["caption"] for row in rows_of(tmp_path / "out")] == ["moved.png"]


def test_private_addresses_are_refused_by_any_name(tmp_path, monkeypatch):
    private = [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "ff02::1", "::"),
    ]
    assert [address for address in private if addresses.is_public(address)] == []
    assert all(map(addresses.is_public, ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]))
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kwargs: resolve("127.0.0.1", *args, **kwargs))
    with ImageServer(numbered(1)) as server:
        names = ["0.png", f"http://looks-public.example:{server.server_port}/0.png"]
        report = fetch(tmp_path, write_list(tmp_path, server, names), allow_private_hosts=False)
        assert report["images"]["failed"] == {"private_address": 2}
        assert not server.requests
        # The connection is to the address that was looked at, and the site is told the name
        hosts = []
        server.pages["/0.png"] = lambda handler, count: hosts.append(handler.headers["Host"]) or handler.reply(png(0))
        fetch(tmp_path, tmp_path / "list.jsonl", "allowed")
        assert sorted(hosts) == [server.url[7:], f"looks-public.example:{server.server_port}"]


def test_a_proxy_resolves_the_names(tmp_path, monkeypatch):
    name = "http://no-such-host.invalid/0.png"
    with ImageServer({name: png(1)}) as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")
        source = write_list(
            tmp_path, server, [name, "http://127.0.0.1/0.png", "http://localhost/0.png", "http://[::1]/0.png"]
        )
        report = fetch(tmp_path, source, allow_private_hosts=False)
        assert server.requests == {name: 1}
    assert report["images"]["failed"] == {"private_address": 3}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("noai", {"noai"}),
        ("NoIndex, noimageai", {"noindex", "noimageai"}),
        ("otherbot: noai, noindex", set()),
        ("noindex, otherbot: noai", {"noindex"}),
        ("our-bot: noai", {"noai"}),
        ("*: noai", {"noai"}),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", {"unavailable_after"}),
        ("max-image-preview: none, noai", {"max-image-preview", "noai"}),
    ],
)
def test_directives_of_a_site(value, expected):
    assert directives_for(value, "our-bot") == expected


def test_a_site_says_when_to_come_back(tmp_path):
    pages = {
        "/soon.png": lambda handler, count: (
            handler.reply(png(1)) if count > 1 else handler.reply(b"", 429, Retry_After="1")
        ),
        "/late.png": lambda handler, count: handler.reply(b"", 503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT"),
        "/busy.png": lambda handler, count: handler.reply(b"", 429, Retry_After="86400"),
    }
    with ImageServer(pages) as server:
        report = fetch(tmp_path, write_list(tmp_path, server, ["soon.png", "late.png", "busy.png"]))
    assert report["images"]["failed"] == {"server_error": 1, "rate_limited": 1}
    assert server.requests == {"/soon.png": 2, "/late.png": 1, "/busy.png": 1}


def test_hashes(tmp_path):
    digests = [
        hashlib.sha256(png(0)).hexdigest(),
        hashlib.md5(png(1)).hexdigest().upper(),
        "0" * 64,
        None,
        "not a hash",
    ]
    with ImageServer(numbered(5)) as server:
        source = write_list(tmp_path, server, [f"{i}.png" for i in range(5)], sha256=digests)
        report = fetch(tmp_path, source)
        assert report["images"]["failed"] == {"hash": 1}
        assert report["rows"]["dropped"] == {"dead_image": 1, "bad_row": 1}
        assert [row["caption"] for row in rows_of(tmp_path / "out")] == ["0.png", "1.png", "3.png"]
        assert "--hash_column none" in failed(tmp_path / "out")[1]["detail"]
        assert fetch(tmp_path, source, "unchecked", hash_column="none")["rows"]["kept"] == 5


def write_pages(tmp_path: Path, server: ImageServer) -> Path:
    """Write three pages in the columns of OBELICS: one whole, one with a dead image, one with nothing else."""
    lists = [["0.png", None, "1.png", None], [None, "gone.png", None, "2.png", None], ["gone.png", None]]
    rows = []
    for page, names in enumerate(lists):
        images = [name and f"{server.url}/{name}" for name in names]
        texts = [None if name else f"text {page}.{i}" for i, name in enumerate(names)]
        metadata = json.dumps([name and {"name": name} for name in names])
        rows.append({"images": images, "texts": texts, "metadata": metadata, "general_metadata": '{"url": "a"}'})
    Dataset.from_list(rows).to_parquet(tmp_path / "pages.parquet")
    return tmp_path / "pages.parquet"


@pytest.mark.parametrize("rule", ["drop_image", "drop_page", "error"])
def test_pages_of_obelics(tmp_path, rule):
    with ImageServer(numbered(3)) as server:
        source = write_pages(tmp_path, server)
        with pytest.raises(BadSampleError, match=r"index 0 of 'images' is an address, .*flamingo fetch.*img2dataset"):
            FORMATS["obelics"]().read(next(iter(FORMATS["obelics"]().load(str(source)))))
        if rule == "error":
            with pytest.raises(
                ValueError,
                match=r"pages.parquet, row 1: 'http://.*/gone.png' was not fetched \(not_found: status 404\)",
            ):
                fetch(tmp_path, source, dead_images=rule)
            assert rows_of(tmp_path / "out") == []
            return
        report = fetch(tmp_path, source, dead_images=rule)
    assert server.requests["/gone.png"] == 1
    dropped = {"no_image_left": 1} if rule == "drop_image" else {"dead_image": 1, "no_image_left": 1}
    assert report["rows"]["dropped"] == dropped
    assert report["images"]["failed"] == {"not_found": 2}
    found = detect_format(str(tmp_path / "out"))
    assert found.format == "obelics"
    rows = list(FORMATS["obelics"]().load(str(tmp_path / "out")))
    documents = [
        [
            (chunk.text, chunk.item and number_of(decode_image(chunk.item, "")))
            for chunk in FORMATS["obelics"]().read(row)
        ]
        for row in rows
    ]
    whole = [("text 0.1", 0), ("text 0.3", 1)]
    cut = [("text 1.0\n\ntext 1.2", None), ("text 1.4", 2)]
    assert documents == ([whole, cut] if rule == "drop_image" else [whole])
    assert all(json.loads(row["general_metadata"]) == {"url": "a"} for row in rows)
    metadata = [json.loads(row["metadata"]) for row in rows]
    assert metadata[0] == [{"name": "0.png"}, None, {"name": "1.png"}, None]
    if rule == "drop_image":
        assert metadata[1] == [None, None, {"name": "2.png"}, None]
        assert rows[1]["image_urls"] == [None, None, f"{server.url}/2.png", None]


def test_pages_of_mmc4(tmp_path):
    with ImageServer(numbered(3)) as server:
        names = [("0.png", 1, 0.3), ("1.png", 0, 0.1), ("gone.png", 0, 0.5), ("2.png", 0, 0.4)]
        infos = [
            {
                "image_name": name,
                "raw_url": f"{server.url}/{name}",
                "matched_text_index": index,
                "matched_sim": similarity,
                "face_detections": None,
            }
            for name, index, similarity in names
        ]
        records = [
            {
                "url": "page",
                "text_list": ["one.", "two."],
                "image_info": infos,
                "similarity_matrix": [[0.1, 0.2]],
                "could_have_url_duplicate": 0,
            }
        ]
        records.append({"url": "other", "text_list": ["a", "b"], "image_info": []})
        write_jsonl(tmp_path / "mmc4.jsonl", records)
        with pytest.raises(
            ValueError, match=r"none of 2 rows is kept, because they have no image file .*flamingo fetch"
        ):
            FORMATS["mmc4"]().load(str(tmp_path / "mmc4.jsonl"))
        report = fetch(tmp_path, tmp_path / "mmc4.jsonl")
        assert server.requests == {"/0.png": 1, "/gone.png": 1, "/2.png": 1}  # not the one below the minimum
    assert report["rows"]["dropped"] == {"no_image": 1}
    assert detect_format(str(tmp_path / "out")).format == "mmc4"
    for streaming in (False, True):
        (row,) = FORMATS["mmc4"]().load(str(tmp_path / "out"), streaming=streaming)
        chunks = FORMATS["mmc4"]().read(row)
        assert [(chunk.text, number_of(decode_image(chunk.item, ""))) for chunk in chunks] == [
            ("one.", 2),
            ("two.", 0),
        ]
        assert FORMATS["mmc4"](min_similarity=0.35).read(row)[0].text == "one. two."
        assert (row["url"], row["could_have_url_duplicate"]) == ("page", "0")


def test_a_bad_row_is_counted_and_ends_nothing(tmp_path):
    good = {"text_list": ["a"], "image_info": []}
    info = {"raw_url": "http://a/b.png", "matched_text_index": 0, "matched_sim": 0.5, "image_name": "a"}
    with ImageServer(numbered(1)) as server:
        good["image_info"] = [{**info, "raw_url": f"{server.url}/0.png"}]
        rows = [
            good,
            {**good, "text_list": ["half of a character \ud800"]},
            {**good, "url": "\ud800"},
            {**good, "text_list": [1]},
            {**good, "text_list": "a"},
            {**good, "image_info": [{**info, "matched_text_index": 7}]},
            {**good, "image_info": [{**info, "matched_text_index": "0"}]},
            {**good, "image_info": [{**info, "matched_sim": "high"}]},
            {**good, "image_info": [{**info, "raw_url": None}]},
            {**good, "image_info": [1]},
            {**good, "image_info": [{**info, "image_name": 1}]},
            "text",
        ]
        write_jsonl(tmp_path / "mmc4.jsonl", rows)
        report = fetch(tmp_path, tmp_path / "mmc4.jsonl")
        assert report["rows"]["dropped"] == {"bad_row": len(rows) - 1}
        assert [entry["row"] for entry in failed(tmp_path / "out")] == list(range(1, len(rows)))
        pages = [
            {"images": [f"{server.url}/0.png", None], "texts": [None, "a"]},
            {"images": [f"{server.url}/0.png", None], "texts": [None, 5]},
            {"images": [5, None], "texts": [None, "a"]},
            {"images": ["http://a/b.png"], "texts": ["a"]},
            {"images": [], "texts": ["a"]},
            {"images": [None], "texts": ["a"]},
        ]
        write_jsonl(tmp_path / "pages.jsonl", pages)
        assert fetch(tmp_path, tmp_path / "pages.jsonl", "pages")["rows"]["dropped"] == {"no_image": 1, "bad_row": 4}
        pairs = [
            {"url": f"{server.url}/0.png", "caption": "a", "id": 1},
            {"url": 5, "caption": "a"},
            {"url": None, "caption": "a"},
        ]
        pairs += [
            {"url": f"{server.url}/0.png", "caption": ["a", "b"], "id": {"x": [1]}},
            {"url": "http://a/b.png", "caption": " "},
        ]
        write_jsonl(tmp_path / "pairs.jsonl", pairs)
        assert fetch(tmp_path, tmp_path / "pairs.jsonl", "pairs")["rows"]["dropped"] == {
            "no_image": 1,
            "no_text": 1,
            "bad_row": 1,
        }
        assert [row["id"] for row in rows_of(tmp_path / "pairs")] == ["1", '{"x": [1]}']


def test_published_lists_of_pairs(tmp_path):
    with ImageServer(numbered(4)) as server:
        url = server.url
        (tmp_path / "cc3m.tsv").write_text(f'a "red" cat\t{url}/0.png\n"half a quote\t{url}/1.png\nonly one\n')
        report = fetch(tmp_path, tmp_path / "cc3m.tsv", "cc3m")
        assert [row["caption"] for row in rows_of(tmp_path / "cc3m")] == ['a "red" cat', '"half a quote']
        assert report["rows"]["dropped"] == {"bad_row": 1}

        coco = {
            "images": [
                {"id": 7, "coco_url": f"{url}/0.png", "file_name": "a.jpg"},
                {"id": 8, "coco_url": f"{url}/1.png"},
            ],
            "annotations": [{"image_id": 7, "caption": "a cat"}, {"image_id": 7, "caption": "the cat"}],
        }
        (tmp_path / "captions_train2017.json").write_text(json.dumps(coco))
        boxes = {"images": coco["images"], "annotations": [{"bbox": []}]}
        (tmp_path / "annotations").mkdir()
        for name, content in (("captions", coco), ("instances", boxes)):
            (tmp_path / "annotations" / f"{name}_train2017.json").write_text(json.dumps(content))
        assert UrlList(str(tmp_path / "annotations"), "train").count() == 2
        report = fetch(tmp_path, tmp_path / "captions_train2017.json", "coco")
        assert [row["captions"] for row in rows_of(tmp_path / "coco")] == [["a cat", "the cat"]]
        assert report["rows"]["dropped"] == {"no_text": 1} and server.requests["/1.png"] == 1
        chunk = FORMATS["image_text_pairs"]().read(
            next(iter(FORMATS["image_text_pairs"]().load(str(tmp_path / "coco"))))
        )[0]
        assert (chunk.text, chunk.alternatives) == ("a cat", ("the cat",))

        sbu = {"image_urls": [f"{url}/2.png"], "captions": ["a dog"], "user_ids": ["u"]}
        (tmp_path / "sbu.json").write_text(json.dumps(sbu))
        fetch(tmp_path, tmp_path / "sbu.json", "sbu")
        assert [row["caption"] for row in rows_of(tmp_path / "sbu")] == ["a dog"]

        features = Features(
            {
                "URL": Value("string"),
                "TEXT": Value("string"),
                "similarity": Value("float32"),
                "kind": ClassLabel(names=["x", "y"]),
            }
        )
        laion = Dataset.from_dict(
            {"URL": [f"{url}/3.png"], "TEXT": ["a fox"], "similarity": [0.25], "kind": [1]}, features=features
        )
        laion.to_parquet(tmp_path / "laion.parquet")
        fetch(tmp_path, tmp_path / "laion.parquet", "laion")
        row = next(iter(FORMATS["image_text_pairs"]().load(str(tmp_path / "laion"))))
        assert (row["text"], row["URL"], row["similarity"], row["kind"]) == ("a fox", f"{url}/3.png", 0.25, "y")

        write_jsonl(
            tmp_path / "vqa.jsonl",
            [{"image_url": f"{url}/0.png", "question": "what?", "answers": ["a cat"], "id": i} for i in (1, "b")],
        )
        fetch(tmp_path, tmp_path / "vqa.jsonl", "vqa")
        assert detect_format(str(tmp_path / "vqa")).format == "question_answering"
        assert [row["id"] for row in rows_of(tmp_path / "vqa")] == ["1", "b"]
        laion.save_to_disk(tmp_path / "saved")
        assert fetch(tmp_path, tmp_path / "saved", "again")["rows"]["kept"] == 1


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        (
            {"link": "http://a/b.png", "caption": "a"},
            {},
            r"has 'link', 'caption', and none of .*Perhaps `--url_column link`",
        ),
        ({"url": "http://a/b.png", "words": "a"}, {}, r"no text: .*`--text_column`"),
        ({"url": "http://a/b.png", "caption": "a"}, {"text_column": "words"}, r"and no 'words' \(`--text_column`\)"),
        ({"image": "b.png", "caption": "a"}, {}, "none of the columns .* has an address"),
        (
            {"url": "http://a/b.png", "title": "a", "text": "b"},
            {"text_column": "title"},
            "Two columns of the output would be 'text'",
        ),
        ([1], {}, r"no row that can be read: .*its JSON is a list"),
    ],
)
def test_a_list_that_is_not_understood(tmp_path, record, options, message):
    write_jsonl(tmp_path / "list.jsonl", [record])
    with pytest.raises(ValueError, match=message):
        fetch(tmp_path, tmp_path / "list.jsonl", **options)
    assert not (tmp_path / "out").exists()


def test_values_out_of_range():
    for name, value in {
        "concurrency": 0,
        "timeout": 0.0,
        "retries": -1,
        "dead_images": "skip",
        "retry_failed": ["404"],
        "user_agent": " ",
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            FetchOptions(source="a", output_dir="b", **{name: value})


def test_an_image_is_fetched_once_by_few_at_a_time_and_the_output_is_the_same(tmp_path):
    names = [f"{i % 20}.png" for i in range(60)]
    with ImageServer(numbered(20)) as server:
        source = write_list(tmp_path, server, names)
        reports = [
            fetch(tmp_path, source, f"out{n}", concurrency=n, rows_per_shard=60, max_per_host=2) for n in (1, 16)
        ]
        assert set(server.requests.values()) == {2}  # once in each run
        assert server.most_active <= 2
        cached = [
            fetch(
                tmp_path,
                source,
                f"cached{n}",
                cache_dir=str(tmp_path / "cache"),
                rows_per_shard=7,
                max_shortest_side=n,
            )
            for n in (8, 4)
        ]
        assert set(server.requests.values()) == {3}  # once in both runs, which differ in their options
    assert reports[0] == reports[1]
    assert (tmp_path / "out1" / "00000.parquet").read_bytes() == (tmp_path / "out16" / "00000.parquet").read_bytes()
    assert len(list((tmp_path / "cached8").glob("*.parquet"))) == 9
    assert [row["caption"] for row in rows_of(tmp_path / "cached4")] == names
    assert cached[0]["rows"] == cached[1]["rows"]


def test_a_busy_host_leaves_threads_for_others(tmp_path):
    """The files of one host come only after those of another one, which are later in the list. It has an address without a server, too."""
    other = threading.Event()
    slow = {f"/{i}.png": lambda handler, count: other.wait(60) and handler.reply(png(1)) for i in range(8)}
    with ImageServer(slow) as server:
        server.pages["/last.png"] = lambda handler, count: other.set() or handler.reply(png(2))
        names = [*(f"{i}.png" for i in range(8)), f"http://localhost:{server.server_port}/last.png"]
        report = fetch(tmp_path, write_list(tmp_path, server, names), concurrency=3, max_per_host=2, timeout=60.0)
    assert report["rows"]["kept"] == 9


def contents(folder: Path) -> dict[str, bytes]:
    """Return the shards and their records."""
    return {path.name: path.read_bytes() for path in (*folder.glob("*.parquet"), *folder.glob("__fetch__/0*.json"))}


def test_a_killed_run_goes_on(tmp_path):
    """SIGKILL comes in the third of six shards, twice."""
    names = [f"{i}.png" if i % 5 else "gone.png" for i in range(60)]
    with ImageServer(numbered(60)) as server:
        source = write_list(tmp_path, server, names)
        fetch(tmp_path, source, "whole", rows_per_shard=10)
        server.requests.clear()
        for moment in ("/26.png", "/31.png"):
            # Forked, because a new interpreter takes seconds to import everything
            process = multiprocessing.get_context("fork").Process(
                target=fetch, args=(tmp_path, source), kwargs={"rows_per_shard": 10, "concurrency": 2}
            )
            server.pages[moment] = lambda handler, count, process=process: process.kill()
            process.start()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            server.pages[moment] = png(int(moment[1:3]))
        assert 0 < len(contents(tmp_path / "out")) < 12
        fetch(tmp_path, source, rows_per_shard=10, concurrency=2)
        assert contents(tmp_path / "out") == contents(tmp_path / "whole")
        # Two threads were at work when each of the two was killed
        again = {path: count for path, count in server.requests.items() if count > 1 and path != "/gone.png"}
        assert sum(count - 1 for count in again.values()) <= 4
        before = sum(server.requests.values())
        report = fetch(tmp_path, source, rows_per_shard=10)
        assert sum(server.requests.values()) == before
        assert report["rows"]["kept"] == 48 and report["is_complete"]


def test_rows_from_the_middle_of_a_list(tmp_path):
    for number, size in enumerate((300, 1, 500)):
        rows = [{"url": f"http://a/{number}.{i}.png", "text": "a"} for i in range(size)]
        Dataset.from_list(rows).to_parquet(tmp_path / f"{number}.parquet")
        write_jsonl(tmp_path / f"{number}.jsonl", rows)
    for kind in ("parquet", "jsonl"):
        source = UrlList(str(tmp_path / f"*.{kind}"))
        rows = list(source.read())
        assert source.count() == len(rows) == 801
        for start in (1, 255, 299, 300, 301, 302, 700, 801):
            assert list(source.read(start)) == rows[start:]


def test_what_failed_is_tried_again_if_it_is_asked_for(tmp_path):
    with ImageServer({**numbered(6), "/2.png": 503, "/4.png": 404}) as server:
        source = write_list(tmp_path, server, [f"{i}.png" for i in range(6)])
        options = {"rows_per_shard": 3, "retries": 0}
        assert fetch(tmp_path, source, **options)["images"]["failed"] == {"not_found": 1, "server_error": 1}
        server.pages |= numbered(6)
        server.requests.clear()
        assert fetch(tmp_path, source, **options)["rows"]["kept"] == 4
        assert not server.requests
        report = fetch(tmp_path, source, retry_failed=[], **options)
        assert server.requests == {"/2.png": 1}
        assert report["images"]["failed"] == {"not_found": 1}
        report = fetch(tmp_path, source, retry_failed=["not_found"], **options)
        assert server.requests == {"/2.png": 1, "/4.png": 1}
        fetch(tmp_path, source, "whole", **options)
    assert report["rows"]["kept"] == 6 and failed(tmp_path / "out") == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_belongs_to_one_list_and_one_process(tmp_path):
    with ImageServer(numbered(2)) as server:
        source = write_list(tmp_path, server, ["0.png", "1.png"])
        fetch(tmp_path, source)
        with pytest.raises(ValueError, match="begun with other options: `max_shortest_side` was None, and is 4"):
            fetch(tmp_path, source, max_shortest_side=4)
        source.write_text(source.read_text() + "\n")
        with pytest.raises(ValueError, match="begun with another list: the files have other names, sizes or content"):
            fetch(tmp_path, source)
        write_list(tmp_path, server, ["0.png", "1.png"])
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "a.txt").write_text("a")
        with pytest.raises(ValueError, match="has files of another origin"):
            fetch(tmp_path, source, "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a.txt"]

        def run_another(handler, count):
            try:
                fetch(tmp_path, source, "third")
            except OSError as error:
                errors.append(str(error))
            handler.reply(png(0))

        errors = []
        server.pages["/0.png"] = run_another
        fetch(tmp_path, source, "third")
        assert len(errors) == 1 and "Another `flamingo fetch` is writing" in errors[0]


def test_a_network_that_is_down_kills_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_FAILED_IN_A_ROW", 6)
    monkeypatch.setattr(downloads, "MIN_FAILED_HOSTS", 3)
    with ImageServer(numbered(1)) as server:
        port = server.server_port
        names = [f"http://127.0.0.{2 + i % 4}:{port}/{i}.png" for i in range(20)]
        source = write_list(tmp_path, server, names)
        with pytest.raises(
            NetworkDownError, match="The last 6 images, of .* hosts, could not be reached .*Run the same command again"
        ):
            fetch(tmp_path, source, retries=0)
        assert failed(tmp_path / "out") == [] and rows_of(tmp_path / "out") == []
        # Nor where the list has no other host
        dead = [f"http://127.0.0.2:{port}/{i}.png" for i in range(20)]
        source = write_list(tmp_path, server, dead)
        with pytest.raises(NetworkDownError, match="6 images, all of the same host, could not .*remove its rows"):
            fetch(tmp_path, source, "one", retries=0)
        assert failed(tmp_path / "one") == []
        # One dead host is no dead network, if it is not all that there is
        source = write_list(tmp_path, server, [*dead, "0.png", *dead])
        assert fetch(tmp_path, source, "dead", retries=0)["images"]["failed"] == {"connection": 40}


@pytest.fixture
def heeds_ctrl_c():
    """Python's own handler: a shell has Ctrl-C ignored in a job of the background."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    with ImageServer(numbered(8)) as server:
        source = write_list(tmp_path, server, [f"{i}.png" for i in range(8)])
        server.pages["/5.png"] = lambda handler, count: os.kill(os.getpid(), signal.SIGINT) or handler.reply(png(5))
        with pytest.raises(
            FetchInterrupted, match=r"stopped by Ctrl-C. [0-2] of 4 shards are complete.*Run the same command again"
        ):
            fetch(tmp_path, source, rows_per_shard=2, concurrency=1)
        server.pages["/5.png"] = png(5)
        assert json.loads((tmp_path / "out/__fetch__/report.json").read_text())["is_complete"] is False
        assert fetch(tmp_path, source, rows_per_shard=2)["rows"]["kept"] == 8


def test_a_full_disk_ends_the_run_and_not_the_shard(tmp_path, monkeypatch):
    def write(self, item, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(self.folder))

    with ImageServer(numbered(4)) as server:
        source = write_list(tmp_path, server, [f"{i}.png" for i in range(4)])
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", write)
            with pytest.raises(OSError, match="No space left"):
                fetch(tmp_path, source)
        assert rows_of(tmp_path / "out") == []
        assert fetch(tmp_path, source)["rows"]["kept"] == 4
