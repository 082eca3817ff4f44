# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The `flamingo` command, one file per subcommand. Each is a thin function over what the package offers in Python.

    flamingo demo                                     # train a small Flamingo, offline, in minutes
    flamingo demo --few-shot                          # a small Flamingo that learns new words from its prompt
    flamingo caption IMAGE... --model DIRECTORY       # caption images
    flamingo predict IMAGES --model DIRECTORY --demonstrations SHOTS --out FILE   # label many images after a few examples
    flamingo chat DIRECTORY                           # chat about images with a model, in the browser
    flamingo convert open-flamingo CHECKPOINT DIRECTORY   # a checkpoint of OpenFlamingo or flamingo-mini
    flamingo fetch URLS --output_dir DIRECTORY        # the images of a list of URLs, into shards to train on
    flamingo check RECIPE_OR_DATA                     # what is in the data, and what is wrong, before a training
    flamingo train RECIPE --max_steps 100             # train from a YAML file, with fields overridden
    flamingo merge FOLDER DIRECTORY                   # a complete model of adapters, or of trained parameters alone
    flamingo evaluate MODEL --task coco --data DIRECTORY   # few-shot evaluation
    flamingo pretrain vision RECIPE                   # a vision encoder from captions, or a language model
    flamingo miniature-data DIRECTORY                 # images of the miniature world in published layouts
    flamingo miniature-backbones vision DIRECTORY     # train the backbones of the demo again

It is a separate package next to `transformers_flamingo` because importing that imports transformers and torch, which takes
seconds. `flamingo --help` and a mistyped command import neither.

A subcommand is a module that imports only the standard library at its top and has

- `HELP: str`: its line in `flamingo --help`;
- `add_arguments(parser: argparse.ArgumentParser) -> None`, which may import anything;
- `run(arguments: argparse.Namespace) -> None`, which may import anything.

Other distributions add commands by entry points of the group `transformers_flamingo.commands`. Their modules, and the packages
around them, keep to the same rule: `flamingo --help` imports them all.
"""

from .command_line import main


__all__ = ["main"]
