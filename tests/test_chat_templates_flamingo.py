# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The chat templates of language models around Flamingo's images, with exact strings."""

import copy
import pickle

import pytest
import torch
from chat_templates import CHATML, ENDS, INSTRUCT, TEMPLATES, WITH_BOS, instruct_processor, instruct_tokenizer
from factory import IMAGE_SIZE, tiny_text_config, tiny_vision_config
from processors import A, B, C, assistant, make_image_processor, make_tokenizer, user
from transformers import AutoModelForCausalLM, CLIPVisionModel

from transformers_flamingo import FlamingoModel, FlamingoProcessor


EOC = "<|endofchunk|>"
TEXTS = [
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "a dog."},
    {"role": "user", "content": " and a cat\n"},
]
BRIEF = {"role": "system", "content": "Short answer:"}


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_of_texts_is_that_of_the_language_model(name, prompted):
    processor, tokenizer = instruct_processor(TEMPLATES[name]), instruct_tokenizer(TEMPLATES[name])
    chats = [TEXTS, TEXTS[:1], TEXTS[:2]] + [[BRIEF, *TEXTS]] * (name != "instruct")
    in_parts = [[{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat] for chat in chats]
    for chat, parts in zip(chats, in_parts, strict=True):
        expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompted)
        assert processor.apply_chat_template(chat, add_generation_prompt=prompted) == expected
        assert processor.apply_chat_template(parts, add_generation_prompt=prompted) == expected
        ids = processor.apply_chat_template(
            parts, add_generation_prompt=prompted, tokenize=True, return_dict=True, return_tensors="pt"
        )["input_ids"]
        own = tokenizer.apply_chat_template(chat, add_generation_prompt=prompted, return_dict=True)["input_ids"]
        assert ids.tolist() == [own]
    assert not chats[0][0].keys() - {"role", "content"}, "the caller's messages are left alone"


def test_images_are_markers_in_the_turns():
    processor = instruct_processor(CHATML)
    chat = [BRIEF, user(A, "What is it?"), assistant("a cat."), user([A, B], "and"), user(C)]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nShort answer:<|im_end|>\n"
        "<|im_start|>user\n<image>What is it?<|im_end|>\n"
        "<|im_start|>assistant\na cat.<|im_end|>\n"
        "<|im_start|>user\n<image>and<|im_end|>\n"
        "<|im_start|>user\n<image><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    expected = processor(
        text=processor.apply_chat_template(chat),
        images=[[A, [A, B], C]],
        return_tensors="pt",
        add_special_tokens=False,
    )
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


@pytest.mark.parametrize("template", ["few_shot", "text"])
@pytest.mark.parametrize(
    ("parts", "images_first", "expected"),
    [
        (("What?", A), None, "<image>What?"),
        (("What?", A, [B, C]), None, "<image><image>What?"),
        (("a dog", A, "and", B, "a cat"), None, "<image><image>a dog and a cat"),
        (("a dog ", A, "and", B, "\na cat"), None, "<image><image>a dog and\na cat"),
        (("a dog", "and", A), None, "<image>a dogand"),
        ((A, "a cat", B, "a dog"), None, "<image>a cat<image>a dog"),
        ((A, "a cat", B, "a dog"), True, "<image><image>a cat a dog"),
        (("What?", A), True, "<image>What?"),
        (("What?", A), False, "What?<image>"),
        ((A, "What?"), False, "<image>What?"),
    ],
)
def test_images_come_before_the_text_of_their_turn(template, parts, images_first, expected):
    processor = instruct_processor(CHATML, chat_template=template)
    turn = "{}" if template == "few_shot" else "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    system = [] if template == "few_shot" else [{"role": "system", "content": ""}]
    text = processor.apply_chat_template([*system, user(*parts)], images_first=images_first)
    assert text == turn.format(expected)
    if images_first is None:
        assert processor.apply_chat_template([*system, user(*parts)]) == text


@pytest.mark.parametrize("template", ["few_shot", "text"])
def test_a_role_that_nobody_has_is_refused(template):
    processor = instruct_processor(CHATML, chat_template=template)
    chat = [user("What?"), {"role": "assistent", "content": "a dog."}]
    with pytest.raises(ValueError, match="Message 1 has the role 'assistent', which the chat template does not know"):
        processor.apply_chat_template(chat)
    with pytest.raises(ValueError, match="Message 1 of conversation 0 has the role 'assistent'"):
        processor.apply_chat_template([chat])
    # A template of a user's own, and one of a language model that compares roles with it
    assert processor.apply_chat_template(chat, chat_template="{{ messages[1]['role'] }}") == "assistent"
    named = instruct_processor(CHATML + "{% if messages[0]['role'] == 'assistent' %}!{% endif %}")
    assert "assistent\na dog." in named.apply_chat_template(chat)


@pytest.mark.parametrize("name", ["add_generation_prompt", "continue_final_message", "tokenize", "return_dict"])
def test_a_switch_is_no_text(name):
    processor = instruct_processor(CHATML)
    with pytest.raises(ValueError, match=f"`{name}` is 'false', which counts as True. It must be True or False"):
        processor.apply_chat_template([user("What?")], **{name: "false"})


def test_only_turns_of_the_user_are_put_in_order():
    processor = instruct_processor(CHATML, chat_template="few_shot")
    chat = [{"role": "system", "content": user("a dog", A)["content"]}, user(B)]
    assert processor.apply_chat_template(chat, images_first=True) == "a dog<image>\n<image>"


def test_which_template_is_the_default():
    own = instruct_processor(CHATML)
    assert own.chat_template.endswith(CHATML)
    assert (own.has_few_shot_template, own.end_of_turn_token) == (False, "<|im_end|>")
    few_shot = instruct_processor(CHATML, chat_template="few_shot")
    assert (few_shot.has_few_shot_template, few_shot.end_of_turn_token) == (True, EOC)
    assert instruct_processor(None).chat_template == few_shot.chat_template
    assert instruct_processor(CHATML, chat_template="text").chat_template == own.chat_template
    # For one conversation
    assert own.apply_chat_template([user(A)], chat_template="few_shot") == "<image>"
    assert few_shot.apply_chat_template(TEXTS, chat_template="text") == own.apply_chat_template(TEXTS)
    assert own.apply_chat_template([user("a")], chat_template="{{ messages[0]['role'] }}") == "user"
    own.set_chat_template("few_shot")
    assert own.chat_template == few_shot.chat_template

    for processor in (instruct_processor(None), FlamingoProcessor(make_image_processor(), make_tokenizer())):
        with pytest.raises(ValueError, match="the language model's own, but .* has none"):
            processor.set_chat_template("text")
    with pytest.raises(ValueError, match="the language model's own, but .* has none"):
        instruct_processor(None, chat_template="text")


@pytest.mark.parametrize("template", ["few_shot", "text"])
def test_a_template_is_saved_and_loaded_and_wrapped_once(template, tmp_path):
    processor = instruct_processor(WITH_BOS, chat_template=template)
    processor.save_pretrained(tmp_path)
    again = FlamingoProcessor.from_pretrained(tmp_path)
    assert again.chat_template == processor.chat_template
    # A tokenizer of a saved Flamingo has Flamingo's template
    assert FlamingoProcessor(make_image_processor(), again.tokenizer).chat_template == processor.chat_template
    marked = FlamingoProcessor(make_image_processor(), again.tokenizer, image_token="<im>")
    assert marked.apply_chat_template([user(A)]).count("<im>") == 1


def test_several_templates_of_a_language_model(tmp_path):
    processor = instruct_processor({"default": CHATML, "terse": INSTRUCT})
    processor.save_pretrained(tmp_path)
    for kind in (processor, FlamingoProcessor.from_pretrained(tmp_path)):
        assert kind.apply_chat_template([user("What?", A)], chat_template="terse") == "<s>[INST] <image>What? [/INST]"
        assert kind.apply_chat_template([user(A)]) == instruct_processor(CHATML).apply_chat_template([user(A)])
        assert kind.apply_chat_template([user(A)], chat_template="few_shot") == "<image>"
        assert kind.end_of_turn_token == "<|im_end|>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_end_of_a_turn(name):
    assert instruct_processor(TEMPLATES[name]).end_of_turn_token == ENDS[name]


def test_what_a_template_writes_around_an_answer_is_found_once(monkeypatch):
    processor = instruct_processor(CHATML)
    twin = pickle.loads(pickle.dumps(processor))
    calls, render = [], type(processor.tokenizer).apply_chat_template
    monkeypatch.setattr(
        type(processor.tokenizer),
        "apply_chat_template",
        lambda *args, **kwargs: calls.append(1) or render(*args, **kwargs),
    )
    saved = processor.to_dict()
    assert [processor.end_of_turn_token, processor.end_of_turn_token] == ["<|im_end|>"] * 2
    assert len(calls) == 3
    assert processor.to_dict() == saved
    for kind in (twin, pickle.loads(pickle.dumps(processor)), copy.deepcopy(processor)):
        assert kind.end_of_turn_token == "<|im_end|>"
    # Another template, and another token that it writes
    processor.chat_template = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert processor.end_of_turn_token == "</s>"
    processor.tokenizer.eos_token = "<|eot|>"
    assert processor.end_of_turn_token == "<|eot|>"
    processor.set_chat_template("text")
    assert processor.end_of_turn_token == "<|im_end|>"


def test_a_template_without_an_end_of_turn():
    template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    assert instruct_processor(template).end_of_turn_token is None


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    """Return the folders of a vision encoder and of an instruct model whose configurations do not name the end of its turns."""
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    tokenizer = instruct_tokenizer(CHATML)
    config = tiny_text_config("llama", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    CLIPVisionModel(tiny_vision_config()).save_pretrained(folder / "vision")
    make_image_processor(size={"shortest_edge": IMAGE_SIZE}).save_pretrained(folder / "vision")
    return folder / "vision", folder / "text"


def test_a_model_with_closed_gates_chats_as_its_language_model(instruct):
    processor = FlamingoProcessor.from_vision_text_pretrained(*instruct)
    model = FlamingoModel.from_vision_text_pretrained(*instruct, resampler_num_layers=1)
    language_model = AutoModelForCausalLM.from_pretrained(instruct[1])
    tokenizer = instruct_tokenizer(CHATML)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == [processor.end_of_chunk_token_id, tokenizer.eos_token_id, end]

    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([BRIEF, *TEXTS], **options)
    bare = tokenizer.apply_chat_template([BRIEF, *TEXTS], **options)
    settings = {"max_new_tokens": 12, "do_sample": False}
    generated, expected = model.generate(**inputs, **settings), language_model.generate(**bare, **settings)
    assert torch.equal(generated, expected)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 12

    # Both end where a turn ends
    stop = int(expected[0, -6])
    new = expected[0, inputs["input_ids"].shape[1] :].tolist()
    model.generation_config.eos_token_id[-1] = stop
    assert model.generate(**inputs, **settings)[0].tolist()[-1] == stop
    assert model.generate(**inputs, **settings).shape[1] == inputs["input_ids"].shape[1] + new.index(stop) + 1


@pytest.mark.parametrize("name", ["txt", "chatml", ""])
def test_an_unknown_template_name_is_refused(name):
    """It would be rendered as itself."""
    processor = instruct_processor(CHATML)
    chat = [{"role": "user", "content": "a"}]
    for call in (
        lambda: processor.set_chat_template(name),
        lambda: processor.apply_chat_template(chat, chat_template=name),
        lambda: instruct_processor(CHATML, chat_template=name),
    ):
        with pytest.raises(ValueError, match="must be one of 'text', 'few_shot', or a template in Jinja"):
            call()
