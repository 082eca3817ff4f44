# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""From rows of images and text to a training batch. Labels are made here and nowhere else."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.data.data_collator import DataCollatorMixin

from ..processing_flamingo import FlamingoProcessor


@dataclass
class FlamingoDataCollator(DataCollatorMixin):
    """
    Collates rows of images and text into what [`FlamingoModel`] trains on.

    A row is a dict with

    - `image`, one image, or `images`, a list of them, or `image_features`, what the vision encoder made of them, so
      that a frozen encoder need not run again ([`add_image_features`]); none of these, or none in them, for text alone.
      A video is a list of frames in the place of an image. Features are `(P, Dv)` for an image and `(F, P, Dv)` for a
      video, in a list or a tensor; or those of all frames of the row, `(F, P, Dv)`, with `num_frames`, how many of them
      each image or video has;
    - `text`, of which every token is supervised, or only those in `supervised`, a list of `[start, end)` in
      characters;
      or `prompt` and `completion`, of which only the completion is. [`~data.render`] makes such rows.

    The text holds one `<image>` for each image and ends its chunks with `<|endofchunk|>` itself: nothing is added.
    Use it with `TrainingArguments(remove_unused_columns=False)`, because these columns are no arguments of the model.

    The batch has `input_ids`, `attention_mask` and `labels` `(B, T)`, padded on the right, and with images
    `pixel_values` `(B, N, C, H, W)` and `frame_attention_mask` `(B, N)`; with features `mm_encoder_outputs` and
    `frame_attention_mask`; each with `F` after `N` if there is a video. A row `{"image": ..., "prompt": "<image>",
    "completion": "a red circle<|endofchunk|>"}` beside a shorter one gives, with a word-level tokenizer,

        tokens   <image>  a  red  circle  <|endofchunk|>        <image>  two  bars  <|endofchunk|>  <PAD>
        labels   -100     a  red  circle  <|endofchunk|>        -100     two  bars  <|endofchunk|>  -100

    Not supervised are padding (by the mask: `<PAD>` may be a token that the text uses), `<image>`, which is given and
    never predicted, and the prompt. A token belongs to the part of the text in which it starts.

    Args:
        processor ([`FlamingoProcessor`]): Makes the tensors. Needs a fast tokenizer, for the offsets.
        max_length (`int`, *optional*):
            Rows with more tokens raise an error of the processor if an image would be cut off, and lose text
            otherwise.

    Raises:
        ValueError: a row has no text, columns that contradict each other, or no supervised token, or the batch has
        both
            images and features.
    """

    processor: FlamingoProcessor
    max_length: int | None = None
    return_tensors: str = "pt"

    def torch_call(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        texts, spans = zip(*(self._text(row, index) for index, row in enumerate(rows)), strict=True)
        images = [self._images(row, index) for index, row in enumerate(rows)]
        features = self._features(rows, any(images))
        batch = self.processor(
            images=images if any(images) else None,
            text=list(texts),
            padding=True,
            padding_side="right",
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        starts = torch.as_tensor(batch.pop("offset_mapping"))[..., 0]  # (B, T) where each token starts in the text
        supervised = torch.zeros_like(starts, dtype=torch.bool)
        for index, row_spans in enumerate(spans):
            for start, end in row_spans:
                supervised[index] |= (start <= starts[index]) & (starts[index] < end)
        labels = batch["input_ids"].clone()
        is_marker = torch.isin(labels, torch.tensor(self.processor.image_token_ids))
        labels[(batch["attention_mask"] == 0) | ~supervised | is_marker] = -100
        unsupervised = (labels == -100).all(dim=1).nonzero().flatten().tolist()
        if unsupervised:
            index = unsupervised[0]
            raise ValueError(
                f"Row {index} of the batch has no token to learn from (text {texts[index]!r}, supervised characters "
                f"{spans[index]}, max_length {self.max_length}): what is supervised is empty or was cut off. Leave "
                "the row out, or raise `max_length`."
            )
        batch["labels"] = labels
        return {**batch, **features}

    @staticmethod
    def _text(row: dict[str, Any], index: int) -> tuple[str, list[tuple[int, int]]]:
        """The text of a row, and what of it is supervised, as `[start, end)` in characters."""
        given = {name for name in ("text", "supervised", "prompt", "completion") if row.get(name) is not None}
        if given in ({"text"}, {"text", "supervised"}):
            return row["text"], row["supervised"] if "supervised" in given else [(0, len(row["text"]))]
        if given in ({"completion"}, {"prompt", "completion"}):
            prompt = row.get("prompt") or ""
            text = prompt + row["completion"]
            return text, [(len(prompt), len(text))]
        raise ValueError(
            f"Row {index} of the batch has the columns {sorted(row)}, of them with text {sorted(given)}. It needs "
            "either `text`, with an optional `supervised`, or `completion`, with an optional `prompt`: anything else "
            "does not say what to learn. Rename or remove columns."
        )

    @staticmethod
    def _features(rows: list[dict[str, Any]], has_images: bool) -> dict[str, Any]:
        """Features in place of pixels, padded to the row with most images and the video with most frames."""
        given = [FlamingoDataCollator._row_features(row) for row in rows]
        if not any(given):
            return {}
        if has_images:
            raise ValueError(
                "Some rows of the batch have images and some `image_features`. The model takes one kind at a time: "
                "give all rows the same."
            )
        num_frames = max(len(medium) for media in given for medium in media)
        shape = len(rows), max(map(len, given)), num_frames
        sample = next(medium for media in given for medium in media)
        padded, mask = sample.new_zeros(*shape, *sample.shape[1:]), torch.zeros(shape, dtype=torch.long)
        for index, media in enumerate(given):
            for position, medium in enumerate(media):
                padded[index, position, : len(medium)] = medium
                mask[index, position, : len(medium)] = 1
        if num_frames == 1:
            padded, mask = padded.squeeze(2), mask.squeeze(2)
        return {"mm_encoder_outputs": {"image": {"last_hidden_state": padded}}, "frame_attention_mask": mask}

    @staticmethod
    def _row_features(row: dict[str, Any]) -> list[torch.Tensor]:
        """The features of each image or video of a row, `(F, P, Dv)`; an image has one frame."""
        features = row.get("image_features")
        if features is None:
            return []
        if row.get("num_frames") is not None:
            features = torch.as_tensor(features).split(list(row["num_frames"]))
        media = [torch.as_tensor(medium) for medium in features]
        return [medium if medium.ndim == 3 else medium[None] for medium in media]

    @staticmethod
    def _images(row: dict[str, Any], index: int) -> list:
        given = [name for name in ("image", "images", "image_features") if row.get(name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"Row {index} of the batch has {' and '.join(f'`{name}`' for name in given)}. It is unknown which of "
                "them its markers mark: give one."
            )
        if row.get("images") is not None:
            return list(row["images"])
        return [row["image"]] if row.get("image") is not None else []
