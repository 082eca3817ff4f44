# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that demonstrations, a query and its answer fit into the positions of the language model."""

from collections.abc import Sequence

from transformers.utils import logging

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .examples import Example


logger = logging.get_logger(__name__)


class PromptLengths:
    """
    Numbers of tokens of demonstrations and queries, and whether they fit.

    Special tokens split a text before tokenization, so the number of tokens of a prompt is the sum over its parts.

    Args:
        model ([`FlamingoModel`]): The model.
        processor ([`FlamingoProcessor`]): Its processor.
        separator (`str`): Text after each demonstration.
        answer (`int`): Number of positions that an answer may need. The last token of an answer is not fed to the model.
    """

    def __init__(self, model: FlamingoModel, processor: FlamingoProcessor, separator: str, answer: int):
        self.processor, self.separator, self.answer = processor, separator, answer
        self.limit = model.max_text_length
        self.trained = getattr(model.config.text_config, "max_position_embeddings", None)
        self.overhead = processor.tokenizer.num_special_tokens_to_add()
        self._of_demonstrations: dict[str, int] = {}

    def of_demonstrations(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens of each demonstration. Each text is tokenized once."""
        texts = [
            self.processor.few_shot_text([(len(shown.media), shown.prompt + shown.answer)], separator=self.separator)[
                0
            ]
            for shown in examples
        ]
        new = [text for text in dict.fromkeys(texts) if text not in self._of_demonstrations]
        self._of_demonstrations |= dict(zip(new, self._count(new), strict=True))
        return [self._of_demonstrations[text] for text in texts]

    def of_queries(self, queries: Sequence[Example]) -> list[int]:
        """Return the number of tokens of the text of each query."""
        texts = [self.processor.few_shot_text([], (len(query.media), query.prompt))[1] for query in queries]
        return [self.overhead + count for count in self._count(texts)]

    def _count(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        ids = self.processor.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [len(text_ids) for text_ids in ids]

    def check_demonstrations(self, shown: Sequence[Example], query: Example, *, is_pool: bool, count: int) -> None:
        """
        Check the longest prompt that can come, before anything is computed.

        Rotary positions have no limit. If a prompt is longer than the texts such a model was trained on, a warning is logged.

        Args:
            shown (`Sequence[Example]`): The demonstrations, or the pool of which some are chosen for each query.
            query ([`Example`]): The shortest query.
            is_pool (`bool`): Whether they are a pool.
            count (`int`): Number of demonstrations of a query.

        Raises:
            ValueError: it does not fit. The message has the numbers, and how many demonstrations fit.
        """
        limit = self.limit or self.trained
        if limit is None:
            return
        lengths = self.of_demonstrations(shown)
        lengths = sorted(lengths, reverse=True) if is_pool else lengths
        need = self.of_queries([query])[0] + self.answer
        total = sum(lengths[:count])
        if total + need <= limit:
            return
        fitting = next(n for n in range(count, -1, -1) if sum(lengths[:n]) + need <= limit or n == 0)
        which = f"the {count} longest demonstrations of the pool have" if is_pool else f"{count} demonstrations have"
        advice = f"at most {fitting} of them fit" if fitting else "not one of them fits"
        message = (
            f"{which} {total} tokens, and a query with its answer may have {need}, but the language model has {limit} positions. Show fewer "
            f"({advice}), shorten their texts, or use a language model with more positions."
        )
        if self.limit is not None:
            raise ValueError(message[0].upper() + message[1:])
        logger.warning(
            f"{message[0].upper()}{message[1:]} It was trained on no longer texts, so its answers may be bad."
        )

    def find_too_long(self, queries: Sequence[Example], shown: Sequence[Sequence[Example]]) -> list[str | None]:
        """Describe each query that does not fit after its demonstrations."""
        if self.limit is None or not queries:
            return [None] * len(queries)
        problems = []
        for length, demonstrations in zip(self.of_queries(queries), shown, strict=True):
            total = length + sum(self.of_demonstrations(demonstrations))
            problems.append(
                None
                if total + self.answer <= self.limit
                else f"the prompt has {total} tokens and its answer may add {self.answer}, but the language model has {self.limit} positions. "
                "Shorten the question, or show fewer demonstrations."
            )
        return problems
