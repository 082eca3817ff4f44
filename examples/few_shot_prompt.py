"""
Build a few-shot prompt: images with texts, then an image to complete the text of.

    python examples/few_shot_prompt.py [MODEL_DIRECTORY]

Without a directory it joins the two miniature backbones, which have not been trained together: the prompt is correct, but
the answer is a guess. `flamingo demo` trains such a model.
"""

import sys

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


def main(model_directory: str | None = None) -> str:
    """Print the prompt and the answer, and return the answer."""
    if model_directory is None:
        backbones = vision_backbone_path(), text_backbone_path()
        processor = FlamingoProcessor.from_vision_text_pretrained(*backbones)
        model = FlamingoModel.from_vision_text_pretrained(*backbones)
    else:
        processor = AutoProcessor.from_pretrained(model_directory)
        model = AutoModelForImageTextToText.from_pretrained(model_directory)

    red, blue, query = (Image.new("RGB", (64, 64), color) for color in ("red", "blue", "red"))
    prompt = processor.few_shot_prompt([(red, "red"), (blue, "blue")], query_image=query)
    inputs = processor(**prompt, return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=8)
    answer = processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    print("prompt:", prompt["text"][0])
    print("answer:", answer)
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:2])
