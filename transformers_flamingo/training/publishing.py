# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Publish the model of `FlamingoTrainer`: it is saved to disk first, so that a network failure does not lose it."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..utils.redaction import explain


logger = logging.get_logger(__name__)


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

    def push_to_hub(self, *args, **kwargs) -> Any:
        """
        Publish as `Trainer.push_to_hub` does.

        Raises:
            OSError: the model is saved, but it could not be published. The message has the command that publishes it later.
        """
        self.save_model(_internal_call=True)
        self.create_model_card()
        self._is_publishing = True
        try:
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
