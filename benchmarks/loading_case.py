# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure one case of loading.py in a separate process. Nothing is imported before the measurement.

    python benchmarks/loading_case.py import STATEMENT
    python benchmarks/loading_case.py model EXPRESSION DIRECTORY
"""

import sys
import threading
import time
from pathlib import Path


def measure_import(statement: str) -> list[float]:
    """Return the seconds of an import, the peak of resident memory in bytes, and the number of modules."""
    start = time.perf_counter()
    exec(statement)
    return [time.perf_counter() - start, memory("VmHWM"), len(sys.modules)]


def measure_model(expression: str, directory: str) -> list[float]:
    """
    Load a model or several.

    Returns:
        `list[float]`: seconds to load, seconds to load and read all weights, peaks of anonymous and of resident memory
        above the imports, and size of the weights, all in bytes.
    """
    import torch
    import transformers
    from transformers import CLIPVisionModel, GPT2LMHeadModel, LlamaForCausalLM, OPTForCausalLM  # noqa: F401

    from transformers_flamingo import FlamingoModel

    transformers.utils.logging.disable_progress_bar()
    names = {name: str(Path(directory) / name) for name in ("text", "vision", "flamingo")}
    names |= {"FlamingoModel": FlamingoModel} | {
        name: getattr(transformers, name) for name in ("AutoModel", "AutoModelForCausalLM")
    }
    before = memory("RssAnon"), memory("VmHWM")
    anonymous, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            anonymous.append(memory("RssAnon") - before[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    models = eval(expression, names)
    seconds = time.perf_counter() - start
    anonymous.append(memory("RssAnon") - before[0])
    done.set()
    watcher.join()
    resident = memory("VmHWM") - before[1]
    parameters = {p for model in (models if isinstance(models, tuple) else (models,)) for p in model.parameters()}
    start = time.perf_counter()
    with torch.no_grad():
        for parameter in parameters:
            parameter.sum()
    touched = seconds + time.perf_counter() - start
    return [seconds, touched, max(anonymous), resident, sum(p.nbytes for p in parameters)]


def memory(kind: str) -> int:
    """Return a memory counter of Linux in bytes. `ru_maxrss` would not do: it starts at the peak of the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))


if __name__ == "__main__":
    print(*{"import": measure_import, "model": measure_model}[sys.argv[1]](*sys.argv[2:]))
