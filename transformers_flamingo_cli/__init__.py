# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The `flamingo` command. Each subcommand is a thin function over what the package offers in Python.

    flamingo demo                                     # train a small Flamingo, offline, in minutes
    flamingo demo --few-shot                          # a small Flamingo that binds new words from its prompt
    flamingo caption IMAGE... --model DIRECTORY       # caption images
    flamingo chat DIRECTORY                           # talk with a model about images, on a page in the browser
    flamingo convert open-flamingo CHECKPOINT DIRECTORY   # a checkpoint of OpenFlamingo or flamingo-mini
    flamingo train RECIPE --max_steps 100             # train as a YAML file says, with what is different this time
    flamingo evaluate MODEL --task coco --data DIRECTORY   # few-shot evaluation
    flamingo pretrain vision RECIPE                   # a vision encoder by contrast with captions, or a language model
    flamingo miniature-data DIRECTORY                 # drawn pictures in published layouts, to train on
    flamingo miniature-backbones vision DIRECTORY     # train the demo's backbones again
"""

import argparse
import dataclasses
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from transformers_flamingo.utils.errors import user_message
from transformers_flamingo.utils.quiet import quiet_libraries
from transformers_flamingo.utils.redaction import one_line


# Imports are inside the subcommands: `flamingo --help` should not wait for torch, and the core must not need extras.


def demo(arguments: argparse.Namespace) -> None:
    if arguments.few_shot:
        from transformers_flamingo_miniature.few_shot import FewShotArguments as Arguments
        from transformers_flamingo_miniature.few_shot import run_few_shot as run
    else:
        from transformers_flamingo_miniature.demo import DemoArguments as Arguments
        from transformers_flamingo_miniature.demo import run_demo as run

    fields = {field.name for field in dataclasses.fields(Arguments)}
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    options = {"command", "run", "few_shot"}
    if unknown := given.keys() - fields - options:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unknown))
        raise ValueError(f"{names} has no effect {'with' if arguments.few_shot else 'without'} --few-shot. Remove it.")
    run(Arguments(**{name: value for name, value in given.items() if name in fields}))


def caption(arguments: argparse.Namespace) -> None:
    from transformers_flamingo.data.literal_text import encode_literal, special_token_spans
    from transformers_flamingo.utils.loading import check_answer_length, load_flamingo

    missing = [path for path in arguments.images if not Path(path).is_file() and "://" not in path]
    if missing:
        raise FileNotFoundError(f"No such image: {', '.join(missing)}. Nothing was captioned. Check the paths.")
    model, processor = load_flamingo(arguments.model)
    marker = processor.image_token
    # What the user typed is text, a marker in it included
    typed = [
        (len(marker) + start, len(marker) + end) for start, end in special_token_spans(processor, arguments.prompt)
    ]
    prompt = encode_literal(processor, marker + arguments.prompt, typed, [])
    check_answer_length(model, prompt["input_ids"].shape[1], arguments.max_new_tokens)
    for path in arguments.images:
        inputs = encode_literal(processor, marker + arguments.prompt, typed, [path])
        inputs = inputs.to(model.device, model.dtype)
        generated = model.generate(
            **inputs, max_new_tokens=arguments.max_new_tokens, num_beams=arguments.num_beams, do_sample=False
        )
        new = generated[:, inputs["input_ids"].shape[1] :]
        print(f"{path}: {processor.batch_decode(new, skip_special_tokens=True)[0].strip()}", flush=True)


def chat(arguments: argparse.Namespace) -> None:
    from transformers_flamingo.apps.chat import run_chat

    run_chat(arguments.model, arguments.host, arguments.port, arguments.share, arguments.dtype)


def convert(arguments: argparse.Namespace) -> None:
    import torch

    from transformers_flamingo.conversion import conversion, convert_flamingo_mini, convert_open_flamingo

    options = {"vision": arguments.vision, "text": arguments.text, "tokenizer": arguments.tokenizer}
    options |= {"dtype": getattr(torch, arguments.dtype), "dry_run": arguments.dry_run}
    if arguments.peer == "open-flamingo":
        options["cross_attention_every_n_layers"] = arguments.cross_attention_every_n_layers
        convert_peer = convert_open_flamingo
    else:
        convert_peer = convert_flamingo_mini
    # The default action ends the process at once, and would leave a half-written directory.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        table = convert_peer(arguments.checkpoint, arguments.output_dir, **options)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if arguments.dry_run:
        print(conversion.format_table(table))
    else:
        print(f"{arguments.output_dir}: a Flamingo for AutoModelForImageTextToText.from_pretrained")


def train(arguments: argparse.Namespace) -> None:
    from transformers_flamingo.training import read_recipe, run_recipe

    recipe = read_recipe(arguments.recipe, arguments.others)
    run_recipe(recipe)
    print(f"{recipe.training.output_dir}: the model, its card, samples.jsonl and report/")


def evaluate(arguments: argparse.Namespace) -> None:
    import torch
    from accelerate import PartialState

    from transformers_flamingo.evaluation.config import EvaluationConfig
    from transformers_flamingo.evaluation.evaluate import evaluate as evaluate_task
    from transformers_flamingo.evaluation.published import published_scores
    from transformers_flamingo.evaluation.report import (
        check_results,
        describe_queries,
        plot_results,
        write_evaluation_card,
    )
    from transformers_flamingo.evaluation.tasks import make_task
    from transformers_flamingo.utils.loading import load_flamingo

    options = dict(arguments.option)
    tasks = [make_task(name, arguments.data, options) for name in arguments.task]
    if arguments.data is not None and not any(hasattr(task, "data") for task in tasks):
        raise ValueError(
            f"--data {arguments.data} has no effect: {', '.join(arguments.task)} reads no files. Remove it."
        )
    protocol = EvaluationConfig(
        shots=arguments.shots,
        seeds=arguments.seeds,
        selection=arguments.selection,
        support_size=arguments.support_size,
        num_queries=arguments.num_queries,
        num_orders=arguments.num_orders,
        blind=not arguments.no_blind,
        rices_clip=arguments.rices_clip,
    )
    # On a CPU it would not see the other processes of `torchrun` by itself
    state = PartialState(cpu=not torch.accelerator.is_available())
    # What the last steps need is checked first: they come after hours
    if state.is_main_process:
        import matplotlib  # noqa: F401

        check_results(arguments.output_dir)
    dtype = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model, processor = load_flamingo(arguments.model, dtype, state.device)
    name = Path(arguments.model).name
    for task in tasks:
        directory = Path(arguments.output_dir) / task.name
        summary = evaluate_task(
            model, processor, task, directory, protocol, batch_size=arguments.batch_size, model_name=name
        )
        if state.is_main_process:
            plot_results(directory / "shots.png", summary, published_scores(task.name))
            for entry in summary["results"]:
                blind = f", blind {entry['blind_mean']:.1f}" if "blind_mean" in entry else ""
                print(
                    f"{describe_queries(summary)}, {entry['shots']} shots: {summary['metric']} {entry['mean']:.1f}{blind}",
                    flush=True,
                )
    if state.is_main_process:
        write_evaluation_card(model, arguments.output_dir, model_name=name)


def pretrain(arguments: argparse.Namespace) -> None:
    from transformers_flamingo import pretraining

    if arguments.backbone == "vision":
        kind, run = pretraining.VisionPretrainingArguments, pretraining.pretrain_vision
    else:
        kind, run = pretraining.TextPretrainingArguments, pretraining.pretrain_text
    options, training = pretraining.read_pretraining_recipe(kind, arguments.recipe, arguments.others)
    run(options, training)
    print(f"{training.output_dir}: a {arguments.backbone} backbone for FlamingoModel.from_vision_text_pretrained")


def miniature_data(arguments: argparse.Namespace) -> None:
    from transformers_flamingo_miniature.files import SPLITS, write_training_files

    for split, share in SPLITS.items():
        sizes = {"num_pictures": arguments.num_pictures, "num_videos": arguments.num_videos}
        sizes = {name: max(int(size * share), 1) for name, size in sizes.items()}
        for path in write_training_files(
            Path(arguments.output_dir) / split, split, **sizes, seed=arguments.seed
        ).values():
            print(path, flush=True)


def miniature_backbones(arguments: argparse.Namespace) -> None:
    from transformers_flamingo.cards.rendering import write_card
    from transformers_flamingo_miniature.shipped import card_template, read_training_record

    if arguments.backbone == "vision":
        from transformers_flamingo_miniature.vision_backbone import train_vision_backbone as train

        kind = "miniature-clip"
    else:
        from transformers_flamingo_miniature.text_backbone import train_text_backbone as train

        kind = "miniature-gpt2"
    Path(arguments.output_dir).mkdir(parents=True, exist_ok=True)  # a wrong path is found before hours of training
    train(arguments.output_dir, seed=arguments.seed)
    record = read_training_record(arguments.output_dir)
    write_card(card_template(kind), record, Path(arguments.output_dir) / "README.md")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: whole numbers from `least` to `most`."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least or (most is not None and number > most):
            limits = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {limits}")
        return number

    return convert


def positive_number(text: str) -> float:
    """Convert a finite number above 0: an argparse type."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def field_and_value(text: str) -> tuple[str, str]:
    """Split `FIELD=VALUE`: an argparse type."""
    field, equals, value = text.partition("=")
    if not field or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return field, value


POSITIVE, NOT_NEGATIVE = whole_number(1), whole_number(0)
SEED = whole_number(0, 2**32 - 1)  # the largest that numpy takes


class _Parser(argparse.ArgumentParser):
    """Report an error in one line, without the usage of all options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}. See `{self.prog} --help`.\n")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="flamingo", description="Flamingo, the few-shot visual language model.")
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
    command.add_argument("--seed", type=SEED, help="seed of pictures, weights and order (default: 0)")
    for name in ("max-steps", "batch-size", "train-size", "test-size", "num-captions", "episodes"):
        command.add_argument(f"--{name}", type=POSITIVE, help=argparse.SUPPRESS)
    command.add_argument("--split", help=argparse.SUPPRESS)
    for name in ("learning-rate", "gate-learning-rate-multiplier", "scale"):
        command.add_argument(f"--{name}", type=positive_number, help=argparse.SUPPRESS)

    command = add("caption", caption, "Caption images with a saved Flamingo.")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="files or URLs")
    command.add_argument("--model", required=True, help="directory or Hub name of the model")
    command.add_argument("--prompt", default="", help="text after the image, such as 'Output:'")
    command.add_argument("--max-new-tokens", type=POSITIVE, default=32, help="maximum (default: %(default)s)")
    command.add_argument("--num-beams", type=POSITIVE, default=1, help="beams of beam search (default: %(default)s)")

    command = add("chat", chat, "Talk with a saved Flamingo about images, on a page in the browser.")
    command.add_argument("model", metavar="DIRECTORY", help="directory or Hub name of the model")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine)"
    )
    command.add_argument("--port", type=whole_number(1, 65535), help="(default: the first that is free from 7860)")
    command.add_argument("--share", action="store_true", help="open a public link through Gradio's servers")
    command.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="(default: as saved)"
    )

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
        "--cross-attention-every-n-layers",
        type=POSITIVE,
        help="interval of the gated blocks (open-flamingo; likewise)",
    )
    command.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="what to write (default: %(default)s)",
    )
    command.add_argument("--dry-run", action="store_true", help="check, print the mapping table, and write nothing")

    command = add("train", train, "Train a Flamingo as a recipe says. All other options change the recipe.")
    command.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe")
    command.epilog = (
        "Any field of ModelArguments, DataArguments and FlamingoTrainingArguments is an option: --max_steps 100, "
        "--output_dir runs/1, --lora_rank 16; sources are changed by --data.NAME.FIELD VALUE."
    )
    command.set_defaults(takes_others=True)

    command = add("evaluate", evaluate, "Measure few-shot learning on benchmarks, or on your own data.")
    command.add_argument("model", metavar="MODEL", help="directory or Hub name of the model")
    command.add_argument("--task", nargs="+", required=True, help="names of tasks")
    command.add_argument("--data", help="folder of a benchmark's files, or of the datasets that tasks are named after")
    command.add_argument(
        "--option",
        nargs="*",
        default=[],
        type=field_and_value,
        metavar="FIELD=VALUE",
        help="other fields of the tasks, such as split=test",
    )
    command.add_argument(
        "--shots", type=NOT_NEGATIVE, nargs="+", default=[0, 4, 8, 16, 32], help="(default: 0 4 8 16 32)"
    )
    command.add_argument("--seeds", type=SEED, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    command.add_argument(
        "--selection",
        choices=["random", "fixed", "rices"],
        default="random",
        help="demonstrations: others for each query, the same for all, or the most similar (default: %(default)s)",
    )
    command.add_argument("--rices-clip", help="CLIP to compare images by (default: the model's own vision encoder)")
    command.add_argument(
        "--support-size", type=POSITIVE, default=2048, help="pool of demonstrations (default: %(default)s)"
    )
    command.add_argument(
        "--num-queries",
        type=POSITIVE,
        help="ask a random subset of this size; its scores are marked as such (default: all)",
    )
    command.add_argument("--num-orders", type=POSITIVE, default=1, help="orders of the shots to average (default: 1)")
    command.add_argument("--no-blind", action="store_true", help="omit the score without images")
    command.add_argument("--batch-size", type=POSITIVE, default=8, help="queries at once (default: %(default)s)")
    command.add_argument(
        "--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="(default: as saved)"
    )
    command.add_argument("--output-dir", default="evaluation", help="a folder for each task (default: %(default)s)")

    command = add("pretrain", pretrain, "Train a backbone as a recipe says. All other options change the recipe.")
    command.add_argument("backbone", choices=["vision", "text"], help="by contrast with captions, or on text")
    command.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe")
    command.set_defaults(takes_others=True)

    command = add("miniature-data", miniature_data, "Draw the miniature world and write it in published layouts.")
    command.add_argument("output_dir", metavar="DIRECTORY", help="where to write train/, validation/ and the tests")
    command.add_argument(
        "--num-pictures", type=POSITIVE, default=8000, help="of the train split (default: %(default)s)"
    )
    command.add_argument("--num-videos", type=POSITIVE, default=1000, help="likewise (default: %(default)s)")
    command.add_argument("--seed", type=SEED, default=0, help="seed of the world (default: %(default)s)")

    command = add("miniature-backbones", miniature_backbones, "Train one of the demo's two backbones from scratch.")
    command.add_argument("backbone", choices=["vision", "text"], help="which one")
    command.add_argument("output_dir", metavar="DIRECTORY", help="where to write it")
    command.add_argument("--seed", type=SEED, default=0, help="seed of data and weights (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments, others = parser.parse_known_args(argv)
    if getattr(arguments, "takes_others", False):
        arguments.others = others
    elif others:
        # Without their values: one may be a token
        options = [other.partition("=")[0] for other in others if other.startswith("-")]
        parser.error(f"unrecognized arguments: {' '.join(options or others)}")
    name = f"flamingo {arguments.command}"
    try:
        quiet_libraries()
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{name}: stopped by Ctrl-C.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        # What a user can fix is one line. A fault of ours is a traceback.
        message = user_message(error)
        if message is None:
            raise
        _log_traceback(error)
        print(f"{name}: {message}", file=sys.stderr)
        if isinstance(error, BrokenPipeError):  # or Python tries once more to write at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _log_traceback(error: Exception) -> None:
    """Write the traceback of an error that is shown as one line where `TRANSFORMERS_VERBOSITY=debug` asks for it."""
    from transformers.utils.logging import get_logger

    get_logger(__name__).debug("The error in full:", exc_info=error)


if __name__ == "__main__":
    sys.exit(main())
