"""
Caption or classify images by the million, after a few examples, on one machine or many, with Ray Data: `pip install "ray[data]"`.

    python examples/ray_data.py --model MODEL --images IMAGES --output OUTPUT --demonstrations EXAMPLES

MODEL is a folder that all machines see, or a name on the Hub. IMAGES is a folder, a prefix of an object store (`s3://BUCKET/PREFIX`), or
`.parquet` with the columns `image` and `--id_column`. EXAMPLES is a folder with a few images and their texts, in any layout of
docs/data-formats.md. OUTPUT gets `.parquet` files with the path or id of each image, `text`, `score` (of a class) and `error`.

- Each image is in OUTPUT once. A process or machine that dies is replaced, and what it was at is computed again.
- An image that cannot be read has an `error` instead of a text. Any other error ends the job.
- A job that was stopped resumes when the same command is given again; so does a finished one whose IMAGES have become more. What is done
  is in OUTPUT.checkpoint, and OUTPUT.settings.json has what the texts depend on. Remove all three to begin anew.

Without a cluster, it starts Ray on this machine. In a cluster, submit it with `ray job submit`. docs/few-shot.md says when to use it.
"""

import argparse
import hashlib
import json
import os

import pyarrow as pa
import pyarrow.dataset
import ray
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.data.checkpoint import CheckpointConfig

from transformers_flamingo.data import FORMATS, decode_image, detect_format
from transformers_flamingo.data.data_files import IMAGE_SUFFIXES
from transformers_flamingo.few_shot.predictor import FewShotPredictor


class Predictor:
    """
    Hold a model in a process of its own, an actor, and predict the texts of batches of images.

    Args:
        id_column (`str`): The column that tells the images apart.
        kwargs: Arguments of [`FewShotPredictor.from_pretrained`].
    """

    def __init__(self, id_column: str, **kwargs):
        self.id_column = id_column
        self.predictor = FewShotPredictor.from_pretrained(on_error="skip", **kwargs)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the id of each image with its text, or with the reason why it has none."""
        ids, images = batch[self.id_column], batch["image"].to_pylist()
        images = [
            image if isinstance(image, dict) else {"bytes": image, "path": str(name)}
            for name, image in zip(ids, images, strict=True)
        ]
        predictions = self.predictor(images)
        rows = [{"text": one.text, "score": one.score, "error": one.error} for one in predictions]
        columns = pa.Table.from_pylist(
            rows, pa.schema([("text", pa.string()), ("score", pa.float64()), ("error", pa.string())])
        )
        return columns.add_column(0, self.id_column, ids)


def main(arguments: list[str] | None = None) -> None:
    """Predict the texts of all images that have none yet, and count what is in the output."""
    options = _parse(arguments)
    output, id_column = _full(options.output), options.id_column or "path"
    examples = [] if options.demonstrations is None else _read_demonstrations(options.demonstrations)
    settings = {"model": options.model, "task": options.task, "prompt": options.prompt}
    shown = [[text, hashlib.sha256(image.tobytes()).hexdigest()] for image, text in examples]
    _check_output(output, {**settings, "demonstrations": shown})
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
    _check_resources(options, gpus)

    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column, f"{output}.checkpoint", delete_checkpoint_on_success=False)
    rows = _read_images(_full(options.images), options.id_column).map_batches(
        Predictor,
        fn_constructor_kwargs={
            "id_column": id_column,
            "name_or_path": options.model,
            "demonstrations": examples,
            "task": options.task,
            "prompt": options.prompt,
            "batch_size": options.batch_size,
        },
        batch_size=8 * options.batch_size,  # images are decoded while others are computed
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=options.cpus_per_actor,
        num_gpus=gpus,
    )
    rows.write_parquet(output, min_rows_per_file=options.rows_per_file)
    _report(output, id_column)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument(
        "--demonstrations", help="Folder of a few images with captions, which are shown before each image."
    )
    parser.add_argument(
        "--id_column", help="IMAGES is .parquet with the column `image` and this one, which is different in each row."
    )
    parser.add_argument("--task", choices=["caption", "classify"], default="caption")
    parser.add_argument(
        "--prompt", help="Text between an image and its text, such as 'Question:Who is it? Short answer:'."
    )
    parser.add_argument("--actors", type=int, default=1, help="Processes with a model.")
    parser.add_argument("--cpus_per_actor", type=float, default=1)
    parser.add_argument(
        "--gpus_per_actor", type=float, help="Less than 1 shares a GPU (default: 1 if there are GPUs)."
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument(
        "--rows_per_file", type=int, default=1000, help="A stopped job loses at most so many rows per writer."
    )
    return parser.parse_args(arguments)


def _full(path: str) -> str:
    """Return an address as it is, and a local path in full: images keep their names when the job is started elsewhere."""
    return path if "://" in path else os.path.abspath(path)


def _read_demonstrations(path: str) -> list[tuple]:
    """Return pairs of an image and its text, from files of any layout."""
    reader = FORMATS[detect_format(path).format]()
    chunks = [chunk for row in reader.load(path) for chunk in reader.read(row)]
    return [(decode_image(chunk.item, path), chunk.text) for chunk in chunks]


def _read_images(path: str, id_column: str | None) -> ray.data.Dataset:
    """Read undecoded images: Ray would end the job at the first one that is damaged."""
    if id_column is not None:
        return ray.data.read_parquet(path, columns=[id_column, "image"])
    rows = ray.data.read_binary_files(path, include_paths=True, file_extensions=list(IMAGE_SUFFIXES))
    return rows.rename_columns({"bytes": "image"})


def _check_output(output: str, texts: dict) -> None:
    """Refuse to mix texts that were made differently, or with unknown ones."""
    files, name = FileSystem.from_uri(output)
    settings, progress = f"{name}.settings.json", f"{name}.checkpoint"
    has_settings, has_progress = (info.type != FileType.NotFound for info in files.get_file_info([settings, progress]))
    has_texts = bool(files.get_file_info(FileSelector(name, allow_not_found=True)))
    if has_texts and not (has_settings and has_progress):
        raise SystemExit(
            f"{output} has files, and nothing says which images are done. Give another --output, or remove it."
        )
    if has_settings:
        with files.open_input_stream(settings) as file:
            saved = json.loads(file.read())
        if saved != texts:
            raise SystemExit(f"{output} has texts of {saved}, and these would be of {texts}. Give another --output.")
        return
    with files.open_output_stream(settings) as file:
        file.write(json.dumps(texts).encode())


def _check_resources(options: argparse.Namespace, gpus: float) -> None:
    """Refuse what Ray would wait for without a word: actors that leave no CPU to read and write."""
    has = ray.cluster_resources()
    needed = {"CPU": options.actors * options.cpus_per_actor + 1, "GPU": options.actors * gpus}
    for kind, number in needed.items():
        if number > has.get(kind, 0):
            raise SystemExit(
                f"{options.actors} actors, and a task that reads and writes, need {number:g} {kind}s, and Ray has {has.get(kind, 0):g}. Lower "
                f"--actors or --{kind.lower()}s_per_actor, or start the machines of a cluster that grows before the job."
            )


def _report(output: str, id_column: str) -> None:
    files, name = FileSystem.from_uri(output)
    rows = pyarrow.dataset.dataset(name, filesystem=files)
    bad = rows.scanner(columns=[id_column, "error"], filter=pyarrow.dataset.field("error").is_valid())
    count = bad.count_rows()
    print(f"{output}: {rows.count_rows():,} images; {count:,} of them without a text")
    for row in bad.head(3).to_pylist():
        print(f"    {row['error']}")


if __name__ == "__main__":
    main()
