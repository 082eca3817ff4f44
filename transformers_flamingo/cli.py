# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The `flamingo` command. Each subcommand is a thin function over what the package offers in Python.

    flamingo demo                                     # train a small Flamingo, offline, in minutes
    flamingo demo --few-shot                          # a small Flamingo that binds new words from its prompt
    flamingo caption PICTURE... --model DIRECTORY     # caption pictures
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
import signal
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


def chat(arguments: argparse.Namespace) -> None:
    from .chat import run_chat

    run_chat(arguments.model, arguments.host, arguments.port, arguments.share, arguments.dtype)


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
    from .training import read_recipe, run_recipe

    recipe = read_recipe(arguments.recipe, arguments.others)
    run_recipe(recipe)
    print(f"{recipe.training.output_dir}: the model, its card, samples.jsonl and report/")


def evaluate(arguments: argparse.Namespace) -> None:
    import torch
    from accelerate import PartialState
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import transformers_flamingo  # noqa: F401  registers the model with the Auto classes

    from .evaluation.evaluate import Protocol
    from .evaluation.evaluate import evaluate as evaluate_task
    from .evaluation.published import published_scores
    from .evaluation.report import plot_results, write_evaluation_card
    from .evaluation.tasks import make_task

    options = dict(option.partition("=")[::2] for option in arguments.option)
    tasks = [make_task(name, arguments.data, options) for name in arguments.task]
    protocol = Protocol(
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
    processor = AutoProcessor.from_pretrained(arguments.model)
    dtype = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model = AutoModelForImageTextToText.from_pretrained(arguments.model, dtype=dtype).to(state.device)
    name = Path(arguments.model).name
    for task in tasks:
        directory = Path(arguments.output_dir) / task.name
        summary = evaluate_task(
            model, processor, task, directory, protocol, batch_size=arguments.batch_size, model_name=name
        )
        if state.is_main_process:
            plot_results(directory / "shots.png", summary, published_scores(task.name))
            for entry in summary["results"]:
                blind = f", blind {entry['blind_mean']:.1f}" if protocol.blind else ""
                print(
                    f"{task.name}, {entry['shots']} shots: {summary['metric']} {entry['mean']:.1f}{blind}", flush=True
                )
    if state.is_main_process:
        write_evaluation_card(model, arguments.output_dir, model_name=name)


def pretrain(arguments: argparse.Namespace) -> None:
    from .training import pretraining
    from .training.recipe import read_pretraining_recipe

    if arguments.backbone == "vision":
        kind, run = pretraining.VisionPretrainingArguments, pretraining.pretrain_vision
    else:
        kind, run = pretraining.TextPretrainingArguments, pretraining.pretrain_text
    options, training = read_pretraining_recipe(kind, arguments.recipe, arguments.others)
    run(options, training)
    print(f"{training.output_dir}: a {arguments.backbone} backbone for FlamingoModel.from_vision_text_pretrained")


def miniature_data(arguments: argparse.Namespace) -> None:
    from .miniature.files import SPLITS, write_training_files

    for split, share in SPLITS.items():
        sizes = {"num_pictures": arguments.num_pictures, "num_videos": arguments.num_videos}
        sizes = {name: max(int(size * share), 1) for name, size in sizes.items()}
        for path in write_training_files(
            Path(arguments.output_dir) / split, split, **sizes, seed=arguments.seed
        ).values():
            print(path, flush=True)


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

    command = add("chat", chat, "Talk with a saved Flamingo about images, on a page in the browser.")
    command.add_argument("model", metavar="DIRECTORY", help="directory or Hub name of the model")
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine)"
    )
    command.add_argument("--port", type=int, help="(default: the first that is free from 7860)")
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
        "--cross-attention-every-n-layers", type=int, help="interval of the gated blocks (open-flamingo; likewise)"
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

    command = add("evaluate", evaluate, "Measure few-shot learning on benchmarks, or on data of your own.")
    command.add_argument("model", metavar="MODEL", help="directory or Hub name of the model")
    command.add_argument("--task", nargs="+", required=True, help="names of tasks")
    command.add_argument(
        "--data", help="folder of a benchmark's own files, or of the data sets that tasks are named after"
    )
    command.add_argument(
        "--option", nargs="*", default=[], metavar="FIELD=VALUE", help="other fields of the tasks, such as split=test"
    )
    command.add_argument("--shots", type=int, nargs="+", default=[0, 4, 8, 16, 32], help="(default: 0 4 8 16 32)")
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    command.add_argument(
        "--selection",
        choices=["random", "fixed", "rices"],
        default="random",
        help="demonstrations: others for each query, the same for all, or the most similar (default: %(default)s)",
    )
    command.add_argument("--rices-clip", help="CLIP to compare images by (default: the model's own vision encoder)")
    command.add_argument(
        "--support-size", type=int, default=2048, help="pool of demonstrations (default: %(default)s)"
    )
    command.add_argument("--num-queries", type=int, help="queries, by chance (default: all)")
    command.add_argument("--num-orders", type=int, default=1, help="orders of the shots to average (default: 1)")
    command.add_argument("--no-blind", action="store_true", help="leave out the score without images")
    command.add_argument("--batch-size", type=int, default=8, help="queries at once (default: %(default)s)")
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
    command.add_argument("--num-pictures", type=int, default=8000, help="of the train split (default: %(default)s)")
    command.add_argument("--num-videos", type=int, default=1000, help="likewise (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="seed of the world (default: %(default)s)")

    command = add("miniature-backbones", miniature_backbones, "Train one of the demo's two backbones from scratch.")
    command.add_argument("backbone", choices=["vision", "text"], help="which one")
    command.add_argument("output_dir", metavar="DIRECTORY", help="where to write it")
    command.add_argument("--seed", type=int, default=0, help="seed of data and weights (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments, others = parser.parse_known_args(argv)
    if getattr(arguments, "takes_others", False):
        arguments.others = others
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    try:
        arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        # What a user can mend is a message, not a traceback.
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            extra = "chat" if arguments.command == "chat" else "demo"
            hint = f'\nInstall what this command needs: pip install "transformers-flamingo[{extra}]"'
        print(f"flamingo {arguments.command}: {error}{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
