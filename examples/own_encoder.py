"""
Use a Flamingo without a vision encoder, with your own features (of a medical scan or a sound) instead of pixels.

    python examples/own_encoder.py

The features of one "image" are any sequence of `P` vectors of width `Dv`.
"""

import torch

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


def main() -> torch.Tensor:
    """Compute a gradient, generate, and return the generated ids `(B, T)`."""
    width = 40  # Dv of your encoder
    model = FlamingoModel.from_vision_text_pretrained(None, text_backbone_path(), vision_hidden_size=width)
    # The image processor is never called, so it can be any
    processor = FlamingoProcessor.from_vision_text_pretrained(vision_backbone_path(), text_backbone_path())

    inputs = processor(text=["<image>a red circle<|endofchunk|><image>"], return_tensors="pt")
    features = torch.randn(1, 2, 30, width)  # (B, N, P, Dv): one sample, two scans, 30 vectors each
    given = {"image": {"last_hidden_state": features}}

    loss = model(**inputs, labels=inputs["input_ids"], mm_encoder_outputs=given).loss
    loss.backward()  # trains the resampler and the gates, as with pixels
    generated = model.generate(**inputs, mm_encoder_outputs=given, max_new_tokens=8)
    print(processor.batch_decode(generated)[0])
    return generated


if __name__ == "__main__":
    main()
