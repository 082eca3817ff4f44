# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Define the miniature world: scenes, their captions and questions, and the pictures drawn from them.

A scene is a small frozen dataclass that says *what* is to be seen; its caption and its questions follow from it alone. `render` and
`render_video` draw it. Everything that the words do not mention (place, exact size and color, tilt, background tones) comes from
the `numpy.random.Generator` that the caller passes, and is drawn in an order that does not depend on the colors, shapes and sizes
in the scene. Two scenes that are rendered with equally seeded generators therefore share all of it: contrast sets (the same picture
with another shape) are made this way.

Shapes are signed distance functions, evaluated once per pixel: the distance to the outline gives an exact anti-aliased edge and a
soft shadow without supersampling, in well under a millisecond per picture.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from PIL import Image


IMAGE_SIZE = 64
VIDEO_FRAMES = 4

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "striped", "dotted", "noisy")
COUNTS = (1, 2, 3, 4)
DIRECTIONS = ("left", "right", "up", "down")
NUMBER_WORDS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}

# Color-shape pairs of which no picture is ever used in training, neither of the vision backbone nor of the Flamingo
# model: a model that names them right has composed color and shape instead of remembering pairs. Each color is held
# out exactly once, so the colors of the training pictures stay uniform. Text about these pairs is not held out.
HELD_OUT_PAIRS = (
    ("red", "triangle"),
    ("green", "ring"),
    ("blue", "square"),
    ("yellow", "cross"),
    ("purple", "circle"),
    ("orange", "bar"),
    ("cyan", "triangle"),
    ("white", "square"),
)
ALL_PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
SEEN_PAIRS = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)

_RGB = {
    "red": (222, 40, 44),
    "green": (42, 168, 66),
    "blue": (48, 84, 226),
    "yellow": (244, 218, 52),
    "purple": (152, 62, 202),
    "orange": (244, 138, 32),
    "cyan": (64, 214, 224),
    "white": (244, 244, 244),
}
# Radii in pixels. The ranges are disjoint, so that "small", "large" and the objects of a counting scene can be told
# apart from one picture alone.
_RADIUS = {"small": (7.5, 9.5), "large": (15.0, 18.0)}
_PAIR_RADIUS = (9.0, 11.0)
_COUNT_RADIUS = (5.5, 6.8)
_VIDEO_RADIUS = (8.0, 10.0)
_VIDEO_STEP = 9.0  # pixels an object moves from one frame to the next


class Question(NamedTuple):
    """Question about a scene. `topic` is the attribute asked for, one of `QUESTION_TOPICS`."""

    topic: str
    question: str
    answer: str


QUESTION_TOPICS = ("color", "shape", "size", "background", "count", "position", "direction")


def answer_prompt(question: str) -> str:
    """Return the prompt of a question, which its answer continues: `"question: what color? answer:"`."""
    return f"question: {question} answer:"


def answer_text(question: str, answer: str) -> str:
    """Return question and answer as one training text: `"question: what color? answer: red"`."""
    return f"{answer_prompt(question)} {answer}"


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _check(field: str, value: object, known: Iterable[object]) -> None:
    if value not in known:
        raise ValueError(f"Unknown {field} {value!r}: the miniature world has {', '.join(map(str, known))}.")


@dataclass(frozen=True)
class SingleScene:
    """A scene of one object: "a small red circle on a striped background"."""

    color: str
    shape: str
    size: str
    background: str
    kind: ClassVar[str] = "single"

    def __post_init__(self) -> None:
        _check("color", self.color, COLORS)
        _check("shape", self.shape, SHAPES)
        _check("size", self.size, SIZES)
        _check("background", self.background, BACKGROUNDS)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Color-shape pairs in the picture."""
        return ((self.color, self.shape),)

    @property
    def caption(self) -> str:
        """Caption of the scene."""
        return f"a {self.size} {self.color} {self.shape} on a {self.background} background"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Questions about the scene, with their answers."""
        return (
            Question("color", "what color?", self.color),
            Question("shape", "what shape?", self.shape),
            Question("size", "what size?", self.size),
            Question("background", "what background?", self.background),
        )


@dataclass(frozen=True)
class PairScene:
    """Two objects of different shape side by side: "a red circle left of a blue bar"."""

    left_color: str
    left_shape: str
    right_color: str
    right_shape: str
    background: str
    kind: ClassVar[str] = "pair"

    def __post_init__(self) -> None:
        for color, shape in self.pairs:
            _check("color", color, COLORS)
            _check("shape", shape, SHAPES)
        _check("background", self.background, BACKGROUNDS)
        if self.left_shape == self.right_shape:
            raise ValueError(
                f"Both objects are a {self.left_shape}: questions name an object by its shape, so the two shapes of a "
                "PairScene must differ."
            )

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Color-shape pairs in the picture, the left one first."""
        return ((self.left_color, self.left_shape), (self.right_color, self.right_shape))

    @property
    def caption(self) -> str:
        """Caption of the scene."""
        left = _with_article(f"{self.left_color} {self.left_shape}")
        return f"{left} left of {_with_article(f'{self.right_color} {self.right_shape}')}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Questions about the scene, with their answers."""
        left, right = self.left_shape, self.right_shape
        return (
            Question("position", f"is the {left} left or right of the {right}?", "left"),
            Question("position", f"is the {right} left or right of the {left}?", "right"),
            Question("color", f"what color is the {left}?", self.left_color),
            Question("color", f"what color is the {right}?", self.right_color),
        )


@dataclass(frozen=True)
class CountScene:
    """A scene of one to four equal objects, smaller than a "small" one: "three red circles"."""

    color: str
    shape: str
    count: int
    background: str
    kind: ClassVar[str] = "count"

    def __post_init__(self) -> None:
        _check("color", self.color, COLORS)
        _check("shape", self.shape, SHAPES)
        _check("count", self.count, COUNTS)
        _check("background", self.background, BACKGROUNDS)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Color-shape pairs in the picture."""
        return ((self.color, self.shape),)

    @property
    def caption(self) -> str:
        """Caption of the scene."""
        noun = self.shape if self.count == 1 else PLURALS[self.shape]
        return f"{NUMBER_WORDS[self.count]} {self.color} {noun}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Questions about the scene, with their answers."""
        return (
            Question("count", "how many?", NUMBER_WORDS[self.count]),
            Question("color", "what color?", self.color),
            Question("shape", "what shape?", self.shape),
        )


@dataclass(frozen=True)
class VideoScene:
    """A video of one object that moves through `VIDEO_FRAMES` frames: "a red circle moves left"."""

    color: str
    shape: str
    direction: str
    background: str
    kind: ClassVar[str] = "video"

    def __post_init__(self) -> None:
        _check("color", self.color, COLORS)
        _check("shape", self.shape, SHAPES)
        _check("direction", self.direction, DIRECTIONS)
        _check("background", self.background, BACKGROUNDS)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Color-shape pairs in the picture."""
        return ((self.color, self.shape),)

    @property
    def caption(self) -> str:
        """Caption of the scene."""
        return f"{_with_article(f'{self.color} {self.shape}')} moves {self.direction}"

    @property
    def questions(self) -> tuple[Question, ...]:
        """Questions about the scene, with their answers."""
        return (
            Question("direction", "which way does it move?", self.direction),
            Question("color", "what color?", self.color),
            Question("shape", "what shape?", self.shape),
        )


ImageScene = SingleScene | PairScene | CountScene
Scene = ImageScene | VideoScene
SCENE_KINDS = ("single", "pair", "count", "video")


def sample_scene(kind: str, rng: np.random.Generator, pairs: tuple[tuple[str, str], ...] = ALL_PAIRS) -> Scene:
    """
    Draw a scene whose attributes are uniform and independent, with color and shape from `pairs`.

    Args:
        kind (`str`): One of `SCENE_KINDS`.
        rng (`numpy.random.Generator`): The source of chance.
        pairs (`tuple`, *optional*, defaults to `ALL_PAIRS`): The color-shape pairs to choose from. A pair scene needs at least
            two shapes among them.

    Raises:
        ValueError: the kind is unknown, or a pair scene is asked for and all pairs have one shape.
    """
    _check("scene kind", kind, SCENE_KINDS)
    color, shape = pairs[rng.integers(len(pairs))]
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    if kind == "single":
        return SingleScene(color, shape, SIZES[rng.integers(len(SIZES))], background)
    if kind == "count":
        return CountScene(color, shape, int(rng.choice(COUNTS)), background)
    if kind == "video":
        return VideoScene(color, shape, DIRECTIONS[rng.integers(len(DIRECTIONS))], background)
    others = [pair for pair in pairs if pair[1] != shape]
    if not others:
        raise ValueError(f"A pair scene needs two different shapes, but every pair given is a {shape}.")
    return PairScene(color, shape, *others[rng.integers(len(others))], background)


def is_held_out(scene: Scene) -> bool:
    """Check whether a color-shape pair in the scene is one of `HELD_OUT_PAIRS`, so that no model may train on its picture."""
    return any(pair in HELD_OUT_PAIRS for pair in scene.pairs)


# Pixel centers, (H, W) each: x grows to the right, y downwards.
_Y, _X = np.meshgrid(
    np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5, np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5, indexing="ij"
)


def _box(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


# Signed distance to the outline, negative inside, of a shape of radius r centered at the origin. Proportions give the
# six shapes about the same visual weight; a bar lies on its side.
_DISTANCE: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "circle": lambda u, v, r: np.hypot(u, v) - 0.95 * r,
    "square": lambda u, v, r: _box(u, v, 0.84 * r, 0.84 * r),
    "triangle": lambda u, v, r: np.maximum(v - 0.15 * r, 0.866 * np.abs(u) - 0.5 * (v - 0.15 * r)) - 0.6 * r,
    "cross": lambda u, v, r: np.minimum(_box(u, v, r, 0.32 * r), _box(u, v, 0.32 * r, r)),
    "ring": lambda u, v, r: np.abs(np.hypot(u, v) - 0.73 * r) - 0.25 * r,
    "bar": lambda u, v, r: _box(u, v, 1.05 * r, 0.36 * r),
}


class _Placed(NamedTuple):
    """Object with everything that is needed to draw it."""

    shape: str
    rgb: np.ndarray  # (3,)
    x: float
    y: float
    radius: float
    tilt: float  # radians


def _background(name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a dim, nearly gray background, float32 of shape (H, W, 3) in 0..255."""
    # Every number is drawn whether this background uses it or not: see the module docstring.
    tone = rng.uniform(52, 92)
    tint = rng.uniform(-9, 9, size=3)
    angle = rng.uniform(0, np.pi)
    period = rng.uniform(7.0, 10.0)
    phase = rng.uniform(0, 1, size=2)
    contrast = rng.uniform(17, 24)
    grain = rng.normal(size=(IMAGE_SIZE // 2, IMAGE_SIZE // 2)).astype(np.float32)
    slope = rng.uniform(-8, 8)

    u = (np.cos(angle) * _X + np.sin(angle) * _Y) / period + phase[0]
    v = (-np.sin(angle) * _X + np.cos(angle) * _Y) / period + phase[1]
    if name == "striped":
        pattern = np.clip(np.sin(2 * np.pi * u) * 2.5, -1, 1)
    elif name == "dotted":
        to_dot = np.hypot(u - np.round(u), v - np.round(v)) * period
        pattern = 2.2 * np.clip(2.3 - to_dot, 0, 1)
    elif name == "noisy":
        pattern = np.repeat(np.repeat(grain, 2, axis=0), 2, axis=1) * 0.9
    else:
        pattern = np.zeros_like(_X)
    light = tone + contrast * pattern + slope * (_Y / IMAGE_SIZE - 0.5)
    return (light[..., None] + tint).astype(np.float32)


def _draw(canvas: np.ndarray, thing: _Placed) -> None:
    """Draw one object with a soft shadow onto `canvas` (H, W, 3), in place."""
    cos, sin = np.cos(thing.tilt), np.sin(thing.tilt)
    x, y = _X - thing.x, _Y - thing.y
    distance = _DISTANCE[thing.shape](cos * x + sin * y, -sin * x + cos * y, thing.radius)
    # The shadow is the outline moved down and right by one pixel, blurred.
    shadow = np.zeros_like(distance)
    shadow[1:, 1:] = np.clip(0.6 - distance[:-1, :-1] / 3.0, 0, 1) * 0.35
    canvas *= 1 - shadow[..., None]
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    # Lit from above: a little brighter at the top of the object than at its foot.
    light = 1 - 0.10 * np.clip(y / thing.radius, -1, 1)
    canvas += cover * (light[..., None] * thing.rgb - canvas)


def _jittered_rgb(color: str, rng: np.random.Generator) -> np.ndarray:
    return (np.array(_RGB[color]) + rng.uniform(-13, 13, size=3)) * rng.uniform(0.88, 1.03)


def _to_image(canvas: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(canvas), 0, 255).astype(np.uint8))


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low + (high - low) * rng.random())


def _place_single(scene: SingleScene, rng: np.random.Generator) -> list[_Placed]:
    rgb, tilt = _jittered_rgb(scene.color, rng), rng.uniform(-0.2, 0.2)
    radius = _between(rng, *_RADIUS[scene.size])
    margin = radius * 1.1 + 1
    x, y = (_between(rng, margin, IMAGE_SIZE - margin) for _ in range(2))
    return [_Placed(scene.shape, rgb, x, y, radius, tilt)]


def _place_pair(scene: PairScene, rng: np.random.Generator) -> list[_Placed]:
    things = []
    for (color, shape), (low, high) in zip(scene.pairs, ((13.0, 19.5), (44.5, 51.0)), strict=True):
        rgb, tilt = _jittered_rgb(color, rng), rng.uniform(-0.2, 0.2)
        radius = _between(rng, *_PAIR_RADIUS)
        things.append(_Placed(shape, rgb, _between(rng, low, high), _between(rng, 14.0, 50.0), radius, tilt))
    return things


def _place_count(scene: CountScene, rng: np.random.Generator) -> list[_Placed]:
    rgb, tilt = _jittered_rgb(scene.color, rng), rng.uniform(-0.2, 0.2)
    radius = _between(rng, *_COUNT_RADIUS)
    # Cells of a 3 x 3 grid, wider than an object and its jitter: objects never touch.
    cell = IMAGE_SIZE / 3
    centers = [(column + 0.5, row + 0.5) for row in range(3) for column in range(3)]
    chosen = rng.permutation(len(centers))
    jitter = rng.uniform(-3, 3, size=(len(centers), 2))
    return [
        _Placed(
            scene.shape, rgb, centers[i][0] * cell + jitter[i, 0], centers[i][1] * cell + jitter[i, 1], radius, tilt
        )
        for i in chosen[: scene.count]
    ]


_PLACERS = {"single": _place_single, "pair": _place_pair, "count": _place_count}


def render(scene: ImageScene, rng: np.random.Generator) -> Image.Image:
    """
    Draw a still scene.

    Args:
        scene (`SingleScene`, `PairScene` or `CountScene`): The scene.
        rng (`numpy.random.Generator`): Source of place, tilt, exact size and colors, and background tones.

    Returns:
        `PIL.Image.Image`: RGB, `IMAGE_SIZE` x `IMAGE_SIZE`.

    Raises:
        ValueError: the scene moves.
    """
    if scene.kind not in _PLACERS:
        raise ValueError(
            f"`render` draws one picture of a still scene, not of a {scene.kind!r} scene: use `render_video`."
        )
    canvas = _background(scene.background, rng)
    for thing in _PLACERS[scene.kind](scene, rng):
        _draw(canvas, thing)
    return _to_image(canvas)


def render_video(scene: VideoScene, rng: np.random.Generator) -> list[Image.Image]:
    """
    Draw the `VIDEO_FRAMES` frames of a moving object, in order. The background stands still.

    Args:
        scene (`VideoScene`): The scene.
        rng (`numpy.random.Generator`): As in `render`.

    Returns:
        `list[PIL.Image.Image]`: RGB frames of `IMAGE_SIZE` x `IMAGE_SIZE`.

    Raises:
        ValueError: the scene stands still.
    """
    if scene.kind != "video":
        raise ValueError(f"`render_video` draws a moving scene, not a {scene.kind!r} scene: use `render`.")
    background = _background(scene.background, rng)
    rgb, tilt = _jittered_rgb(scene.color, rng), rng.uniform(-0.2, 0.2)
    radius = _between(rng, *_VIDEO_RADIUS)
    margin = radius * 1.1 + 1
    # `along` is the coordinate that moves, `across` the one that stays.
    way = (VIDEO_FRAMES - 1) * _VIDEO_STEP
    start, across = _between(rng, margin, IMAGE_SIZE - margin - way), _between(rng, margin, IMAGE_SIZE - margin)
    frames = []
    for frame in range(VIDEO_FRAMES):
        moved = frame if scene.direction in ("right", "down") else VIDEO_FRAMES - 1 - frame
        along = start + moved * _VIDEO_STEP
        x, y = (along, across) if scene.direction in ("left", "right") else (across, along)
        canvas = background.copy()
        _draw(canvas, _Placed(scene.shape, rgb, x, y, radius, tilt))
        frames.append(_to_image(canvas))
    return frames
