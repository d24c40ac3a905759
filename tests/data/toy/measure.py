"""The figures and the picture of docs/toy-world.md: ``python -m tests.data.toy.measure [--count 200] [--sheet PNG]``."""

import argparse
from dataclasses import replace
from itertools import product
from time import process_time

import numpy as np
from PIL import Image

from helios.data.toy import ATTRIBUTES, CHANCE, Scene, SceneChange, accuracy, render, sample_scene, score
from helios.data.toy.world import BACKGROUNDS, COLOURS, SHAPES, TIMES
from tests.data.toy.faults import FAULTS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200, help="clips per row of the table")
    parser.add_argument("--sheet", help="write the contact sheet here and stop")
    arguments = parser.parse_args()
    if arguments.sheet:
        contact_sheet().save(arguments.sheet, optimize=True)
        return
    cost()
    table(arguments.count)


def cost() -> None:
    """Best of ten, processor time, for every background and weather; range over them."""
    for height, width in ((64, 64), (128, 192)):
        for camera in ("still", "left"):
            times = []
            for background, weather in product(BACKGROUNDS, ("clear", "rain", "snow")):
                scene = Scene(background=background, weather=weather, camera=camera, motion="circle", shape="star")
                runs = []
                for chunk in range(10):
                    start = process_time()
                    render(scene, 33 * chunk, 33 * chunk + 33, height=height, width=width)
                    runs.append(process_time() - start)
                times.append(1000 * min(runs))
            print(f"render 33 frames {height}x{width}, camera {camera}: {min(times):.1f} to {max(times):.1f} ms")


def table(count: int) -> None:
    print("| frames |", " | ".join((*ATTRIBUTES, "all")), "| ms |")
    for fault, spoil in FAULTS.items():
        rng, rows, spent = np.random.default_rng(1), [], 0.0
        for index in range(count):
            scene, first = sample_scene(rng, ("train", "heldout")[index % 2]), int(rng.integers(2880))
            frames = spoil(render(scene, first, first + 33), rng)
            start = process_time()
            rows.append(score(frames, scene))
            spent += process_time() - start
        shares = accuracy(rows).shares
        print(
            f"| {fault} |",
            " | ".join(f"{shares[a]:.3f}" for a in (*ATTRIBUTES, "all")),
            f"| {1e3 * spent / count:.0f} |",
        )
    print("| chance |", " | ".join(f"{CHANCE[a]:.3f}" for a in ATTRIBUTES), "| |")


def contact_sheet() -> Image.Image:
    """Every background at every time of day, then two videos through time, the second one with a change."""
    rng = np.random.default_rng(12)
    tiles = []
    for (column, background), (row, time) in product(enumerate(BACKGROUNDS), enumerate(TIMES)):
        scene = sample_scene(rng).to_dict() | {"background": background, "time": time, "motion": "still"}
        scene |= {"shape": SHAPES[(column + row) % 4], "colour": COLOURS[(3 * column + 2 * row) % 7]}
        scene |= {"weather": ("clear", "clear", "rain", "clear", "snow")[(column + 2 * row) % 5]}
        scene |= {"size": ("big", "small")[(column + row) % 2]}
        tiles.append(render(Scene.from_dict(scene), 0, 1, height=112, width=176)[0])
    places = _grid([tiles[3 * column + row] for row in range(3) for column in range(5)], 5)
    star = Scene(shape="star", colour="yellow", size="small", motion="right", background="sea", camera="left", seed=3)
    ball = Scene(
        shape="circle", colour="pink", motion="bounce", background="city", time="night", camera="right", y=0.66
    )
    after = replace(ball, background="mountains", time="day", weather="snow", colour="blue", camera="still")
    strips = [
        render(replace(star, y=0.4), 0, 33)[::4],
        render(SceneChange(before=ball, after=after, at=33), 13, 49)[::4],
    ]
    time = _grid([frame for strip in strips for frame in strip[:9]], 9)
    width = places.shape[1]
    small = np.asarray(
        Image.fromarray(time).resize((width, round(time.shape[0] * width / time.shape[1])), Image.LANCZOS)
    )
    sheet = Image.fromarray(np.concatenate([places, small]))
    return sheet.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.FLOYDSTEINBERG)


def _grid(tiles: list[np.ndarray], columns: int, gap: int = 3) -> np.ndarray:
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (number * size + gap for number, size in zip(divmod(index, columns), (height + gap, width + gap)))
        sheet[top : top + height, left : left + width] = tile
    return sheet


if __name__ == "__main__":
    main()
