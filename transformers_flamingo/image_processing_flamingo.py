# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Image processor of converted OpenFlamingo checkpoints. It travels with them as remote code: it stays flat."""

import numpy as np
from transformers.image_utils import SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


class FlamingoImageProcessor(CLIPImageProcessorPil):
    """
    CLIP's preprocessing, pixel for pixel as OpenFlamingo does it: Pillow's bicubic resize of the short side, then the
    centre crop of torchvision. That crop starts at `round(difference / 2)`, with half rounded to even, where
    transformers rounds down: one pixel apart whenever the difference is 3 modulo 4.

    Palette, bilevel, CMYK and YCbCr images differ: OpenFlamingo resized them in their own mode, the first two without
    a filter, and made them RGB after the crop. Here they become RGB first.
    """

    def center_crop(self, image: np.ndarray, size: SizeDict, **kwargs) -> np.ndarray:
        """The middle `(C, size.height, size.width)` of an image `(C, H, W)`; a smaller one is padded with zeros."""
        height, width = image.shape[-2:]
        if height < size.height or width < size.width:
            return super().center_crop(image, size, **kwargs)
        top, left = round((height - size.height) / 2), round((width - size.width) / 2)
        return image[..., top : top + size.height, left : left + size.width]


FlamingoImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["FlamingoImageProcessor"]
