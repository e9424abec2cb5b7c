"""Min-distortion in plain Python loops, from the algorithm's text: slow, and readable beside the paper.

Numbers are added one after another in the order that `hefw.strategies.distortion` states, so that both round alike and
a selection can be compared entry by entry. No sum() of floats: newer Pythons compensate it.
"""

from __future__ import annotations

import math
from decimal import Decimal

KERNEL = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
ROW, COLUMN = [-1, 2, -1], [1, -2, 1]
assert [[down * across for across in ROW] for down in COLUMN] == KERNEL


def mirrored(index: int, length: int) -> int:
    """The place that a place outside 0 .. length - 1 shows, with a mirror at either end."""
    if length == 1:
        return 0
    while not 0 <= index < length:
        index = -index if index < 0 else 2 * (length - 1) - index
    return index


def filtered(image: list[list[float]], down: list[int], across: list[int]) -> list[list[float]]:
    """At each pixel the weighted sum of the window around it; a window's weights are products down[i] * across[j]."""
    height, width = len(image), len(image[0])
    result = []
    for y in range(height):
        line = []
        for x in range(width):
            total = 0.0
            for i, of_row in enumerate(down):
                row = image[mirrored(y + i - len(down) // 2, height)]
                along = 0.0
                for j, of_column in enumerate(across):
                    along += of_column * row[mirrored(x + j - len(across) // 2, width)]
                total += of_row * along
            line.append(total)
        result.append(line)
    return result


def distortion(latent: list[list[list[float]]]) -> list[list[list[float]]]:
    largest = max(abs(value) for channel in latent for row in channel for value in row)
    _, exponent = math.frexp(largest)
    scaled = [[[math.ldexp(value, -exponent) for value in row] for row in channel] for channel in latent]
    channels, height, width = len(scaled), len(scaled[0]), len(scaled[0][0])
    image = [[0.0] * width for _ in range(height)]
    for channel in scaled:
        for y in range(height):
            for x in range(width):
                image[y][x] += channel[y][x]
    response = [[abs(value) for value in row] for row in filtered(image, COLUMN, ROW)]
    response = [[0.0 if value <= 2.0**-40 * channels else value for value in row] for row in response]
    mean = [[value / 9 for value in row] for row in filtered(response, [1] * 3, [1] * 3)]
    reciprocal = [[0.0 if value == 0 else 1 / value for value in row] for row in mean]
    cost = [[value / 225 for value in row] for row in filtered(reciprocal, [1] * 15, [1] * 15)]
    return [[[abs(channel[y][x]) * cost[y][x] for x in range(width)] for y in range(height)] for channel in scaled]


def flat(latent: list[list[list[float]]]) -> list[float]:
    return [value for channel in latent for row in channel for value in row]


def encrypted(distortions: list[float], threshold: float) -> list[bool]:
    """Whether each entry is encrypted."""
    if threshold == 1:
        return [False] * len(distortions)
    ascending = sorted(range(len(distortions)), key=lambda i: (distortions[i], i))
    total = 0.0
    for i in ascending:
        total += distortions[i]
    kept, moved = [True] * len(distortions), 0.0
    for i in ascending:
        if moved >= threshold * total:
            break
        kept[i] = False
        moved += distortions[i]
    return kept


def encrypted_share(distortions: list[float], fraction: float) -> list[bool]:
    """The same for a stated share of the entries."""
    descending = sorted(range(len(distortions)), key=lambda i: (distortions[i], i), reverse=True)
    chosen = set(descending[: math.ceil(Decimal(str(fraction)) * len(distortions))])
    return [i in chosen for i in range(len(distortions))]
