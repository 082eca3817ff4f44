# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Data collator: turns rows of images and text into a training batch, including the labels.

No other file makes labels. The loss shifts them by one position, so the first token of a document is never predicted.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.data.data_collator import DataCollatorMixin

from ..processing_flamingo import FlamingoProcessor
from .packing import pack
from .samples import adds_special_tokens


@dataclass
class FlamingoDataCollator(DataCollatorMixin):
    """
    Collates rows of images and text into what [`FlamingoModel`] trains on.

    A row is a dict with

    - either `image`, one image, `images`, a list of images, or `image_features`, the outputs of the vision encoder for
      them, so that a frozen encoder need not run again ([`add_image_features`]). A row of text alone has no value in any
      of them. A list of frames instead of an image is a video. Features are floats, `(P, Dv)` per image and `(F, P, Dv)`
      per video, in a list, a tensor or a numpy array. They may also be those of all frames of the row together,
      `(F, P, Dv)`, with `num_frames`, the number of frames of each image or video;
    - either `text`, in which every token is supervised, or only the spans in `supervised`, a list of `[start, end)` in
      characters; or `prompt` and `completion`, in which only the completion is supervised.
      [`~data.document_to_sample`] makes such rows;
    - optionally `add_special_tokens`, `False` for a text that a chat template made with all its special tokens. All rows of
      a batch agree in it.

    The text must have one `<image>` for each image, and `<|endofchunk|>` at the end of each chunk: nothing is added. Use
    the collator with `TrainingArguments(remove_unused_columns=False)`, because these columns are not arguments of the
    model.

    The batch has

    | name | shape | with |
    |---|---|---|
    | `input_ids`, `labels` | `(B, T)`, padded on the right; `labels` is -100 where a token is not supervised | |
    | `attention_mask` | `(B, T)`, 1 at real tokens | no `packing` |
    | `position_ids` | `(B, T)`, which starts again at 0 with each document | `packing` |
    | `pixel_values` | `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` if there is a video | images |
    | `mm_encoder_outputs` | `{"image": {"last_hidden_state": ...}}` of `(B, N, P, Dv)`, or `(B, N, F, P, Dv)` | features |
    | `frame_attention_mask` | `(B, N)`, or `(B, N, F)` if there is a video; 1 at real images or frames | either of these |

    With a word-level tokenizer, `{"image": ..., "prompt": "<image>", "completion": "a red circle<|endofchunk|>"}` next to
    a shorter row gives

        tokens   <image>  a  red  circle  <|endofchunk|>        <image>  two  bars  <|endofchunk|>  <PAD>
        labels   -100     a  red  circle  <|endofchunk|>        -100     two  bars  <|endofchunk|>  -100

    Padding is not supervised (by the mask, because `<PAD>` may be a token that the text uses), and neither are prompts and
    `<image>`, which is given and never predicted. A token belongs to the part of the text in which it starts.

    With `packing`, the rows are documents, and a row of the batch holds several of them one after the other, with little
    padding. As everywhere in transformers, `position_ids` that start again with each document replace the
    `attention_mask`. Padding tokens have position 0. From the positions, [`FlamingoModel`] keeps the texts and images of the
    documents apart. [`check_packing`] tells whether its language model can. The two rows above give

        tokens    <image>  a  red  circle  <|endofchunk|>  <image>  two  bars  <|endofchunk|>
        position  0        1  2    3       4               0        1    2     3
        labels    -100     a  red  circle  <|endofchunk|>  -100     two  bars  <|endofchunk|>
        image     1        1  1    1       1               2        2    2     2

    The first token of a document is never predicted, so it has no label.

    Args:
        processor ([`FlamingoProcessor`]): Makes the tensors. It needs a fast tokenizer, for the offsets.
        max_length (`int`, *optional*):
            Maximum number of tokens of a row. Longer rows lose the end of their text, or raise an error of the processor
            if an image would be cut off. `packing` needs it: it is the maximum length of a row of the batch.
        packing (`bool`, *optional*, defaults to `False`):
            Whether to pack documents into few rows of similar length ([`pack`]), in their order within each row.

    Raises:
        ValueError: `packing` is set without `max_length`, a row has no text, contradicting columns, malformed features,
            a number of features that is not that of its markers, or no supervised token after its first one, or the batch
            has both images and features.
    """

    processor: FlamingoProcessor
    max_length: int | None = None
    packing: bool = False
    return_tensors: str = "pt"

    def __post_init__(self):
        if self.max_length is not None and (not isinstance(self.max_length, int) or self.max_length < 1):
            raise ValueError(
                f"`max_length` is {self.max_length!r}, but it is a number of tokens: give a whole number of at least 1."
            )
        if self.packing and self.max_length is None:
            raise ValueError("`packing` is set without `max_length`, the maximum length of a packed row: give it too.")

    def torch_call(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows into a batch of tensors, as the class describes it."""
        if not rows:
            raise ValueError("There are no rows to collate. Give at least one.")
        texts, spans = zip(*(self._text(row, index) for index, row in enumerate(rows)), strict=True)
        images = [self._images(row, index) for index, row in enumerate(rows)]
        features = self._features(rows, any(images))
        has_special_tokens = {adds_special_tokens(row) for row in rows}
        if len(has_special_tokens) > 1:
            raise ValueError(
                "Some rows of the batch have `add_special_tokens=False` and others not, and the tokenizer adds its special tokens "
                "to all texts or to none. Put them into batches of their own, or write the special tokens into the texts."
            )
        batch = self.processor(
            images=images if any(images) else None,
            text=list(texts),
            padding=True,
            padding_side="right",
            truncation=self.max_length is not None,
            max_length=self.max_length,
            add_special_tokens=has_special_tokens.pop(),
            return_offsets_mapping=True,
            return_frame_attention_mask=True,  # a compiled model needs it
            return_tensors="pt",
        )
        starts = torch.as_tensor(batch.pop("offset_mapping"))[
            ..., 0
        ]  # (B, T): the character at which each token starts
        supervised = torch.zeros_like(starts, dtype=torch.bool)
        for index, row_spans in enumerate(spans):
            for start, end in row_spans:
                supervised[index] |= (start <= starts[index]) & (starts[index] < end)
        labels = batch["input_ids"].clone()
        is_marker = torch.isin(labels, torch.tensor(self.processor.image_token_ids))
        labels[(batch["attention_mask"] == 0) | ~supervised | is_marker] = -100
        # The loss shifts labels by one, so that of the first token is never used
        unsupervised = (labels[:, 1:] == -100).all(dim=1).nonzero().flatten().tolist()
        if unsupervised:
            index = unsupervised[0]
            raise ValueError(
                f"Row {index} of the batch has no token to learn from (text {texts[index]!r}, supervised characters "
                f"{spans[index]}, max_length {self.max_length}): its supervised part is empty, was cut off, or is only the "
                "first token, which is never predicted. Remove the row, or raise `max_length`."
            )
        if features:
            self._check_markers(is_marker & (batch["attention_mask"] == 1), features["frame_attention_mask"])
        batch = {**batch, "labels": labels, **features}
        return self._pack(batch) if self.packing else batch

    def _pack(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Pack a padded batch of documents."""
        is_text = batch["attention_mask"].bool()  # (B, T), padded on the right
        rows = pack(is_text.sum(dim=1).tolist(), self.max_length)

        def join(values: torch.Tensor, is_real: torch.Tensor, padding: int = 0) -> torch.Tensor:
            """Join the real entries of documents `(B, X, ...)` into rows `(R, Y, ...)`."""
            joined = [torch.cat([values[document][is_real[document]] for document in row]) for row in rows]
            return pad_sequence(joined, batch_first=True, padding_value=padding)

        labels = batch["labels"].clone()
        labels[:, 0] = -100  # it would be predicted from another document
        packed = {
            "input_ids": join(batch["input_ids"], is_text, self.processor.tokenizer.pad_token_id),
            "labels": join(labels, is_text, -100),
            # At position 0, each padding token is its own document, and within any table of positions
            "position_ids": join(torch.arange(is_text.shape[1]).expand_as(is_text), is_text),
        }
        if "frame_attention_mask" in batch:
            frames = batch["frame_attention_mask"]
            is_image = frames.bool() if frames.ndim == 2 else frames.any(dim=2)
            packed["frame_attention_mask"] = join(frames, is_image)
            if "pixel_values" in batch:
                packed["pixel_values"] = join(batch["pixel_values"], is_image)
            else:
                image_features = batch["mm_encoder_outputs"]["image"]["last_hidden_state"]
                packed["mm_encoder_outputs"] = {"image": {"last_hidden_state": join(image_features, is_image)}}
        return packed

    @staticmethod
    def _text(row: dict[str, Any], index: int) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a row, and its supervised spans as `[start, end)` in characters."""
        given = {name for name in ("text", "supervised", "prompt", "completion") if row.get(name) is not None}
        if given in ({"text"}, {"text", "supervised"}):
            parts = [row["text"]]
        elif given in ({"completion"}, {"prompt", "completion"}):
            parts = [row.get("prompt") or "", row["completion"]]
        else:
            raise ValueError(
                f"Row {index} of the batch has the columns {sorted(row)}, and {sorted(given)} describe its text. It "
                "needs either `text`, with an optional `supervised`, or `completion`, with an optional `prompt`, to tell "
                "what to learn. Rename or remove columns."
            )
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"The text of row {index} of the batch is {parts!r:.200}: give strings.")
        text = "".join(parts)
        if not text:
            raise ValueError(
                f"The text of row {index} of the batch is empty, so nothing can be learned from it: remove the row."
            )
        if "supervised" not in given:
            return text, [(len(text) - len(parts[-1]), len(text))]
        spans = [tuple(span) if isinstance(span, list | tuple) else () for span in row["supervised"]]
        if not all(len(span) == 2 and 0 <= span[0] <= span[1] <= len(text) for span in spans):
            raise ValueError(
                f"`supervised` of row {index} of the batch is {row['supervised']}, but it must list `[start, end)` in the "
                f"{len(text)} characters of its text. Fix or remove it."
            )
        return text, spans

    @staticmethod
    def _features(rows: list[dict[str, Any]], has_images: bool) -> dict[str, Any]:
        """Return features instead of pixels, padded to the row with most images and the video with most frames."""
        given = [FlamingoDataCollator._row_features(row, index) for index, row in enumerate(rows)]
        if not any(given):
            return {}
        if has_images:
            raise ValueError(
                "Some rows of the batch have images and others `image_features`, and the model takes one kind at a "
                "time. Give all rows the same kind."
            )
        media = [item for row in given for item in row]
        sizes = sorted({tuple(item.shape[1:]) for item in media})
        if len(sizes) > 1:
            raise ValueError(
                f"The `image_features` of the batch are of different shapes (P, Dv): {sizes}. They must come from one "
                "vision encoder."
            )
        shape = len(rows), max(map(len, given)), max(map(len, media))
        dtype = functools.reduce(torch.promote_types, (item.dtype for item in media))
        padded, mask = torch.zeros(*shape, *sizes[0], dtype=dtype), torch.zeros(shape, dtype=torch.long)
        for index, row in enumerate(given):
            for position, item in enumerate(row):
                padded[index, position, : len(item)] = item
                mask[index, position, : len(item)] = 1
        if shape[2] == 1:
            padded, mask = padded.squeeze(2), mask.squeeze(2)
        return {"mm_encoder_outputs": {"image": {"last_hidden_state": padded}}, "frame_attention_mask": mask}

    @staticmethod
    def _row_features(row: dict[str, Any], index: int) -> list[torch.Tensor]:
        """Return the features `(F, P, Dv)` of each image or video of a row. An image has one frame."""
        features, counts = row.get("image_features"), row.get("num_frames")
        if features is None:
            return []
        try:
            if counts is None:
                media = [torch.as_tensor(item) for item in features]
            else:
                media = list(torch.as_tensor(features).split([int(count) for count in counts]))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"`image_features` of row {index} of the batch are not features, or do not match `num_frames` {counts}: "
                f"{error}. Give floats `(P, Dv)` for each image, or `(F, P, Dv)` for each video."
            ) from error
        media = [item[None] if item.ndim == 2 else item for item in media]
        for position, item in enumerate(media):
            if item.ndim != 3 or 0 in item.shape or not item.is_floating_point():
                problem = f"of shape {tuple(item.shape)} and {item.dtype}"
            elif not item.isfinite().all():
                problem = "not finite (NaN or infinity)"
            else:
                continue
            raise ValueError(
                f"The `image_features` of image {position} of row {index} of the batch are {problem}. Give finite floats "
                "`(P, Dv)` for each image, or `(F, P, Dv)` for each video."
            )
        # Numpy's default is twice as wide as any model
        return [item.float() if item.dtype == torch.float64 else item for item in media]

    @staticmethod
    def _check_markers(is_marker: torch.Tensor, frame_attention_mask: torch.Tensor) -> None:
        """Check that each row has features for as many images as its text has markers, as the processor does for images."""
        images = frame_attention_mask.flatten(2).any(dim=2) if frame_attention_mask.ndim == 3 else frame_attention_mask
        counts = zip(is_marker.sum(dim=1).tolist(), images.sum(dim=1).tolist(), strict=True)
        for index, (markers, features) in enumerate(counts):
            if markers != features:
                raise ValueError(
                    f"Row {index} of the batch has {markers} markers in its text (those within `max_length`) and features "
                    f"of {features} images, so it is unknown which marker an image belongs to. Give one for each marker."
                )

    @staticmethod
    def _images(row: dict[str, Any], index: int) -> list[Any]:
        """Return the images of a row, a list of frames for each video."""
        given = [name for name in ("image", "images", "image_features") if row.get(name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"Row {index} of the batch has {' and '.join(f'`{name}`' for name in given)}, so it is unknown "
                "which of them its markers mean. Give one of these columns."
            )
        if row.get("images") is not None:
            return list(row["images"])
        return [row["image"]] if row.get("image") is not None else []
