# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The baseline without a language model: the name of the training drawing that is nearest, by the mean features of a vision encoder.

    python benchmarks/real_pictures/neighbors.py real-pictures --vision real-pictures/efficientnet-lite0

It says how much the features hold. A model that was trained on them should come close, or have a reason.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pictures import read_rows
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, BaseImageProcessor, PreTrainedModel


# How features are prepared: as they are, without the mean of the training drawings, and with unit variance in each channel, too
PREPARATIONS = ("raw", "centered", "standardized")


def pixel_batches(
    paths: Sequence[Path], image_processor: BaseImageProcessor, batch_size: int = 32
) -> Iterator[torch.Tensor]:
    """
    Yield the pixels `(images, C, H, W)` of images, some at a time.

    Args:
        paths (`Sequence[Path]`): The images.
        image_processor (`BaseImageProcessor`): Makes the pixels.
        batch_size (`int`, *optional*, defaults to 32): Images opened together.
    """
    for start in range(0, len(paths), batch_size):
        images = []
        for path in paths[start : start + batch_size]:
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        yield image_processor(images, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def mean_features(
    encoder: PreTrainedModel, image_processor: BaseImageProcessor, paths: Sequence[Path], batch_size: int = 32
) -> torch.Tensor:
    """
    Encode images, and take the mean of each over its places.

    Args:
        encoder (`PreTrainedModel`): A vision encoder that returns a sequence or a map.
        image_processor (`BaseImageProcessor`): Its image processor.
        paths (`Sequence[Path]`): The images.
        batch_size (`int`, *optional*, defaults to 32): Images encoded together.

    Returns:
        `torch.Tensor` of shape `(images, width)`.
    """
    encoder.eval()
    means = []
    for pixels in pixel_batches(paths, image_processor, batch_size):
        features = encoder(pixel_values=pixels.to(encoder.device, encoder.dtype)).last_hidden_state
        means.append(features.mean(dim=(2, 3) if features.ndim == 4 else 1).float().cpu())
    return torch.cat(means)


def nearest_names(
    keys: torch.Tensor, names: Sequence[str], queries: torch.Tensor, preparation: str = "raw"
) -> list[list[str]]:
    """
    Sort the names by the cosine similarity of their most similar drawing to each query.

    Args:
        keys (`torch.Tensor` of shape `(drawings, width)`): The features of the training drawings.
        names (`Sequence[str]`): The name of each.
        queries (`torch.Tensor` of shape `(queries, width)`): The features of the queries.
        preparation (`str`, *optional*, defaults to `"raw"`): One of `PREPARATIONS`.

    Returns:
        `list[list[str]]`: For each query all names, the nearest first. Names at equal distances are in alphabetical order.
    """
    if preparation != "raw":
        mean = keys.mean(dim=0)
        keys, queries = keys - mean, queries - mean
    if preparation == "standardized":
        deviation = keys.std(dim=0)
        scale = torch.where(deviation > 0, deviation, 1.0)
        keys, queries = keys / scale, queries / scale
    similarity = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(keys, dim=1).T
    known = sorted(set(names))
    index = torch.tensor([known.index(name) for name in names]).expand(len(queries), -1)
    best = torch.full((len(queries), len(known)), -torch.inf).scatter_reduce(1, index, similarity, "amax")
    return [[known[i] for i in row] for row in best.argsort(dim=1, descending=True, stable=True).tolist()]


def score_ranking(rankings: Sequence[Sequence[str]], truths: Sequence[str]) -> dict[str, float]:
    """Return the shares of queries whose name ranks first, and among the first five."""
    ranks = [ranking.index(truth) for ranking, truth in zip(rankings, truths, strict=True)]
    return {f"top_{k}": sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5)}


def measure_neighbors(
    data: Path, encoder: PreTrainedModel, image_processor: BaseImageProcessor
) -> dict[str, dict[str, float]]:
    """
    Measure the baseline on a prepared folder: drawings of the training houses without their views, queries of the test house.

    Args:
        data (`Path`): What `prepare.py` wrote.
        encoder, image_processor: As in [`mean_features`].

    Returns:
        `dict[str, dict[str, float]]`: `top_1` and `top_5` for each of `PREPARATIONS`.
    """
    drawings = [row for row in read_rows(data / "train.jsonl") if row["view"] == 0]
    queries = read_rows(data / "test.jsonl")
    keys, encoded = (
        mean_features(encoder, image_processor, [data / row["image"] for row in rows]) for rows in (drawings, queries)
    )
    names, truths = ([row["text"] for row in rows] for rows in (drawings, queries))
    return {
        preparation: score_ranking(nearest_names(keys, names, encoded, preparation), truths)
        for preparation in PREPARATIONS
    }


def main() -> None:
    """Print the baseline of an encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    parser.add_argument("--vision", required=True, help="name or folder of the vision encoder")
    parser.add_argument("--device", default="cpu", help="device of the encoder, such as cuda (default: %(default)s)")
    arguments = parser.parse_args()
    encoder, image_processor = (kind.from_pretrained(arguments.vision) for kind in (AutoModel, AutoImageProcessor))
    encoder.to(arguments.device)
    print(json.dumps(measure_neighbors(arguments.data, encoder, image_processor), indent=2))


if __name__ == "__main__":
    main()
