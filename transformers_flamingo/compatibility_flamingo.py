# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that the private parts of transformers that this package overrides are those it was written for.

A release may change them without notice. Without this check, an override would no longer be called, or would be called
with other arguments: the images would be lost, or an error would blame the user's model. Each file that overrides a
private name checks it when it is imported. CONTRIBUTING.md lists all of them.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import inspect

import transformers


def require_private_names(owner: type, **parameters: tuple[str, ...] | None) -> None:
    """
    Check that a class has methods with the given parameters.

    Args:
        owner (`type`): A class of another library.
        parameters:
            For each method or attribute, the names of the parameters that are passed or overridden, in their order;
            `None` for an attribute.

    Raises:
        ImportError: something is missing or has other parameters.
    """
    for name, expected in parameters.items():
        found = getattr(owner, name, None)
        if expected is None:
            is_same = hasattr(owner, name) or name in getattr(owner, "__annotations__", {})
        else:
            signature = list(inspect.signature(found).parameters) if callable(found) else []
            is_same = signature[: 1 + len(expected)] == ["self", *expected]
        if not is_same:
            wanted = name if expected is None else f"{name}({', '.join(expected)})"
            raise ImportError(
                f"transformers {transformers.__version__} has no `{owner.__name__}.{wanted}`, which Flamingo builds on: "
                "this release is newer or older than those that this version of transformers-flamingo was tested with. "
                "Install a release that its requirements allow (`pip install -U transformers-flamingo`)."
            )
