# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`benchmarks/peers.py` reports why a peer cannot be timed, and counts this package and the peers of transformers."""

import re
import sys
from argparse import Namespace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"
WIDTH, LAYERS, NUM_PATCHES, NUM_LATENTS = 24, 2, 5, 64
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the source distribution has no benchmarks")


@pytest.fixture(scope="module")
def peers():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(SCRIPT.parent)  # for `import common`
        spec = spec_from_file_location("benchmarks_peers", SCRIPT)  # other tests have a helper called `peers`
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for name in ("common", "peer_models"):
            sys.modules.pop(name, None)


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


def tiny_backbones() -> tuple[CLIPVisionConfig, LlamaConfig]:
    """Return an encoder of 4 patches and a language model of 2 layers, with a row for each token of `common.inputs`."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    return CLIPVisionConfig(**sizes, intermediate_size=2 * WIDTH, patch_size=112), LlamaConfig(
        **sizes, intermediate_size=8 * WIDTH // 3, vocab_size=20_002, tie_word_embeddings=True
    )


@pytest.fixture(params=["idefics", "mllama"])
def pair(peers, request):
    """Return this package's model and a peer of transformers in its shapes."""
    torch.manual_seed(0)
    peer_class = next(peer_class for peer_class in peers.STOCK_PEERS if peer_class.name == request.param)
    ours, peer = peers.build_in_shapes_of_stock_peers(*tiny_backbones()), peer_class(*tiny_backbones())
    ours.model.eval()
    peer.model.eval()
    return ours, peer


def arguments(**options) -> Namespace:
    """Return the arguments of a small run."""
    return Namespace(
        **{"tokens": 16, "new_tokens": 2, "max_images": 5, "max_timed_images": 0, "case": None, "repeats": 1}
        | {"device": "cpu"}
        | options
    )


def matrices(module: torch.nn.Module) -> int:
    """Return the number of weights in matrices."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def test_peers_of_transformers_have_the_matrices_of_this_package(pair):
    ours, peer = pair
    if peer.name == "idefics":
        assert matrices(peer.model) == matrices(ours.model)
        return
    layers = peer.model.model.language_model.layers
    blocks = [layers[i] for i in peer.model.config.text_config.cross_attention_layers]
    assert sum(map(matrices, blocks)) == matrices(ours.model.gated_cross_attention)
    decoder_layers = ours.model.language_model.model.layers
    assert matrices(layers) == matrices(ours.model.gated_cross_attention) + matrices(decoder_layers)


def test_peers_of_transformers_have_all_cases(peers, pair):
    ours, peer = pair
    workloads = list(peers.list_workloads(ours, peer, arguments()))
    rows = {(workload.name, len(workload.batch["input_ids"]), workload.num_images) for workload in workloads}
    training = "training step, equal sets"
    names = ("images", "prefill", "decode, per token", "beam search", "ranking", training)
    assert rows == {(name, 1, number) for name in names for number in (1, 5)} | {(training, 4, 4)}
    for workload in workloads:
        for side in pair:
            workload.prepare(side)
            result = workload.run(side)
            if isinstance(result, torch.Tensor):
                assert result.isfinite().all()
    trained = {name for name, parameter in peer.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in peer.model.named_parameters() if parameter.grad is not None}
    assert not any("embed_tokens" in name or "vision_model" in name for name in trained)


def test_a_token_sees_the_last_image_before_it(pair):
    """Change the first of two images: logits of tokens after the second stay as they are, as in this package."""
    ids = torch.full((1, 6), 7)
    ids[0, [0, 3]] = 20_001
    pixels = torch.randn(2, 2, 3, 224, 224)
    pixels[1, 1] = pixels[0, 1]
    for side in pair:
        with torch.no_grad():
            blocks = [
                side.model(**side.inputs({"input_ids": ids, "pixel_values": one[None]})).logits for one in pixels
            ]
        assert not torch.allclose(blocks[0][:, :3], blocks[1][:, :3])


def test_operations_of_a_new_token_are_counted_exactly(peers, pair):
    """Expect the same for this package after any number of images, and the peers' own work for each further image."""
    counts = {}
    for workload in peers.list_workloads(*pair, arguments(case="decode")):
        for side in pair:
            workload.prepare(side)
            counts[side.name, workload.num_images] = workload.count(side)
    peer = pair[1]
    assert counts["ours", 1].flops == counts["ours", 5].flops
    assert counts["ours", 1].operations == counts["ours", 5].operations
    further = (counts[peer.name, 5].flops - counts[peer.name, 1].flops) / 4
    if peer.name == "mllama":
        attention = 4 * LAYERS * NUM_PATCHES * WIDTH  # scores and sums of cached values
        assert further == attention
        return
    projections = 4 * LAYERS * NUM_LATENTS * WIDTH**2  # keys and values
    attention = 4 * LAYERS * NUM_LATENTS * WIDTH
    features = torch.zeros(1, NUM_PATCHES, WIDTH)
    resampler = peers.common.count(lambda: peer.model.model.perceiver_resampler(features)).flops
    assert further == resampler + projections + attention


def test_a_row_of_the_table(peers, pair):
    ours, peer = pair
    [row] = peers.compare(ours, peer, arguments(case="images", max_images=1, max_timed_images=1, repeats=2))
    [workload] = peers.list_workloads(ours, peer, arguments(case="images", max_images=1))
    of_ours, of_peer = workload.count(ours), workload.count(peer)
    assert (row[""], row["batch"], row["images"]) == ("images", 1, 1)
    assert row["GFLOP"] == f"{of_ours.flops / 1e9:.2f}"
    assert row[f"{peer.name} over ours"] == f"{of_peer.flops / of_ours.flops:.2f}"
    assert row["operations"] == of_ours.operations
    assert row["over ours"] == f"{of_peer.operations / of_ours.operations:.2f}"
    assert float(row["ms"]) > 0 and row["spread"].endswith("%")


def test_costs_of_a_product_are_exact_and_nothing_is_computed(peers):
    left, right = torch.ones(2, 3), torch.ones(3, 4)
    results = []
    counts = peers.common.count(lambda: results.append((left @ right).cos()))
    assert (counts.flops, counts.operations) == (2 * 2 * 3 * 4, 2)
    assert counts.peak_bytes == 2 * 4 * (2 * 4)  # the product and its cosine, 4 bytes each
    assert torch.equal(results[0], torch.ones(2, 4))  # cos(0)


def test_fused_attention_on_a_cpu_is_counted(peers):
    query = torch.ones(1, 2, 3, 8, requires_grad=True)
    product = 2 * 2 * 3 * 3 * 8  # of 2 heads, 3 queries, 3 keys
    attend = torch.nn.functional.scaled_dot_product_attention
    assert peers.common.count(lambda: attend(query, query, query)).flops == 2 * product
    # Backward computes the scores again, and the gradients of both products to both of their factors.
    assert peers.common.count(lambda: attend(query, query, query).sum().backward()).flops == 7 * product
