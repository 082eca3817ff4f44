# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Run the `flamingo` command as a module: `accelerate launch -m transformers_flamingo_cli train RECIPE`."""

import sys

from . import main


# Workers that are spawned import this module again
if __name__ == "__main__":
    sys.exit(main())
