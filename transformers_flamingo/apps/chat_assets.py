# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What the page of `flamingo chat` is given besides its components: style, the dropping of images, and example images."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ..files_flamingo import read_regular_file
from ..images_flamingo import open_bytes


CSS = """
.gradio-container {width: 100%; max-width: 1400px !important; margin: auto}
#prompt textarea {font-family: ui-monospace, monospace; font-size: 0.85rem}
#examples .caption-label, #attention .caption-label {font-size: 0.7rem; max-width: 100%}
footer, button[title="Share"], button[aria-label="Share"] {display: none !important}
body.dropping::after {
    content: "Drop the image to add it to the message"; position: fixed; inset: 0; z-index: 1000; pointer-events: none;
    display: flex; align-items: center; justify-content: center; font-size: 1.5rem; color: white; text-align: center;
    background: rgba(0, 0, 0, 0.55); border: 4px dashed white;
}
@media (max-width: 767px) {
    .gradio-container {padding: 8px !important}
    #chat .placeholder {padding: 0 16px; text-align: center}
    #attention .grid-container {grid-template-columns: repeat(3, 1fr) !important}
    #chat {height: 55vh !important}
}
"""

# An image that is dropped anywhere else than on the box of an example goes to the message, instead of replacing the page.
HEAD = """
<script>
(() => {
    let depth = 0;
    const holdsFiles = (event) => event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files");
    const hasOwnPlace = (event) => event.target.closest && event.target.closest("#example-image, #label-images, #message");
    const show = (on) => document.body.classList.toggle("dropping", on);
    window.addEventListener("dragenter", (event) => {
        if (!holdsFiles(event)) return;
        depth += 1;
        show(!hasOwnPlace(event));
    });
    window.addEventListener("dragleave", (event) => {
        if (!holdsFiles(event)) return;
        depth = Math.max(0, depth - 1);
        if (depth === 0) show(false);
    });
    window.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
    window.addEventListener("drop", (event) => {
        depth = 0;
        show(false);
        if (!holdsFiles(event) || event.flamingo || hasOwnPlace(event)) return;
        event.preventDefault();
        event.stopPropagation();
        const files = Array.from(event.dataTransfer.files).filter((file) => file.type.startsWith("image/"));
        const box = document.querySelector("#message textarea");
        if (!files.length || !box) return;
        const transfer = new DataTransfer();
        files.forEach((file) => transfer.items.add(file));
        const again = new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
        again.flamingo = true;
        box.dispatchEvent(again);
    }, true);
})();
</script>
"""


def draw_example_images() -> list[Path]:
    """Draw three images to try a model with, and return their files, in a new temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="flamingo-chat-"))
    paths = []
    for name in ("red circle", "blue square", "green triangle"):
        color, shape = name.split()
        image = Image.new("RGB", (256, 256), (64, 64, 64))
        draw = ImageDraw.Draw(image)
        if shape == "circle":
            draw.ellipse((64, 64, 192, 192), fill="crimson")
        elif shape == "square":
            draw.rectangle((72, 72, 184, 184), fill="royalblue")
        else:
            draw.polygon(((128, 60), (196, 184), (60, 184)), fill="limegreen")
        paths.append(folder / f"{color}_{shape}.png")
        image.save(paths[-1])
    return paths


def check_example_images(paths: Sequence[str | Path]) -> None:
    """
    Check that files are images.

    Raises:
        ValueError: one of them is not.
    """
    for path in paths:
        try:
            with open_bytes(read_regular_file(path)) as image:
                image.load()
        except Exception as error:  # each of Pillow's decoders raises its own types
            raise ValueError(f"The example image {str(path)!r} cannot be read: {error}. Give an image.") from error
