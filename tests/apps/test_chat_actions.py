# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The actions of the chat page, without a browser."""

from types import SimpleNamespace

import pytest
from factory import EOS
from PIL import Image

from transformers_flamingo.apps.chat import (
    EMPTY_ANSWER,
    assistant_message,
    find_turn,
    to_gradio_messages,
    user_message,
)


gr = pytest.importorskip("gradio")

from transformers_flamingo.apps.chat_actions import PageActions, Pending  # noqa: E402
from transformers_flamingo.apps.chat_assets import check_example_images, draw_example_images  # noqa: E402


GREEDY = ("greedy", 4, 3, 50, 1.0)


@pytest.fixture(scope="module")
def actions(chat, images) -> PageActions:
    return PageActions(chat, images)


def boxed(update) -> dict:
    return {name: update[name] for name in ("submit_btn", "stop_btn", "value") if name in update}


def test_a_message_is_taken_answered_and_can_be_sent_again(actions, images):
    turns, shown, box, pending = actions.take({"text": "w8", "files": images[:1]}, [], None)
    assert turns == [user_message("w8", images[:1])]
    assert [message["content"] for message in shown] == [{"path": images[0]}, "w8"]
    assert boxed(box) == {"submit_btn": False, "stop_btn": True, "value": None}
    assert isinstance(pending, Pending)
    with pytest.raises(gr.Error), pytest.warns(UserWarning, match="An answer is being given"):
        actions.take({"text": "w9", "files": []}, turns, pending)

    updates = list(actions.answer(turns, pending, [], True, *GREEDY))
    answered = updates[-2][0]
    assert answered[-1]["role"] == "assistant"
    assert boxed(updates[-1][2]) == {"submit_btn": True, "stop_btn": False}
    assert updates[-1][3] is None
    assert updates[0][4] == "<image>w8"
    assert [word for _, word in updates[-1][5]] == answered[-1]["content"][0]["text"].split()
    assert all(isinstance(image, Image.Image) for image, _ in updates[-1][5])


def test_without_an_image_there_is_nothing_to_draw(actions):
    updates = list(actions.answer([user_message("w8", [])], Pending(), [], True, *GREEDY))
    assert updates[-1][5] == []


def test_an_empty_answer_says_so_and_stays_empty_in_the_prompt(actions, images, monkeypatch):
    monkeypatch.setattr(actions.chat.model.generation_config, "suppress_tokens", [i for i in range(99) if i != EOS])
    turns = [user_message("w8", images[:1])]
    updates = list(actions.answer(turns, Pending(), [], False, *GREEDY))
    assert updates[-2][1][-1]["content"] == EMPTY_ANSWER
    assert updates[-2][0][-1] == assistant_message("")


def test_stopped_while_it_waits_a_message_goes_back_at_once(actions, images):
    turns = [user_message("w5", []), assistant_message("w6"), user_message("w8", images[:1])]
    pending = Pending()
    kept, shown, box, none = actions.stop(turns, pending)
    assert kept == turns[:2] and none is None
    assert [message["content"] for message in shown] == ["w5", "w6"]
    assert boxed(box)["value"] == {"text": "w8", "files": images[:1]}
    # Its turn in the queue comes, and changes nothing
    assert list(actions.answer(turns, pending, [], False, *GREEDY)) == [(gr.skip(),) * 6]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_stopped_before_it_says_anything_a_message_goes_back_by_itself(actions, images, method):
    turns, pending = [user_message("w8", images[:1])], Pending()
    updates = actions.answer(turns, pending, [], False, method, 100, 3, 50, 1.0)
    next(updates)
    assert actions.stop(turns, pending) == (gr.skip(),) * 4
    (last,) = updates
    assert last[0] == [] and last[3] is None
    assert boxed(last[2])["value"] == {"text": "w8", "files": images[:1]}


def test_what_was_said_before_the_stop_stays(actions, images):
    turns, pending = [user_message("w8", images[:1])], Pending()
    updates = actions.answer(turns, pending, [], False, "greedy", 100, 3, 50, 1.0)
    next(updates)
    said = next(updates)[0][-1]["content"][0]["text"]
    actions.stop(turns, pending)
    last = list(updates)
    texts = [update[0][-1]["content"][0]["text"] for update in last[:-1]]
    assert all(text.startswith(said) for text in texts)
    assert len(texts[-1].split()) < 50
    assert boxed(last[-1][2]) == {"submit_btn": True, "stop_btn": False}


def test_a_message_that_cannot_be_answered_goes_back(actions):
    with pytest.warns(UserWarning, match="128 positions"):
        (*_, last) = actions.answer([user_message("w8 " * 150, [])], Pending(), [], False, *GREEDY)
    assert boxed(last[2])["value"] == {"text": "w8 " * 150, "files": []}
    assert last[0] == [] and last[3] is None


def test_retry_and_edit_take_back_what_followed(actions, images):
    first, second = user_message("w8", images), user_message("w9", [])
    turns = [first, assistant_message("w5"), second, assistant_message("w6")]
    assert [find_turn(turns, index) for index in range(6)] == [0, 0, 0, 1, 2, 3]
    for index in (3, 2, 0):
        assert actions.retry(turns, None, SimpleNamespace(index=index))[0] == [first]
    assert actions.retry(turns, None, SimpleNamespace(index=5))[0] == turns[:3]
    edited = actions.edit(turns, None, SimpleNamespace(index=2, value="w7"))
    assert edited[0] == [user_message("w7", images)]
    assert actions.edit(turns, None, SimpleNamespace(index=4, value=[{"type": "text", "text": "w7"}]))[0][2:] == [
        user_message("w7", [])
    ]
    for index, value in ((3, "w7"), (4, ""), (9, "w7")):
        with pytest.raises(gr.Error), pytest.warns(UserWarning, match="Only a text of yours|no such message"):
            actions.edit(turns, None, SimpleNamespace(index=index, value=value))


def test_an_example_is_chosen_by_its_number_and_never_by_a_path(actions, images):
    data = SimpleNamespace(index=1, value={"text": "", "files": ["/etc/passwd"]})
    assert actions.choose_example(data) == {"text": "", "files": images[1:]}


def test_example_images(tmp_path):
    paths = draw_example_images()
    assert [path.name for path in paths] == ["red_circle.png", "blue_square.png", "green_triangle.png"]
    check_example_images(paths)
    (tmp_path / "x.png").write_text("no")
    with pytest.raises(ValueError, match=r"The example image .*x\.png.* cannot be read"):
        check_example_images([tmp_path / "x.png"])


def test_parts_of_a_page_fold_on_a_phone(actions):
    assert [update["open"] for update in (*actions.fold(390), *actions.fold(1280))] == [False, False, True, True]


def test_images_and_texts_of_a_chat_are_messages_of_their_own(images):
    shown = to_gradio_messages([user_message("w8", images), assistant_message("")])
    assert [message["content"] for message in shown] == [{"path": images[0]}, {"path": images[1]}, "w8", EMPTY_ANSWER]
