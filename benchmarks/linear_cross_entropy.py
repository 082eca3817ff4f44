# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Compare our loss in chunks with `torch.nn.functional.linear_cross_entropy` of torch 2.13.

    python benchmarks/linear_cross_entropy.py [--tokens 512] [--width 256] [--vocabulary 16384] [--repeats 3]

Each case is forward and backward of a mean loss at all tokens, with the weights of the head frozen, and trained:

- ours: [`chunked_loss`], with chunks of `LOSS_CHUNK_SIZE` tokens;
- torch, equal chunks: `batch_chunk_size` is `LOSS_CHUNK_SIZE`;
- torch, its own chunks: the default options.
"""

import functools

import common
import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear, linear_cross_entropy
from transformers.loss.loss_utils import ForCausalLMLoss

from transformers_flamingo.loss_flamingo import LOSS_CHUNK_SIZE, chunked_loss


def ours(states: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the mean loss in chunks."""

    def sum_loss(chunk: torch.Tensor, chunk_targets: torch.Tensor) -> torch.Tensor:
        return ForCausalLMLoss(linear(chunk, weight), None, len(weight), 1, shift_labels=chunk_targets)

    return chunked_loss(sum_loss, states, targets, [weight], None)


def main() -> None:
    """Time the cases, measure their peaks of memory, and print the table and save it if asked to."""
    arguments = common.parser(__doc__, tokens=512, width=256, vocabulary=16384).parse_args()
    options = {
        "torch, equal chunks": LinearCrossEntropyOptions(batch_chunk_size=LOSS_CHUNK_SIZE),
        "torch, its own chunks": LinearCrossEntropyOptions(),
    }
    losses = {"ours": ours}
    losses |= {name: functools.partial(linear_cross_entropy, options=chosen) for name, chosen in options.items()}
    torch.manual_seed(0)
    states = torch.randn(arguments.tokens, arguments.width, device=arguments.device, requires_grad=True)
    targets = torch.randint(arguments.vocabulary, (arguments.tokens,), device=arguments.device)
    matrix = 0.02 * torch.randn(arguments.vocabulary, arguments.width, device=arguments.device)

    def step(loss, weight: torch.Tensor) -> None:
        loss(states, weight, targets).backward()
        states.grad = weight.grad = None

    rows = []
    for head, is_trained in (("frozen", False), ("trained", True)):
        weight = matrix.clone().requires_grad_(is_trained)
        cases = {name: functools.partial(step, loss, weight) for name, loss in losses.items()}
        timings = common.time_in_turns(cases, arguments.repeats, arguments.device)
        rows += [
            {
                "head": head,
                "": name,
                "ms": common.milliseconds(timing),
                "spread": common.percent(timing.spread),
                "over ours": f"{timing.over(timings['ours']):.2f}",
                "peak, MB": common.megabytes(common.peak_bytes(cases[name], arguments.device)),
            }
            for name, timing in timings.items()
        ]
    common.report(arguments, rows, f"linear-cross-entropy-{arguments.workload}")


if __name__ == "__main__":
    main()
