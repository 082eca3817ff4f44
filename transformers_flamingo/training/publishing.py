# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Publish the model of `FlamingoTrainer`: it is written to the disk first, and a network that fails costs nothing of it."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..utils.redaction import explain


logger = logging.get_logger(__name__)


class PublishingMixin:
    """Publish in [`FlamingoTrainer`]: a mixin of `Trainer`."""

    _is_publishing = False

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """
        Make the repository as `Trainer.init_hf_repo` does, which is called before a training: where the Hub cannot be
        reached, the training begins all the same, and the end of it tries again.
        """
        self.push_in_progress = None
        try:
            super().init_hf_repo(token, private)
        except Exception as error:
            if self._is_publishing or isinstance(error, HfHubHTTPError | LocalTokenNotFoundError):
                raise OSError(f"The repository on the Hub cannot be made: {explain(error)}") from error
            logger.warning(
                f"The Hub cannot be reached now, and will be tried again when the training has ended: {explain(error)}"
            )

    def push_to_hub(self, *args, **kwargs) -> Any:
        """
        Publish as `Trainer.push_to_hub` does.

        Raises:
            OSError: the model is saved, but it could not be published. The message has the command that does it later.
        """
        self.save_model(_internal_call=True)
        self.create_model_card()
        self._is_publishing = True
        try:
            return super().push_to_hub(*args, **kwargs)
        except Exception as error:  # of the client, of its HTTP library, or of the network
            name = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).absolute().name
            raise OSError(
                f"The model is finished and saved in {self.args.output_dir!r}, but it could not be published: "
                f"{explain(error)} When that is resolved, publish it with: hf upload {name} {self.args.output_dir} "
                f'--exclude "{PREFIX_CHECKPOINT_DIR}-*"'
            ) from error
        finally:
            self._is_publishing = False
