# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Keep messages of other libraries on which a user cannot act out of the output of the `flamingo` command."""

import logging
import re
import sys
import warnings

from transformers.utils.logging import disable_progress_bar


# Who says it, the beginning of what is said, and why nobody who runs a command needs to know
_LOGGED = (
    # Its kernels for 4-bit weights on a CPU are optional, also where nothing is in 4 bits
    ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
    # The rows of `<image>` and `<|endofchunk|>` are meant to be drawn so
    ("transformers.modeling_utils", "The new embeddings will be initialized"),
    ("transformers.modeling_utils", "The new lm_head weights will be initialized"),
    # Of language models whose class is not named ...ForCausalLM, such as GPT-2: the default is the right loss
    ("transformers.modeling_utils", "`loss_type=None` was set in the config"),
)
_WARNED = (
    # peft reads names that transformers has renamed
    (FutureWarning, "`is_gradient_checkpointing` is deprecated"),
    (FutureWarning, "`gradient_checkpointing_enable` is deprecated"),
    # peft 0.20 asks whether the vocabulary of a base model without a name was resized; the adapter has its new rows
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
    Silence single messages of other libraries in this process, and progress bars of loading where no one watches them.

    All else that they say is heard. Call it before they are imported. It is for commands: a library that is imported leaves the
    settings of its user alone.
    """
    for name, beginning in _LOGGED:
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Silence) and f.beginning == beginning for f in logger.filters):
            logger.addFilter(_Silence(beginning))
    for category, beginning in _WARNED:
        warnings.filterwarnings("ignore", re.escape(beginning), category)
    if not sys.stderr.isatty():  # in a log file, each step would be a line
        disable_progress_bar()
