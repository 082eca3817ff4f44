# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run functions of the tests in new processes, one or a group as `torchrun` would start it."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import torch
from torch.distributed import TCPStore


def _process(rank: int, world_size: int, port: int, function: Callable, args: tuple, kwargs: dict) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # of the loader's workers, which would otherwise start as this process did
    datasets.disable_progress_bars()
    if world_size > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            LOCAL_WORLD_SIZE=str(world_size),
            MASTER_ADDR="localhost",
            MASTER_PORT=str(port),
            TORCHELASTIC_USE_AGENT_STORE="True",
            TORCHELASTIC_RESTART_COUNT="0",
        )
    function(*args, **kwargs)


def launch(function: Callable, *args, world_size: int = 1, **kwargs) -> list[int | None]:
    """
    Call a function of a module of the tests in new processes, as `torchrun` would, and return their exit codes.

    They are forked from a server that has imported everything, so that each takes one second instead of ten.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    # This process holds the store by which the group finds itself, as `torchrun` does. A port that is free now may be another
    # process's when the first of the group would open it.
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    processes = [
        context.Process(target=_process, args=(rank, world_size, store.port, function, args, kwargs))
        for rank in range(world_size)
    ]
    # The server, which the first process starts, must find the modules of the tests
    python_path = os.environ.get("PYTHONPATH")
    folders = [str(Path(__file__).parent), str(Path(sys.modules[function.__module__].__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [python_path])])
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    try:
        # Otherwise each process would first import pytest's main module
        main.__spec__ = None
        if file is not None:
            del main.__file__
        for process in processes:
            process.start()
    finally:
        if python_path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = python_path
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file
    for process in processes:
        process.join(timeout=120)
        # If one of two was killed, the other waits for it
        if process.exitcode is None or process.exitcode < 0:
            for other in processes:
                other.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]
