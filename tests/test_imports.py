# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What an import of the package brings with it: transformers' own, and nothing that an extra installs."""

import subprocess
import sys
import textwrap


def test_the_package_and_its_command_import_nothing_beyond_what_transformers_does():
    code = """
        import sys
        from transformers import CLIPVisionModel, GenerationMixin, GPT2LMHeadModel, ProcessorMixin
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        def packages():
            return {name.partition(".")[0] for name in sys.modules}

        before = packages()
        import transformers_flamingo
        import transformers_flamingo.apps.chat
        import transformers_flamingo.conversion
        import transformers_flamingo_cli
        import transformers_flamingo.evaluation
        import transformers_flamingo_miniature
        standard = set(sys.stdlib_module_names)
        print(sorted(packages() - before - standard))
        # transformers itself may import accelerate
        optional = {"av", "bitsandbytes", "datasets", "evaluate", "gradio", "matplotlib", "nltk", "pandas", "peft"}
        print(sorted(packages() & (optional | {"rouge_score", "sacrebleu"})))
    """
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert output.split("\n")[:2] == ["['transformers_flamingo']", "[]"]
