# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The `flamingo` command. Each subcommand is a thin function over what the package offers in Python.

    flamingo demo                                     # train a small Flamingo, offline, in minutes
    flamingo demo --few-shot                          # a small Flamingo that binds new words from its prompt
    flamingo caption PICTURE... --model DIRECTORY     # caption pictures
    flamingo convert open-flamingo CHECKPOINT DIRECTORY   # a checkpoint of OpenFlamingo or flamingo-mini
    flamingo miniature-backbones vision DIRECTORY     # train the demo's backbones again
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


# Imports are inside the subcommands: `flamingo --help` should not wait for torch, and the core must not need extras.


def demo(arguments: argparse.Namespace) -> None:
    if arguments.few_shot:
        from .miniature.few_shot import FewShotArguments as Arguments
        from .miniature.few_shot import run_few_shot as run
    else:
        from .miniature.demo import DemoArguments as Arguments
        from .miniature.demo import run_demo as run

    fields = {field.name for field in dataclasses.fields(Arguments)}
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    options = {"command", "run", "few_shot"}
    if unknown := given.keys() - fields - options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unknown))
        raise ValueError(
            f"{names} has no effect {'with' if arguments.few_shot else 'without'} --few-shot. Leave it out."
        )
    run(Arguments(**{name: value for name, value in given.items() if name in fields}))


def caption(arguments: argparse.Namespace) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import transformers_flamingo  # noqa: F401  registers the model with the Auto classes

    missing = [path for path in arguments.images if not Path(path).is_file() and "://" not in path]
    if missing:
        raise FileNotFoundError(f"No such picture: {', '.join(missing)}. Nothing was captioned.")
    processor = AutoProcessor.from_pretrained(arguments.model)
    model = AutoModelForImageTextToText.from_pretrained(arguments.model)
    text = processor.image_token + arguments.prompt
    for path in arguments.images:
        inputs = processor(images=[[path]], text=[text], return_tensors="pt").to(model.device)
        generated = model.generate(
            **inputs, max_new_tokens=arguments.max_new_tokens, num_beams=arguments.num_beams, do_sample=False
        )
        new = generated[:, inputs["input_ids"].shape[1] :]
        print(f"{path}: {processor.batch_decode(new, skip_special_tokens=True)[0].strip()}", flush=True)


def convert(arguments: argparse.Namespace) -> None:
    import torch

    from .checkpoints import conversion, convert_flamingo_mini, convert_open_flamingo

    options = {"vision": arguments.vision, "text": arguments.text, "tokenizer": arguments.tokenizer}
    options |= {"dtype": getattr(torch, arguments.dtype), "dry_run": arguments.dry_run}
    if arguments.peer == "open-flamingo":
        options["cross_attention_every_n_layers"] = arguments.cross_attention_every_n_layers
        convert_peer = convert_open_flamingo
    else:
        convert_peer = convert_flamingo_mini
    table = convert_peer(arguments.checkpoint, arguments.output_dir, **options)
    if arguments.dry_run:
        print(conversion.format_table(table))
    else:
        print(f"{arguments.output_dir}: a Flamingo for AutoModelForImageTextToText.from_pretrained")


def miniature_backbones(arguments: argparse.Namespace) -> None:
    from .miniature.backbones import read_training_record
    from .model_card import write_model_card

    if arguments.backbone == "vision":
        from .miniature.vision_backbone import train_vision_backbone as train

        kind = "miniature-clip"
    else:
        from .miniature.text_backbone import train_text_backbone as train

        kind = "miniature-gpt2"
    train(arguments.output_dir, seed=arguments.seed)
    record = read_training_record(arguments.output_dir)
    write_model_card(kind, record, Path(arguments.output_dir) / "README.md")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flamingo", description="Flamingo, the few-shot visual language model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        return command

    command = add("demo", demo, "Train a small Flamingo on drawn pictures, offline, and report what it learned.")
    command.add_argument(
        "--few-shot", action="store_true", help="show how the shipped few-shot model binds new words from its prompt"
    )
    command.add_argument(
        "--from-scratch", action="store_true", default=None, help="with --few-shot: train that model again first"
    )
    command.add_argument(
        "--output-dir", help="folder of the report and the model (default: flamingo-demo or flamingo-few-shot)"
    )
    command.add_argument("--seed", type=int, help="seed of pictures, weights and order (default: 0)")
    for name in ("max-steps", "batch-size", "train-size", "test-size", "num-captions", "episodes"):
        command.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    command.add_argument("--split", help=argparse.SUPPRESS)
    for name in ("learning-rate", "gate-learning-rate-multiplier", "scale"):
        command.add_argument(f"--{name}", type=float, help=argparse.SUPPRESS)

    command = add("caption", caption, "Caption pictures with a saved Flamingo.")
    command.add_argument("images", nargs="+", metavar="PICTURE", help="files or URLs")
    command.add_argument("--model", required=True, help="directory or Hub name of the model")
    command.add_argument("--prompt", default="", help="text after the image, such as 'Output:'")
    command.add_argument("--max-new-tokens", type=int, default=32, help="tokens at most (default: %(default)s)")
    command.add_argument("--num-beams", type=int, default=1, help="beams of beam search (default: %(default)s)")

    command = add("convert", convert, "Convert a checkpoint of OpenFlamingo or flamingo-mini.")
    command.add_argument("peer", choices=["open-flamingo", "flamingo-mini"], help="whose checkpoint it is")
    command.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="file (open-flamingo), directory (flamingo-mini), or released Hub name",
    )
    command.add_argument("output_dir", metavar="DIRECTORY", help="where to write it; must not exist, or be empty")
    command.add_argument("--vision", help="name or directory of the vision encoder (a released name fills it in)")
    command.add_argument("--text", help="name or directory of the language model (likewise)")
    command.add_argument("--tokenizer", help="name or directory of its tokenizer (default: that of --text)")
    command.add_argument(
        "--cross-attention-every-n-layers", type=int, help="interval of the gated blocks (open-flamingo; likewise)"
    )
    command.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="what to write (default: %(default)s)",
    )
    command.add_argument("--dry-run", action="store_true", help="check, print the mapping table, and write nothing")

    command = add("miniature-backbones", miniature_backbones, "Train one of the demo's two backbones from scratch.")
    command.add_argument("backbone", choices=["vision", "text"], help="which one")
    command.add_argument("output_dir", metavar="DIRECTORY", help="where to write it")
    command.add_argument("--seed", type=int, default=0, help="seed of data and weights (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        # What a user can mend is a message, not a traceback.
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = '\nInstall what this command needs: pip install "transformers-flamingo[demo]"'
        print(f"flamingo {arguments.command}: {error}{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
