# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that a run that is killed and resumed ends, bit for bit, as one that was never stopped."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import runs
from processes import launch
from runs import NO_DROPOUT, losses, source, trainer, write_pairs, write_shards


# There are more workers than cores in a test
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

# With dropout, to see whether the generators are restored; 4 shards for 2 processes times 2 workers; a bad row in a
# stream, which is shuffled; log steps that are not checkpoints.
STEPS = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1, "max_steps": 7, "logging_steps": 3}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list:
    root = tmp_path_factory.mktemp("data")
    return [
        source("pairs", write_pairs(root / "pairs", 11), weight=0.5),
        source(
            "shards",
            write_shards(root / "shards", 4, 6, broken=(7,)),
            streaming=True,
            shuffle_buffer_size=4,
            batch_size=1,
        ),
    ]


def train(
    root: Path, name: str, sources: list, *, world_size: int = 1, kill: str | None = None, **kwargs
) -> dict | None:
    """Train in processes of its own, and return the record of the run, or `None` if it was killed."""
    result = root / f"{name}.json"
    codes = launch(
        runs.train,
        result,
        root / name,
        sources,
        kill,
        world_size=world_size,
        skip_bad_samples=True,
        **{**STEPS, **kwargs},
    )
    if kill is not None:
        assert -signal.SIGKILL in codes
        assert not result.exists()
        return None
    assert codes == [0] * world_size
    return json.loads(result.read_text())


def check(whole: dict, resumed: dict, begun_at: int) -> None:
    assert whole["begun_at"] == 0
    assert resumed["begun_at"] == begun_at
    assert losses(resumed["logs"]) == losses(whole["logs"])
    assert [entry["step"] for entry in losses(whole["logs"])] == [3, 6]
    assert resumed["digest"] == whole["digest"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_process(tmp_path, sources, num_workers):
    whole = train(tmp_path, "whole", sources, dataloader_num_workers=num_workers)
    # In turn: before the first checkpoint, between two, while one is written, when all of it except the manifest is
    # written, and after that of the last step
    for kill, begun_at in (("1", 0), ("3", 2), ("optimizer", 2), ("manifest", 2), ("5", 4)):
        train(tmp_path, "killed", sources, kill=kill, dataloader_num_workers=num_workers)
        left = sorted(path.name for path in (tmp_path / "killed").glob("checkpoint-*"))
        expected = {0: [], 2: ["checkpoint-2"], 4: ["checkpoint-4"]}[begun_at]
        assert set(expected) <= set(left) <= {*expected, "checkpoint-4"}, kill
    resumed = train(tmp_path, "killed", sources, dataloader_num_workers=num_workers)
    check(whole, resumed, begun_at=4)
    # The run is at its end: resuming changes nothing
    again = train(tmp_path, "killed", sources, dataloader_num_workers=num_workers)
    assert (again["begun_at"], again["digest"]) == (7, whole["digest"])


def test_two_processes_and_two_workers_each(tmp_path, sources):
    kwargs = {"world_size": 2, "dataloader_num_workers": 2}
    whole = train(tmp_path, "whole", sources, **kwargs)
    assert whole["world_size"] == 2
    train(tmp_path, "killed", sources, kill="optimizer", **kwargs)
    train(tmp_path, "killed", sources, kill="5", **kwargs)
    check(whole, train(tmp_path, "killed", sources, **kwargs), begun_at=4)


def test_two_processes_compute_what_one_computes(tmp_path, sources):
    pairs, _ = sources
    one = [source("a", pairs.path, weight=0.5, batch_size=4), source("b", pairs.path, batch_size=2)]
    two = [source("a", pairs.path, weight=0.5, batch_size=2), source("b", pairs.path, batch_size=1)]
    kwargs = {"model": {"text_kwargs": NO_DROPOUT}, "logging_steps": 1, "max_steps": 3, "save_strategy": "no"}
    alone = losses(train(tmp_path, "alone", one, **kwargs)["logs"])
    record = train(tmp_path, "both", two, world_size=2, **kwargs)
    assert record["world_size"] == 2
    both = losses(record["logs"])
    assert len(both) == 3
    for entry, expected in zip(both, alone, strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"with other seed: saved {'seed': 42}, current {'seed': 1}"),
        ({"gradient_accumulation_steps": 2}, "other gradient_accumulation_steps"),
        ({"dataloader_num_workers": 2}, "other dataloader_num_workers"),
        ({"mixture_strategy": "round_robin"}, "other strategy"),
    ],
)
def test_a_position_in_other_data_is_refused(tmp_path, sources, change, message):
    arguments = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "skip_bad_samples": True}
    trainer(tmp_path, sources, **arguments).train()
    arguments["max_steps"] = 2
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, sources, **arguments, **change).train(resume_from_checkpoint=True)
    anew = trainer(tmp_path, sources, **arguments, **change, ignore_data_skip=True)
    anew.train(resume_from_checkpoint=True)
    assert anew.state.global_step == 2


def test_other_sources_are_refused(tmp_path, sources):
    arguments = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "skip_bad_samples": True}
    trainer(tmp_path, sources, **arguments).train()
    changed = [replace(sources[0], weight=7.0), *sources[1:]]
    with pytest.raises(ValueError, match="with other sources: .*'weight': 7.0"):
        trainer(tmp_path, changed, **{**arguments, "max_steps": 2}).train(resume_from_checkpoint=True)


def test_files_that_changed_are_refused(tmp_path):
    path = write_shards(tmp_path / "shards", 2, 6)
    streamed = [source("shards", path, streaming=True)]
    arguments = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path / "run", streamed, **arguments).train()
    write_shards(tmp_path / "more", 3, 6)
    (tmp_path / "more" / "002.tar").rename(tmp_path / "shards" / "002.tar")
    with pytest.raises(ValueError, match="with other files: saved .*'files': 2, .* current .*'files': 3, "):
        trainer(tmp_path / "run", streamed, **{**arguments, "max_steps": 2}).train(resume_from_checkpoint=True)


def test_without_a_complete_checkpoint_nothing_is_resumed(tmp_path, sources):
    with pytest.raises(ValueError, match="no complete checkpoint to resume from"):
        trainer(tmp_path, sources).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(ValueError, match="saving it was interrupted"):
        trainer(tmp_path, sources).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
