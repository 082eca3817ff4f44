# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train a model with DDP and with FSDP2 in each process that `torchrun` starts, and write down the results."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from factory import END_OF_CHUNK, IMAGE, prompt, random_images
from runs import NO_DROPOUT, model
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import full_state_dict, measure_image_use, parameter_groups, shard_model
from transformers_flamingo.training.sharding import sharding_units


STEPS = 4


def batch(rank: int, step: int) -> dict[str, torch.Tensor]:
    rows = ("IabcEIdeE", "xIfghijEk") if (rank + step) % 2 else ("IaEIEIbcE", "defIghiEE")
    input_ids = prompt(*rows, seed=step)
    counts = (input_ids == IMAGE).sum(dim=1)
    mask = (torch.arange(int(counts.max())) < counts[:, None]).long()
    images = random_images(2, int(counts.max()), seed=10 * rank + step)
    return {"input_ids": input_ids, "labels": input_ids, "pixel_values": images, "frame_attention_mask": mask}


def train(wrapped: torch.nn.Module, flamingo: FlamingoModel) -> list[float]:
    optimizer = torch.optim.AdamW(parameter_groups(flamingo, 1e-2))
    wrapped.train()
    losses = []
    for step in range(STEPS):
        loss = wrapped(**batch(dist.get_rank(), step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def units_of(flamingo: FlamingoModel) -> list[set[bool]]:
    """Return for each unit whether its parameters are trained: a set of one value if they are not mixed."""
    states = [module._get_fsdp_state()._fsdp_param_group for module in [*sharding_units(flamingo), flamingo]]
    return [{p.sharded_param.requires_grad for p in group.fsdp_params} for group in states if group is not None]


def main(result: str, text: str) -> None:
    kwargs = {"text": text, "text_kwargs": NO_DROPOUT if text == "gpt2" else {}}
    replicated, sharded = model(**kwargs), model(**kwargs)
    before = {name: tensor.clone() for name, tensor in replicated.state_dict().items()}
    record = {"world_size": dist.get_world_size()}
    record["ddp"] = train(DistributedDataParallel(replicated, find_unused_parameters=True), replicated)

    shard_model(sharded)
    record["fsdp"] = train(sharded, sharded)
    record["unsharded"] = [name for name, p in sharded.named_parameters() if not isinstance(p.data, DTensor)]
    record["mixed"] = [list(unit) for unit in units_of(sharded) if len(unit) > 1]
    record["num_units"] = len(units_of(sharded))
    local = sum(p.to_local().numel() for p in sharded.parameters())
    record["share"] = local / sum(p.numel() for p in sharded.parameters())

    sharded.eval()
    replicated.eval()
    inputs = batch(dist.get_rank(), 9)
    with torch.no_grad():
        record["image_use"] = [asdict(measure_image_use(flamingo, inputs)) for flamingo in (sharded, replicated)]
        record["logits"] = (sharded(**inputs).logits - replicated(**inputs).logits).abs().max().item()

    state = full_state_dict(sharded)
    if dist.get_rank() == 0:
        expected = replicated.state_dict()
        record["keys"] = sorted(set(state) ^ set(expected))
        record["difference"] = max((state[name] - expected[name]).abs().max().item() for name in expected)
        frozen = [name for name, p in replicated.named_parameters() if not p.requires_grad and "_rows" not in name]
        rest = [i for i in range(99) if i not in (END_OF_CHUNK, IMAGE)]
        for name in frozen:
            old, new = before[name], state[name]
            if not torch.equal(*((old[rest], new[rest]) if len(old) == 99 else (old, new))):
                record.setdefault("thawed", []).append(name)
        sharded.save_pretrained(Path(result).with_suffix(""), state_dict=state)
        loaded = FlamingoModel.from_pretrained(Path(result).with_suffix(""))
        record["reloaded"] = all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
        Path(result).write_text(json.dumps(record))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for name in sys.argv[2:]:
        main(f"{sys.argv[1]}/{name}.json", name)
    dist.destroy_process_group()
