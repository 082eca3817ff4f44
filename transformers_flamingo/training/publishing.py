# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Write the card of the model of `FlamingoTrainer`, and publish it: it is saved to disk first, so that a network failure does not
lose it.
"""

import inspect
from itertools import zip_longest
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..cards.origins import find_dataset_names
from ..utils.redaction import explain
from .adapters import published_adapter_base
from .card import TrainingRecord, write_training_card


logger = logging.get_logger(__name__)
_TASK = "image-text-to-text"
_CARD_ARGUMENTS = tuple(inspect.signature(Trainer.create_model_card).parameters)


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class PublishingMixin:
    """Mixin of `Trainer` that publishes the model of [`FlamingoTrainer`]."""

    _is_publishing = False

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Create the repository as `Trainer.init_hf_repo` does, which is called before a training. If the Hub cannot be reached,
        the training starts anyway, and the repository is created when it has ended.

        Raises:
            OSError: the Hub refuses to create the repository, or the model is being published and the Hub cannot be reached.
        """
        self.push_in_progress = None
        try:
            super().init_hf_repo(token, private)
        # `huggingface_hub` and its HTTP library raise unrelated types of errors when a network fails
        except Exception as error:
            if self._is_publishing or isinstance(error, HfHubHTTPError | LocalTokenNotFoundError):
                raise OSError(f"The repository on the Hub cannot be created: {explain(error)}") from error
            logger.warning(
                f"The Hub cannot be reached now. It is tried again when the training has ended: {explain(error)}"
            )

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """
        Write a generated card with the facts about the model, its data, hyperparameters and last evaluation.

        Args:
            language, license, tags, model_name: As for [`Trainer.create_model_card`].
            finetuned_from (`str`, *optional*):
                Name of the base model on the Hub; by default that of the Flamingo that was trained, or those of its backbones.
            tasks (`str` or `list[str]`, *optional*): A Flamingo has one, `"image-text-to-text"`.
            dataset_tags (`str` or `list[str]`, *optional*):
                Names of the datasets on the Hub; by default those from which `datasets` loaded the training data. The sources
                of a mixture that are called `OWNER/NAME` are added.
            dataset, dataset_args (`str` or `list[str]`, *optional*): Their names in words, and their configurations.
        """
        if not self.is_world_process_zero():
            return
        if unknown := [task for task in _as_list(tasks) if task != _TASK]:
            logger.warning(
                f"`tasks` is {unknown}, but the card has {_TASK!r}, the task that the Hub knows a Flamingo by."
            )
        names = _as_list(dataset_tags)
        rows = zip_longest(names, _as_list(dataset), _as_list(dataset_args))
        record = TrainingRecord(
            model=self.accelerator.unwrap_model(self.model, keep_torch_compile=False),
            args=self.args,
            steps=self.state.global_step,
            sources=() if self.mixture is None else self.mixture.sources,
            datasets=names or find_dataset_names(self.train_dataset),
            dataset_rows=[
                {"name": name or words or arguments, "dataset": words or "", "configuration": arguments or ""}
                for name, words, arguments in rows
            ],
            log_history=self.state.log_history,
            image_use=self.image_use_summary(),
            facts={
                "language": language,
                "license": license,
                "tags": _as_list(tags),
                "model_name": model_name,
                "base_model": _as_list(finetuned_from),
            },
        )
        write_training_card(record, self.args.output_dir)

    def push_to_hub(self, *args, **kwargs) -> Any:
        """
        Publish as `Trainer.push_to_hub` does.

        Raises:
            OSError: the model is saved, but it could not be published. The message has the command that publishes it later.
        """
        self.save_model(_internal_call=True)
        self.create_model_card(**{name: kwargs[name] for name in _CARD_ARGUMENTS if name in kwargs})
        self._is_publishing = True
        try:
            with published_adapter_base(self.args.output_dir):
                return super().push_to_hub(*args, **kwargs)
        # `huggingface_hub` and its HTTP library raise unrelated types of errors when a network fails
        except Exception as error:
            name = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            raise OSError(
                f"The model is finished and saved in {self.args.output_dir!r}, but it could not be published: "
                f"{explain(error)} When that is resolved, publish it with: hf upload {name} {self.args.output_dir} "
                f'--exclude "{PREFIX_CHECKPOINT_DIR}-*"'
            ) from error
        finally:
            self._is_publishing = False
