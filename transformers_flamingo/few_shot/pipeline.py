# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The predictor as a pipeline of transformers: `pipeline("few-shot-image-to-text", model=..., demonstrations=[...])`."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from transformers import Pipeline

from .predictor import FewShotPrediction, FewShotPredictor


class FewShotPipeline(Pipeline):
    """
    Label images after a few examples. Importing `transformers_flamingo` registers it as `"few-shot-image-to-text"`.

    ```python
    >>> import transformers_flamingo
    >>> from transformers import pipeline
    >>> classify = pipeline("few-shot-image-to-text", model=name, demonstrations=[("cat.png", "a cat"), ("dog.png", "a dog")], few_shot_task="classify")
    >>> classify("bird.png")
    {'text': 'a cat', 'score': 0.61, 'probabilities': {'a cat': 0.61, 'a dog': 0.39}, 'demonstrations': (0, 1), 'error': None}
    ```

    Args:
        demonstrations (`Sequence`, *optional*, defaults to `()`): As of [`FewShotPredictor`].
        few_shot_task (`str`, *optional*): Its `task`, a name that `pipeline()` has for something else.
        batch_size (`int`, *optional*, defaults to 8): Images computed together.
        kwargs: Other arguments of [`FewShotPredictor`], and those of [`~transformers.Pipeline`].
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, model: Any, demonstrations: Any = (), few_shot_task: str | None = None, **kwargs: Any):
        own = {name: kwargs.pop(name) for name in _PREDICTOR_ARGUMENTS if name in kwargs}
        super().__init__(model=model, **kwargs)
        if self.processor is None:
            raise ValueError("The pipeline has no processor. Give the `processor` of the model with it.")
        self.predictor = FewShotPredictor(self.model, self.processor, demonstrations, few_shot_task, **own)

    def __call__(
        self, images: Any, questions: Any = None, *, question: Any = None, **kwargs: Any
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """
        Predict.

        Args:
            images, questions, kwargs: As of [`~FewShotPredictor.__call__`].
            question (*optional*): Another name of `questions`, as other pipelines have it.

        Returns:
            A `dict` with the fields of [`FewShotPrediction`], a list of them for a list of images, and an iterator for anything else.
        """
        if question is not None and questions is not None:
            raise ValueError("There are `questions` and a `question`, which are the same argument. Give one of them.")
        questions = question if questions is None else questions
        predictions = self.predictor(images, questions, **kwargs)
        if isinstance(predictions, FewShotPrediction):
            return asdict(predictions)
        return [asdict(p) for p in predictions] if isinstance(predictions, list) else map(asdict, predictions)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model and its processor, of which the stock method saves parts. Demonstrations are given again when it is loaded."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    # The steps of a pipeline, one image at a time. `__call__` does not take them: the predictor batches across images
    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if kwargs:
            raise ValueError(
                f"{', '.join(map(repr, kwargs))} is no argument of the pipeline. They are {', '.join(_PREDICTOR_ARGUMENTS)}, `demonstrations` and "
                "`few_shot_task`."
            )
        return {}, {}, {}

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        """Return the image, which the predictor prepares."""
        return {"images": inputs}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {"prediction": self.predictor(**model_inputs)}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the prediction as a `dict`."""
        return asdict(model_outputs["prediction"])


_PREDICTOR_ARGUMENTS = (
    *("candidates", "selection", "top_k", "prompt", "separator", "batch_size", "max_new_tokens", "num_beams"),
    *("length_penalty", "generate_kwargs", "length_normalized", "clip", "index_dir", "faiss", "seed", "on_error"),
)
