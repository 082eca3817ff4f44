# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Push models as an author does, in a separate process: `python push.py CARD`. `test_hub.py` checks what arrives."""

import sys

from factory import tiny_config, tiny_flamingo, tiny_processor
from huggingface_hub import ModelCard


card = ModelCard.load(sys.argv[1])
processor = tiny_processor()

tiny_flamingo().push_to_hub("tiny")
card.push_to_hub("someone/tiny")
processor.push_to_hub("tiny")

# As one who reads no documentation does it: the card comes with the model, also where the processor was pushed first.
processor.push_to_hub("alone")
tiny_flamingo().push_to_hub("alone")
tiny_flamingo().save_pretrained("saved", push_to_hub=True)

tiny_flamingo(gates=-1.0).push_to_hub("tiny", revision="other-gates")
tiny_flamingo("llama", "siglip").push_to_hub("sharded", max_shard_size="50KB")
processor.push_to_hub("sharded")
tiny_config().push_to_hub("private", private=True)
