# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Templates become cards: filters, missing facts, the metadata block."""

import jinja2
import pytest
from huggingface_hub import ModelCard

from transformers_flamingo.cards.rendering import TEMPLATES, render_card, write_card


def test_the_filters(tmp_path):
    template = tmp_path / "card.md"
    template.write_text("{{ n | thousands }} {{ x | decimals(2) }} {{ text | cell }}\n")
    assert render_card(template, n=1234567, x=0.5, text="a|b\n<c>") == "1,234,567 0.50 a\\|b \\<c\\>\n"


@pytest.mark.parametrize("filter", ["thousands", "decimals(2)", "cell"])
def test_a_missing_fact_is_named(tmp_path, filter):
    template = tmp_path / "card.md"
    template.write_text("{{ record.steps | " + filter + " }}")
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'steps'"):
        render_card(template, record={})


def test_a_written_card_has_its_metadata(tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\nlicense: mit\n---\n\n# {{ record.name }}\n")
    write_card(template, {"name": "Mine"}, tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit" and card.text.strip() == "# Mine"


def test_metadata_that_the_hub_cannot_read_are_an_error(tmp_path):
    template = tmp_path / "card.md"
    template.write_text("---\n- no mapping\n---\n")
    with pytest.raises(ValueError, match="should be a dict"):
        write_card(template, {}, tmp_path / "README.md")
    assert not (tmp_path / "README.md").exists()


def test_an_unknown_template_is_an_error_that_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"no card template '.*nope.md'\. Its folder has: flamingo.md"):
        render_card(TEMPLATES / "nope.md")
