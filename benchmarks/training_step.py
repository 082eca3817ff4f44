# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of parts of a training step: the loss, the encoder, and the layers below the first gated block.

    python benchmarks/training_step.py [--workload small] [--text gpt2] [--tokens 256] [--batch-size 2] [--repeats 5]

A step is forward and backward with frozen backbones and two images per row. The first table has a block before every layer:

- all logits: `skip_logits=False`, with the loss from logits `(B, T, V)`, as both peers compute it;
- loss in chunks: the default of training, with every token supervised and with one in eight (answers to questions);
- cached features: the same, with the precomputed output of the vision encoder instead of pixels.

The second table has a block before every fourth layer (layers 3, 7 and 11), with and without training the embeddings of the
two new tokens, whose gradient must pass the layers below the first block.
"""

import argparse
import functools

import common
import devices
import torch


def main() -> None:
    """Time the steps, print both tables and save them if asked to."""
    arguments = common.parser(__doc__, tokens=256, batch_size=2).parse_args()
    model = common.build(arguments)
    batch = common.inputs(model, 2, arguments.tokens, arguments.batch_size)
    every = {**batch, "labels": batch["input_ids"]}
    some = {**batch, "labels": batch["input_ids"].clone()}
    some["labels"][:, torch.arange(arguments.tokens) % 8 > 0] = -100
    with torch.no_grad():
        features = model.get_image_features(batch["pixel_values"]).last_hidden_state
    cached = {name: value for name, value in some.items() if name != "pixel_values"}
    cached["mm_encoder_outputs"] = {"image": {"last_hidden_state": features}}
    model.freeze_backbones()
    model.train()
    cases = {
        "all logits": functools.partial(step, model, every, skip_logits=False),
        "loss in chunks": functools.partial(step, model, every),
        "all logits, one token in 8 supervised": functools.partial(step, model, some, skip_logits=False),
        "loss in chunks, one token in 8 supervised": functools.partial(step, model, some),
        "and cached features": functools.partial(step, model, cached),
    }
    measure(arguments, cases, "training-step")

    del model
    model = common.build(arguments, cross_attention_every_n_layers=4)
    model.freeze_backbones()
    model.train()
    without = common.build(arguments, cross_attention_every_n_layers=4)
    without.freeze_backbones(train_token_embeddings=False)
    without.train()
    cases = {
        "new embeddings trained": functools.partial(step, model, every),
        "new embeddings frozen": functools.partial(step, without, every),
    }
    measure(arguments, cases, "training-step-below")


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor], **options) -> None:
    """Run forward and backward, without an optimizer."""
    model(**batch, **options).loss.backward()
    model.zero_grad(set_to_none=True)


def measure(arguments: argparse.Namespace, cases: dict, name: str) -> None:
    """Count the operations and the peaks of memory of the cases, time them, and report them under a name."""
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)
    counts = {case: common.count(run, arguments.device) for case, run in cases.items()}
    first = next(iter(cases))
    device = devices.device_name(arguments.device)
    rows = [
        {
            "": case,
            "GFLOP": f"{counts[case].flops / 1e9:.1f}",
            "operations": counts[case].operations,
            "peak, MB": common.megabytes(counts[case].peak_bytes),
            "over the first": f"{counts[case].peak_bytes / counts[first].peak_bytes:.2f}",
            "ms": common.milliseconds(timing),
            "over the first ": f"{timing.over(timings[first]):.2f}",
            "spread": common.percent(timing.spread),
            **({} if device is None else devices.rates(counts[case].flops, timing.median, device)),
        }
        for case, timing in timings.items()
    ]
    common.report(arguments, rows, f"{name}-{arguments.text or arguments.workload}")


if __name__ == "__main__":
    main()
