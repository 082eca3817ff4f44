# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Applications: the chat, in plain Python (`chat`) and as a page (`chat_page`)."""
