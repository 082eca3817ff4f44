# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Silence messages of other libraries that a user of the `flamingo` command cannot act on."""

import logging
import os
import re
import sys
import warnings


# The logger or category, the beginning of the message, and the reason why nobody who runs a command needs it
_LOGGED = (
    # The kernels for 4-bit weights on a CPU are optional, and the message comes even if no weight has 4 bits
    ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
    # The rows of `<image>` and `<|endofchunk|>` are meant to be initialized like this
    ("transformers.modeling_utils", "The new embeddings will be initialized"),
    ("transformers.modeling_utils", "The new lm_head weights will be initialized"),
    # For language models whose class is not named ...ForCausalLM, such as GPT-2. The default is the right loss
    ("transformers.modeling_utils", "`loss_type=None` was set in the config"),
)
_WARNED = (
    # peft reads names that transformers has renamed
    (FutureWarning, "`is_gradient_checkpointing` is deprecated"),
    (FutureWarning, "`gradient_checkpointing_enable` is deprecated"),
    # For each loader. Once, the training says it in one line, with the option
    (UserWarning, "This DataLoader will create "),
    # peft 0.20 checks whether the vocabulary of a base model without a name was resized. The adapter has its new rows
    (UserWarning, "Could not find a config file in "),
)


class _Silence(logging.Filter):
    def __init__(self, beginning: str):
        super().__init__()
        self.beginning = beginning

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self.beginning)


def quiet_libraries() -> None:
    """
    Silence single messages of other libraries in this process, and progress bars of loading if the output is not a terminal. Of
    several processes that train one model (`RANK`), only the first warns and shows progress.

    All other messages are shown. Call it before the libraries are imported. It is for the command only: a library that is imported
    leaves the settings of its user alone.
    """
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    for name, beginning in _LOGGED:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Silence) and f.beginning == beginning for f in logger.filters):
            logger.addFilter(_Silence(beginning))
    for category, beginning in _WARNED:
        warnings.filterwarnings("ignore", re.escape(beginning), category)
    is_first = os.environ.get("RANK", "0") == "0"
    if not is_first:  # several processes train one model, and say the same
        logging.getLogger("transformers_flamingo").setLevel(logging.ERROR)
        set_verbosity_error()
        os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if not is_first or not sys.stderr.isatty():  # in a log file, each step would be a line
        disable_progress_bar()
