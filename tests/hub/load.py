# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load models as users do, with this package or without, in a separate process: `python load.py {with,without} OUT.json IMAGE_URL`.

`test_hub.py` checks what they see.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, pipeline


package, output, image_url = sys.argv[1:]
if package == "with":
    import transformers_flamingo  # noqa: F401
else:
    sys.modules["transformers_flamingo"] = None  # every import of it fails

trust = {"trust_remote_code": True} if package == "without" else {}
red = Image.new("RGB", (20, 10), (200, 0, 0))


def last_logits(repo_id: str, **kwargs) -> list[float]:
    model = AutoModelForImageTextToText.from_pretrained(repo_id, **trust, **kwargs)
    processor = AutoProcessor.from_pretrained(repo_id, **trust, **kwargs)
    seen["modules"] += [type(model).__module__, type(processor).__module__]
    with torch.no_grad():
        return model(**processor(images=red, text="<image> w5", return_tensors="pt")).logits[0, -1].tolist()


def caption(*args, **kwargs) -> str:
    return pipeline(*args, **kwargs, **trust)(images=red, text="<image> w5", max_new_tokens=4)[0]["generated_text"]


def error_of(repo_id: str, **kwargs) -> str:
    try:
        AutoConfig.from_pretrained(repo_id, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


seen = {"modules": []}
# First, as what is in the cache loads without asking the Hub.
seen["errors"] = {
    "private": error_of("someone/private", token=False),
    "missing": error_of("someone/missing"),
    "revision": error_of("someone/tiny", revision="missing"),
    "no_trust": error_of("someone/tiny"),
}
seen["tiny"] = last_logits("someone/tiny")
seen["other-gates"] = last_logits("someone/tiny", revision="other-gates")
seen["sharded"] = last_logits("someone/sharded")
seen["caption"] = caption("image-text-to-text", model="someone/tiny")
# The task is the card's `pipeline_tag`.
seen["caption_without_task"] = caption(model="someone/tiny")
# What the Hub shows under "Use this model", with its image at an address.
content = [{"type": "image", "url": image_url}, {"type": "text", "text": "w5"}]
messages = [{"role": "user", "content": content}]
seen["snippets"] = []
for task in ("image-text-to-text", "image-to-text"):
    pipe = pipeline(task, model="someone/alone", **trust)
    seen["snippets"].append(pipe(text=messages, max_new_tokens=4)[0]["generated_text"][-1]["content"])
for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
    processor = AutoProcessor.from_pretrained("someone/alone", **trust)
    model = auto_class.from_pretrained("someone/alone", **trust)
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    outputs = model.generate(**inputs, max_new_tokens=4)
    seen["snippets"].append(processor.decode(outputs[0][inputs["input_ids"].shape[-1] :], skip_special_tokens=True))
seen["private"] = type(AutoConfig.from_pretrained("someone/private", **trust)).__name__
AutoModelForImageTextToText.from_pretrained("someone/tiny", **trust).push_to_hub(f"again-{package}")
AutoProcessor.from_pretrained("someone/tiny", **trust).push_to_hub(f"again-{package}")
seen["again"] = last_logits(f"someone/again-{package}")
Path(output).write_text(json.dumps(seen))
