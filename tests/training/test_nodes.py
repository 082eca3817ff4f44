# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`examples/slurm.sh` on this machine: a stand-in for `srun` starts its two tasks, as two machines would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from recipes import miniature_recipe

from transformers_flamingo_cli import main


SCRIPT = Path(__file__).parents[2] / "examples" / "slurm.sh"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
SLURM_PROCID=1 SLURM_LOCALID=0 "$@" > "$OUTPUT.1" 2>&1 &
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" > "$OUTPUT.0" 2>&1
code=$?
wait $! || exit
exit $code
"""


def test_two_machines_train_one_model_and_the_first_process_alone_prints(tmp_path):
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "12", "--num-videos", "1"]) == 0
    recipe = {**miniature_recipe(tmp_path / "data", tmp_path / "out"), "max_steps": 2, "report_to": "none"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("python", f'#!/bin/bash\nexec {sys.executable} "$@"\n')):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "OUTPUT": str(tmp_path / "task"),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
    }
    done = subprocess.run(["bash", str(SCRIPT), str(tmp_path / "recipe.yaml")], env=environment, timeout=280)
    first, second = ((tmp_path / f"task.{rank}").read_text() for rank in (0, 1))
    assert done.returncode == 0, first + second
    # Both trained: the card counts them, and each left its state in the checkpoint
    assert "| processes | 2 |" in (tmp_path / "out" / "README.md").read_text()
    assert {path.name for path in (tmp_path / "out" / "checkpoint-2").glob("run_state_*")} == {
        "run_state_0.json",
        "run_state_1.json",
    }
    assert "the training starts at step 0" in first and "the model, its card" in first
    ours = [line for line in second.splitlines() if "flamingo" in line.lower() or "loss" in line]
    assert not ours
    metrics = json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert all(entry["peak_memory_gb"] > 0 for entry in metrics["log"] if "loss" in entry)
