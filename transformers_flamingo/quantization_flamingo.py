# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Training beside a quantized language model that is frozen.

`Trainer` refuses a quantized model unless PEFT's adapters are trained on it, because quantized weights have no gradients. The
resampler and the gated blocks of a Flamingo are trained beside its language model, and are never quantized themselves.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import functools
from typing import Any

from torch import nn
from transformers.quantizers import HfQuantizer


class TrainedBeside:
    """
    Mixin of a quantizer whose weights are frozen and have trained parts of full precision beside them.

    `Trainer` asks the quantizer of its model whether the model trains as it is (`is_qat_trainable`), and, here too, whether
    gradients pass through its weights (`is_trainable`).
    """

    @property
    def is_qat_trainable(self) -> bool:
        """Tell `Trainer` that the model trains without adapters."""
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it as what it was made of, since its class is made at run time."""
        return train_beside, (_with_class(self, type(self).__bases__[1]),)


def train_beside(quantizer: HfQuantizer) -> HfQuantizer:
    """Return the quantizer of a language model that is frozen while other parts of its model are trained."""
    if isinstance(quantizer, TrainedBeside):
        return quantizer
    return _with_class(quantizer, _make_class(type(quantizer)))


def keep_gradients(model: nn.Module) -> None:
    """
    Keep the 4-bit weights of bitsandbytes in the form that gradients pass through.

    On some CPUs its layers pack them for inference in the first forward in evaluation mode. What they compute from then on
    has no gradient, in training mode too: an evaluation before or in a training would silently cut off all that is below.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
            module.state_dict()  # unpacks them, if they are packed


@functools.cache
def _make_class(quantizer_class: type[HfQuantizer]) -> type[HfQuantizer]:
    return type(quantizer_class.__name__, (TrainedBeside, quantizer_class), {"__module__": quantizer_class.__module__})


def _with_class(quantizer: HfQuantizer, quantizer_class: type[HfQuantizer]) -> HfQuantizer:
    other = quantizer_class.__new__(quantizer_class)
    other.__dict__.update(quantizer.__dict__)
    return other
