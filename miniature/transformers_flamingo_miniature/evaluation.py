# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure how well a Flamingo reads the miniature world, and whether it uses the image at all.

Each score is measured three times over the same prompts: with the right image, with the images permuted among the scenes, and
with one blank image for all. A model that uses the image falls to chance in the last two; a language model that guesses well
does not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from transformers_flamingo.data import blank_image
from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor

from .world import BACKGROUNDS, COLORS, IMAGE_SIZE, NUMBER_WORDS, PLURALS, SHAPES, SIZES, answer_prompt


CONDITIONS = ("image", "permuted", "blank")

_SINGULARS = {plural: shape for shape, plural in PLURALS.items()}
_WORDS = {
    "color": {word: word for word in COLORS},
    "shape": {**{word: word for word in SHAPES}, **_SINGULARS},
    "size": {word: word for word in SIZES},
    "background": {word: word for word in BACKGROUNDS},
    "count": {word: number for number, word in NUMBER_WORDS.items()},
}
# The attributes that the caption of each kind of scene mentions
_CAPTION_ATTRIBUTES = {
    "single": ("color", "shape", "size", "background"),
    "count": ("count", "color", "shape"),
    "pair": ("color", "shape", "right_color", "right_shape"),
}


def parse_caption(caption: str) -> dict[str, str | int]:
    """
    Return the attributes that a caption names: the first word of each kind, and of color and shape also the second, as
    `right_color` and `right_shape`.

    >>> parse_caption("a red circle left of a blue bar")
    {'color': 'red', 'right_color': 'blue', 'shape': 'circle', 'right_shape': 'bar'}
    """
    words = caption.split()
    found: dict[str, str | int] = {}
    for attribute, meanings in _WORDS.items():
        named = [meanings[word] for word in words if word in meanings]
        if named:
            found[attribute] = named[0]
        if attribute in ("color", "shape") and len(named) > 1:
            found[f"right_{attribute}"] = named[1]
    return found


@dataclass(frozen=True)
class _Prompt:
    """A text to generate: which scene, after which text, and what is right."""

    scene: int
    text: str
    score_names: tuple[str, ...]
    expected: str | None = None  # the answer; None for a caption


def _prompts(scenes: Dataset, image_token: str) -> Iterator[_Prompt]:
    for index, (kind, questions) in enumerate(zip(scenes["kind"], scenes["questions"], strict=True)):
        yield _Prompt(index, image_token, tuple(f"caption/{kind}/{name}" for name in _CAPTION_ATTRIBUTES[kind]))
        for question in questions:
            text = image_token + answer_prompt(question["question"])
            yield _Prompt(index, text, (f"question/{kind}/{question['topic']}",), question["answer"])


@torch.inference_mode()
def generate_texts(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    texts: list[str],
    latents: torch.Tensor,
    *,
    max_new_tokens: int = 16,
    batch_size: int = 128,
    progress: str | None = None,
) -> list[str]:
    """
    Continue prompts with one image each, greedily.

    Args:
        texts (`list[str]`): The prompts.
        latents (`torch.Tensor` of shape `(len(texts), L, Dv)`): Their images, from [`encode_images`].
        max_new_tokens (`int`): Maximum number of tokens, if no `<|endofchunk|>` comes before.
        batch_size (`int`): Prompts answered together.
        progress (`str`, *optional*): Name of a progress bar.

    Returns:
        `list[str]`: the continuations, without special tokens.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # prompts of similar length together: less padding
    results: list[str] = [""] * len(texts)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc=progress, disable=progress is None):
        chosen = order[start : start + batch_size]
        inputs = processor(text=[texts[i] for i in chosen], padding=True, padding_side="left", return_tensors="pt")
        inputs = inputs.to(model.device)
        generated = model.generate(
            **inputs,
            mm_encoder_outputs={"image": {"pooler_output": latents[chosen][:, None]}},
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        new = generated[:, inputs["input_ids"].shape[1] :]
        for i, text in zip(chosen, processor.batch_decode(new, skip_special_tokens=True), strict=True):
            results[i] = text.strip()
    return results


def evaluate_miniature(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    scenes: Dataset,
    *,
    seed: int = 0,
    progress: str | None = None,
) -> dict[str, dict[str, float]]:
    """
    Compute the scores of a model on one split of [`build_image_split`].

    Args:
        model ([`FlamingoModel`]): The model.
        processor ([`FlamingoProcessor`]): Its processor.
        scenes (`datasets.Dataset`): The scenes.
        seed (`int`): Seed of the permutation of the images.
        progress (`str`, *optional*): Name of a progress bar.

    Returns:
        `dict`: for each score, such as `"caption/single/shape"` or `"question/count/color"`: `n`, the number of cases, the accuracy
        under each of [`CONDITIONS`], and `chance`, the probability that two random scenes agree. In
        `caption/single/color_and_shape` both must be right.

    Raises:
        ValueError: there are fewer than two scenes.
    """
    model.eval()
    images = list(scenes["image"])
    latents = torch.stack(encode_images(model, processor, images, batch_size=128))
    blank = torch.stack(encode_images(model, processor, [blank_image((IMAGE_SIZE, IMAGE_SIZE))]))
    permutation = torch.from_numpy(derangement(len(images), np.random.default_rng(seed)))
    by_condition = {
        "image": latents,
        "permuted": latents[permutation],
        "blank": blank.expand(len(images), -1, -1),
    }
    prompts = list(_prompts(scenes, processor.image_token))
    scene_of = torch.tensor([prompt.scene for prompt in prompts])
    rows = scenes.remove_columns("image").to_list()
    truths: dict[str, list[object]] = defaultdict(list)
    for prompt in prompts:
        for name, truth in _truths(prompt, rows[prompt.scene]).items():
            truths[name].append(truth)
    scores: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for condition in CONDITIONS:
        texts = generate_texts(
            model,
            processor,
            [prompt.text for prompt in prompts],
            by_condition[condition][scene_of],
            progress=progress and f"{progress}, {condition}",
        )
        for prompt, text in zip(prompts, texts, strict=True):
            for name, is_right in _score(prompt, text, rows[prompt.scene]).items():
                scores[name][condition].append(is_right)
    return {
        name: {
            "n": len(values["image"]),
            **{condition: float(np.mean(values[condition])) for condition in CONDITIONS},
            "chance": _chance(truths[name]),
        }
        for name, values in sorted(scores.items())
    }


def _score(prompt: _Prompt, text: str, scene: dict) -> dict[str, bool]:
    """Return for each score of a prompt whether the generated text is right."""
    if prompt.expected is not None:
        return {prompt.score_names[0]: text == prompt.expected}
    named = parse_caption(text)
    right = {name: named.get(name.rsplit("/", 1)[1]) == scene[name.rsplit("/", 1)[1]] for name in prompt.score_names}
    prefix = f"caption/{scene['kind']}"
    right[f"{prefix}/color_and_shape"] = right[f"{prefix}/color"] and right[f"{prefix}/shape"]
    return right


def _truths(prompt: _Prompt, scene: dict) -> dict[str, object]:
    """Return the right value of each score of a prompt."""
    if prompt.expected is not None:
        return {prompt.score_names[0]: prompt.expected}
    truths = {name: scene[name.rsplit("/", 1)[1]] for name in prompt.score_names}
    truths[f"caption/{scene['kind']}/color_and_shape"] = scene["color"], scene["shape"]
    return truths


def _chance(truths: list[object]) -> float:
    """Return the probability that two random scenes agree: the accuracy of a model that is shown another scene's picture."""
    counts = Counter(truths)
    return sum((count / len(truths)) ** 2 for count in counts.values())


def derangement(size: int, rng: np.random.Generator) -> np.ndarray:
    """
    Return a permutation without fixed points: a cycle through all places in random order.

    Args:
        size (`int`): Number of places.
        rng (`numpy.random.Generator`): The source of chance.

    Raises:
        ValueError: the size is below 2.
    """
    if size < 2:
        raise ValueError(f"Images can only be permuted among two or more scenes: got {size}.")
    order = rng.permutation(size)
    permutation = np.empty(size, dtype=np.int64)
    permutation[order] = np.roll(order, 1)
    return permutation
