# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a vision encoder with the contrastive loss, and of a language model."""

import json
import math

import datasets
import pytest
import torch
from factory import IMAGE_SIZE, tiny_tokenizer
from PIL import Image
from processes import launch
from runs import TOWERS, contrast, png, write_pairs
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    TrainingArguments,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo.data import BadSampleError
from transformers_flamingo.pretraining import (
    TextPretrainingArguments,
    VisionPretrainingArguments,
    contrastive_loss,
    pretrain_text,
    pretrain_vision,
    train_language_model,
)


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def pairs(tmp_path) -> str:
    return write_pairs(tmp_path / "pairs", 12)


def training(directory, **kwargs) -> TrainingArguments:
    values = {"max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 6, "logging_steps": 1}
    values |= {"save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    return TrainingArguments(str(directory), dataloader_pin_memory=False, **{**values, **kwargs})


def logged(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def write_texts(path) -> str:
    lines = [{"text": f"the number {i} comes after the number {i - 1}."} for i in range(1, 61)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def clip_model(**kwargs) -> CLIPModel:
    """Make a model for the tokenizer of the factory, whose end-of-sequence token is 2."""
    config = CLIPModel.config_class(
        text_config=CLIPTextConfig(**{**TOWERS["text_config"], "vocab_size": 99, **kwargs}).to_dict(),
        vision_config=CLIPVisionConfig(**TOWERS["vision_config"]).to_dict(),
        projection_dim=16,
    )
    return CLIPModel(config)


def test_the_loss_is_the_sum_of_both_terms():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Similarities, a text in each row: 0.6 0.8 / 0.0 1.0
    to_image = [-math.log(math.exp(3) / (math.exp(3) + math.exp(4))), -math.log(math.exp(5) / (1 + math.exp(5)))]
    to_text = [-math.log(math.exp(3) / (math.exp(3) + 1)), -math.log(math.exp(5) / (math.exp(4) + math.exp(5)))]
    expected = sum(to_image) / 2 + sum(to_text) / 2
    assert contrastive_loss(images, texts, 5.0).item() == pytest.approx(expected, rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrastive_loss(images, texts, 5.0).item() == pytest.approx(expected, rel=1e-6)


def test_two_processes_contrast_with_the_pairs_of_both(tmp_path, pairs):
    records = []
    for world_size in (1, 2):
        directory = tmp_path / str(world_size)
        assert launch(contrast, str(directory), pairs, 6 // world_size, world_size=world_size) == [0] * world_size
        records.append(json.loads((directory / "record.json").read_text()))
    alone, both = records
    assert (alone["world_size"], both["world_size"]) == (1, 2)
    assert alone["logs"][0]["loss"] == pytest.approx(2 * math.log(6), rel=0.3)
    for entry, other in zip(both["logs"], alone["logs"], strict=True):
        assert entry == pytest.approx(other, rel=1e-4)


def test_pretrained_backbones_make_a_flamingo(tmp_path, pairs):
    vision, text = tmp_path / "vision", tmp_path / "text"
    given = training(vision, learning_rate=1e-3, max_steps=90)
    trained = pretrain_vision(VisionPretrainingArguments(data_path=pairs, **TOWERS), given)
    assert given.remove_unused_columns
    losses = logged(trained)
    assert losses[0] > 2.5 and losses[-1] < 0.5 * losses[0]
    tower = AutoModel.from_pretrained(vision)
    assert type(tower) is CLIPVisionModel
    state = trained.model.vision_model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tower.state_dict().items())

    arguments = TextPretrainingArguments(
        data_path=write_texts(tmp_path / "texts.jsonl"), text_config=GPT2, block_size=48, vocab_size=320
    )
    losses = logged(pretrain_text(arguments, training(text, max_steps=100)))
    assert losses[0] > 5 and losses[-1] < 0.5 * losses[0]
    tokenizer = AutoTokenizer.from_pretrained(text)
    prompt = tokenizer("the number 7 comes after the", return_tensors="pt")
    generated = AutoModelForCausalLM.from_pretrained(text).generate(**prompt, max_new_tokens=40, do_sample=False)
    # The model learned to end its texts
    assert tokenizer.decode(generated[0]).endswith(".<|endoftext|>")

    flamingo = FlamingoModel.from_vision_text_pretrained(str(vision), str(text))
    processor = FlamingoProcessor.from_vision_text_pretrained(vision, text)
    picture = Image.new("RGB", (2 * IMAGE_SIZE, IMAGE_SIZE), (200, 0, 0))
    inputs = processor(images=[[picture]], text=["<image>the number"], return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE)
    assert flamingo(**inputs).logits.isfinite().all()


def test_training_starts_from_pretrained_parts(tmp_path, pairs):
    """With a learning rate of 0, the weights are those of the pretrained parts."""
    two_towers = clip_model(eos_token_id=97)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    two_towers.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, do_center_crop=False).save_pretrained(tmp_path / "clip")

    def run(name, **kwargs):
        arguments = VisionPretrainingArguments(data_path=pairs, max_length=8, **kwargs)
        return pretrain_vision(arguments, training(tmp_path / name, max_steps=1, learning_rate=0.0))

    clip = str(tmp_path / "clip")
    whole = run("a", vision=clip, text=clip).model
    assert torch.equal(whole.visual_projection.weight, two_towers.visual_projection.weight)
    joined = run("b", vision=clip, text_config=TOWERS["text_config"], vocab_size=300).model
    assert joined.projection_dim == 512
    for name, model in (("a", whole), ("b", joined)):
        for key, tensor in two_towers.vision_model.state_dict().items():
            assert torch.equal(model.vision_model.state_dict()[key], tensor), key
        assert json.loads((tmp_path / name / "preprocessor_config.json").read_text())["do_center_crop"] is False


def test_any_reader_gives_texts(tmp_path, pairs):
    """The texts of `write_pairs` are concatenated, each with its end-of-sequence token, and cut into blocks."""
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    arguments = TextPretrainingArguments(
        data_path=pairs,
        data_format="image_text_pairs",
        text_config={**GPT2, "vocab_size": 120},
        tokenizer=str(tmp_path / "tokenizer"),
        block_size=5,
    )
    trained = pretrain_text(arguments, training(tmp_path / "text", max_steps=1))
    assert trained.model.config.vocab_size == 120
    assert trained.model.config.eos_token_id == 2
    # Text i has 2 + i % 3 tokens and its end: 12 of them have 48, and 3 fill no block
    blocks = trained.train_dataset["input_ids"]
    assert list(blocks[0]) == [10, 50, 2, 10, 51]
    assert len(blocks) == 9
    batch = trained.data_collator([trained.train_dataset[0]])
    assert torch.equal(batch["labels"], batch["input_ids"])

    continued = TextPretrainingArguments(
        data_path=arguments.data_path, data_format="image_text_pairs", block_size=5, text=str(tmp_path / "text")
    )
    again = pretrain_text(continued, training(tmp_path / "again", max_steps=1, learning_rate=0.0))
    state = trained.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.model.state_dict().items())


def test_arguments_combine_with_those_of_the_trainer(tmp_path):
    line = ["--data_path", "a/*.tar", "--vision", "v", "--text_config", '{"model_type": "bert"}', "--max_steps", "3"]
    own, training = HfArgumentParser([VisionPretrainingArguments, TrainingArguments]).parse_args_into_dataclasses(
        [*line, "--output_dir", str(tmp_path)]
    )
    assert (own.text_config, own.data_format, training.max_steps) == ({"model_type": "bert"}, "image_text_pairs", 3)
    values = {"data_path": "a", "text": "t", "data_options": {"media_root": "m"}, "output_dir": str(tmp_path)}
    own, _ = HfArgumentParser([TextPretrainingArguments, TrainingArguments]).parse_dict(values)
    assert own.reader.media_root == "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_format": "tfrecord"}, "Known formats are text, image_text_pairs"),
        ({"text": "gpt2"}, "`text` is 'gpt2' and `text_config` is"),
        ({"vision_config": None}, "`vision` is None and `vision_config` is None"),
        ({"text_config": "{"}, "which is not JSON"),
        ({"vision_config": {"hidden_size": 3}}, "without `model_type`"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VisionPretrainingArguments(**{"data_path": "a", **TOWERS, **change})


def test_parts_that_do_not_fit_are_refused(tmp_path, pairs):
    def vision(message, error=ValueError, batch_size=6, **kwargs):
        arguments = VisionPretrainingArguments(**{"data_path": pairs, **TOWERS, **kwargs})
        with pytest.raises(error, match=message):
            pretrain_vision(arguments, training(tmp_path / "o", per_device_train_batch_size=batch_size))

    vision("12 rows and 13 in a batch", batch_size=13)
    vision("`per_device_train_batch_size` is 1, but a caption is contrasted with the others", batch_size=1)
    vision("the text tower has 16 positions", max_length=17)
    vision("but the model embeds 20", text_config={**TOWERS["text_config"], "vocab_size": 20})
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    # With an `eos_token_id` of 2, CLIP reads the caption at the token with the highest id
    vision(
        "ends captions with token 2, but the text tower reads them at token 96", tokenizer=str(tmp_path / "tokenizer")
    )
    broken = write_pairs(tmp_path / "broken", 6, broken=(2,))
    vision("metadata.jsonl, row 2: .*cannot be decoded", BadSampleError, data_path=broken)
    document = {"parts": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "w5"}] * 2}
    (tmp_path / "parts.jsonl").write_text((json.dumps(document) + "\n") * 6)
    (tmp_path / "0.png").write_bytes(png(0))
    vision(
        "2 images or videos with text", BadSampleError, data_path=str(tmp_path / "parts.jsonl"), data_format="parts"
    )

    texts = write_texts(tmp_path / "texts.jsonl")
    with pytest.raises(ValueError, match="the model has 64 positions"):
        pretrain_text(TextPretrainingArguments(data_path=texts, text_config=GPT2, block_size=65), training(tmp_path))
    few = TextPretrainingArguments(data_path=texts, text_config={**GPT2, "n_positions": 9999}, block_size=9999)
    with pytest.raises(ValueError, match="fill no row of 9999 tokens"):
        pretrain_text(few, training(tmp_path))


def test_a_misspelt_field_of_a_backbone_is_refused(tmp_path):
    path = write_pairs(tmp_path / "pairs", 4)
    training = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    for config, message in (
        ({"n_embdd": 32}, "GPT2Config has no 'n_embdd'.*Did you mean 'n_embd'"),
        ({"n_embd": "wide"}, "cannot be made of .*'n_embd' expected int"),
    ):
        arguments = TextPretrainingArguments(
            data_path=path,
            data_format="image_text_pairs",
            text_config={"model_type": "gpt2", **config},
            vocab_size=300,
        )
        with pytest.raises(ValueError, match=message):
            pretrain_text(arguments, training)


def test_pretraining_that_becomes_nan_stops_and_keeps_the_saved_model(tmp_path):
    path = write_pairs(tmp_path / "pairs", 8)
    small = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    arguments = TextPretrainingArguments(
        data_path=path, data_format="image_text_pairs", text_config=small, vocab_size=300, block_size=4
    )

    def train(**kwargs):
        training = TrainingArguments(
            str(tmp_path / "out"),
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            hub_token="hf_secretsecret",
            **kwargs,
        )
        return pretrain_text(arguments, training)

    train(max_steps=1)
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {"config.json", "model.safetensors", "training_args.bin"} <= {path.name for path in before}
    assert not [path for path, content in before.items() if b"hf_secretsecret" in content]
    for steps, message in ((50, "the training is stopped"), (2, "not saved and not published")):
        with pytest.raises(ValueError, match=message):
            train(max_steps=steps, learning_rate=1e38, max_grad_norm=0.0)
        assert {path: path.read_bytes() for path in before} == before


def test_rows_of_token_ids_with_labels(tmp_path):
    """The loss is the mean over all labels of a step, however it is divided into micro-batches."""
    rows = torch.randint(3, 90, (4, 6), generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]).bool()
    positions = torch.arange(10, 16).expand(4, 6)
    config = GPT2Config(**{**GPT2, "vocab_size": 120, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0})
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        logits = model(input_ids=rows, position_ids=positions).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), rows[:, 1:], reduction="none")
    expected = losses[counted[:, 1:]].mean().item()
    columns = {"input_ids": rows, "labels": rows.where(counted, -100), "position_ids": positions}
    data = datasets.Dataset.from_dict({name: tensor.tolist() for name, tensor in columns.items()})
    for size in (4, 2):
        arguments = training(
            tmp_path / str(size),
            max_steps=1,
            learning_rate=0.0,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            train_sampling_strategy="sequential",
        )
        trainer = train_language_model(model, tiny_tokenizer(), data, arguments)
        assert logged(trainer) == [pytest.approx(expected, rel=1e-5)]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "4").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "4")) == len(tiny_tokenizer())
