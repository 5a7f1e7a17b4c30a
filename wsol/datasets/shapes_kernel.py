"""Pictures of shapes drawn in integers alone: the same bytes on every machine, whatever its processor.

Lengths are in 1/256 pixel, angles in 1/1024 turn, sines in 1/16384, shares in 1/1000. Every random number is
a hash of (seed, split, index, how many were drawn before). No product reaches 2^63, so that compiled and
interpreted code agree. Arrays are int64, because numba and numpy promote narrower ones differently. What
is called with literal numbers states its types, or numba would compile it anew for each number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsol.jit import jit, jit_inner

CLASSES = 24  # the glyphs behind these belong to no class
BITS = 0xFFFFFFFF
DARK, LIGHT = (30, 28, 40), (250, 248, 240)  # of glyphs
Area = tuple[int, int, int, int]  # first column and row, last column and row
Trio = tuple[int, int, int]
Ints = np.ndarray


class Knobs(NamedTuple):
    """What a picture depends on beside its seed; shares in thousandths."""

    size: int
    classes: int
    object_size: tuple[int, int]
    glyph: int
    background_bias: int
    glyph_pixels: int
    distractors: int
    false_marks: int
    objects: int


# One turn of the sine; none of these numbers lies near a half, so every math library rounds them alike.
SINE = np.rint(16384 * np.sin(np.arange(1024) * (np.pi / 512))).astype(np.int64)


@jit("i8(i8)")
def _mix(x: int) -> int:
    """Hash 32 bits to 32 bits; both multipliers are below 2^31, so that a product fits a signed word."""
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & BITS
    x = ((x ^ (x >> 12)) * 0x297A2D39) & BITS
    return x ^ (x >> 15)


@jit_inner
def _stream(seed: int, split: int, index: int) -> Ints:
    """State of the random numbers of one image: two hashed keys and the count drawn."""
    state = np.zeros(3, np.int64)
    for lane in range(2):
        key = _mix((seed & BITS) ^ (0x51ED270B + 0x1B873593 * lane))
        key = _mix(key ^ ((seed >> 32) & BITS))
        key = _mix((key + 0x3C6EF372 * (split + 1)) & BITS)
        state[lane] = _mix(key ^ (index & BITS))
    return state


@jit("i8(i8[::1], i8)")
def _draw(state: Ints, count: int) -> int:
    """Next random number in 0 … count - 1."""
    state[2] += 1
    return (_mix(state[0] ^ _mix((state[1] + state[2]) & BITS)) * count) >> 32


@jit("i8(i8, i8, i8)")
def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


@jit
def label_of(seed: int, split: int, index: int, classes: int) -> int:
    """Label of one image: each run of `classes` images is a permutation of all classes."""
    state = _stream(seed, split + 16, index // classes)
    order = np.empty(classes, np.int64)
    for label in range(classes):
        order[label] = label
    for last in range(classes - 1, 0, -1):
        other = _draw(state, last + 1)
        order[last], order[other] = order[other], order[last]
    return order[index % classes]


@jit("UniTuple(i8,3)(i8, i8, i8)")
def _rgb(hue: int, saturation: int, value: int) -> Trio:
    """Color of a hue in 0 … 1535, saturation and value in 0 … 255."""
    red, green, blue = (hue + 1280) % 1536, (hue + 768) % 1536, (hue + 256) % 1536
    red = value * (65280 - saturation * _clamp(min(red, 1024 - red), 0, 256)) // 65280
    green = value * (65280 - saturation * _clamp(min(green, 1024 - green), 0, 256)) // 65280
    blue = value * (65280 - saturation * _clamp(min(blue, 1024 - blue), 0, 256)) // 65280
    return red, green, blue


@jit("i8(i8[:,::1], i8, i8, i8, i8)")
def _between(lattice: Ints, i: int, j: int, t: int, s: int) -> int:
    """Value between four lattice points, (t, s) in 1/256 from the first."""
    top = lattice[i, j] * (256 - s) + lattice[i, j + 1] * s
    bottom = lattice[i + 1, j] * (256 - s) + lattice[i + 1, j + 1] * s
    return (top * (256 - t) + bottom * t) >> 16


@jit_inner
def _clouds(state: Ints, size: int) -> Ints:
    """Three octaves of lattice noise, 0 … 1785: (size, size)."""
    field = np.zeros((size, size), np.int64)
    for octave in range(3):
        cell = max(512, (size * 256) // (3 << octave))
        count = size * 256 // cell + 3
        lattice = np.empty((count, count), np.int64)
        for i in range(count):
            for j in range(count):
                lattice[i, j] = _draw(state, 256)
        for y in range(size):
            i, t = (y * 256) // cell, ((y * 256) % cell) * 256 // cell
            t = (t * t * (768 - 2 * t)) >> 16
            for x in range(size):
                j, s = (x * 256) // cell, ((x * 256) % cell) * 256 // cell
                s = (s * s * (768 - 2 * s)) >> 16
                field[y, x] += _between(lattice, i, j, t, s) << (2 - octave)
    return field


@jit_inner
def _pattern(family: int, u: int, w: int, cloud: int, key: int) -> int:
    """Tone 0 … 255 of one of eight textures at (u, w), where 1024 is one period."""
    if family == 0:
        return cloud
    if family == 1:
        return 128 + (SINE[(u + cloud * 5) & 1023] * 127 >> 14)
    if family == 2:
        return 128 + (SINE[(cloud * 20) & 1023] * 127 >> 14)
    if family == 3 or family == 6:  # tiles, bricks
        w *= family // 3
        u += (w >> 10 & 1) * 512 * (family & 1 ^ 1)
        joint = min(min(u & 1023, 1023 - (u & 1023)), min(w & 1023, 1023 - (w & 1023)) * 3 // family)
        tone = 85 + (_mix(key ^ (((u >> 10) & 0xFFFF) << 16) ^ ((w >> 10) & 0xFFFF)) & 127)
        return _clamp(joint - 20, 0, 64) * tone >> 6
    if family == 4:
        du, dw = (u & 1023) - 512, (w & 1023) - 512
        return _clamp((96000 - du * du - dw * dw) >> 7, 0, 255)
    if family == 5:
        over = ((u >> 10) + (w >> 10)) & 1
        across, along = (u, w) if over else (w, u)
        return 40 + (SINE[(across & 1023) >> 1] * 150 >> 14) + (SINE[(along & 1023) >> 1] * 60 >> 14)
    nearest, second, tone = 1 << 40, 1 << 40, 0  # stones: cells around scattered points, dark at the joints
    for i in range((u >> 10) - 1, (u >> 10) + 2):
        for j in range((w >> 10) - 1, (w >> 10) + 2):
            spot = _mix(key ^ ((i & 0xFFFF) << 16) ^ (j & 0xFFFF))
            du, dw = u - i * 1024 - (spot & 1023), w - j * 1024 - ((spot >> 10) & 1023)
            distance = du * du + dw * dw
            if distance < nearest:
                nearest, second, tone = distance, nearest, 90 + ((spot >> 20) & 127)
            elif distance < second:
                second = distance
    return _clamp((second - nearest) >> 9, 0, 256) * tone >> 8


@jit_inner
def _paint_background(canvas: Ints, texture: int, state: Ints) -> None:
    """Fill the picture with one texture in muted colors; a texture keeps its family and, roughly, its hue."""
    size = canvas.shape[0]
    clouds = _clouds(state, size)
    hue = texture * 989 + 1536 + _draw(state, 120) - 60
    light = 118 + _draw(state, 50)
    first = _rgb(hue, 50 + _draw(state, 70), light)
    second = _rgb(hue + 1400 + _draw(state, 272), 40 + _draw(state, 60), light + 26 + _draw(state, 40))
    turn, key = _draw(state, 1024), _draw(state, 1 << 30)
    step = 1024 * (5 + _draw(state, 5))  # 5 to 9 periods across
    cosine, slope = SINE[(turn + 256) & 1023], SINE[turn]
    for y in range(size):
        for x in range(size):
            u = ((x * cosine + y * slope) * step // size) >> 14
            w = ((y * cosine - x * slope) * step // size) >> 14
            cloud = _clamp(128 + (clouds[y, x] // 7 - 128) * 3 // 2, 0, 255)
            tone = _clamp(_pattern(texture & 7, u, w, cloud, key), 0, 255)
            grain = (cloud - 128) // 8 + (_mix(key ^ (y << 12) ^ x) >> 28) - 8
            for c in range(3):
                canvas[y, x, c] = _clamp(first[c] + ((second[c] - first[c]) * tone >> 8) + grain, 0, 255)


@jit_inner
def _extent(points: Ints) -> tuple[int, int]:
    low, high = points[0], points[0]
    for k in range(1, points.size):
        low, high = min(low, points[k]), max(high, points[k])
    return low, high


@jit("i8[::1](i8[::1], i8, i8)")
def _place(points: Ints, scale: int, shift: int) -> Ints:
    """Points scaled by 1/1024ths and moved."""
    moved = np.empty_like(points)
    for k in range(points.size):
        moved[k] = (points[k] * scale >> 10) + shift
    return moved


@jit("UniTuple(i8,4)(i8[:,::1], i8[::1], i8[::1], i8, i8, i8)")
def _fill(cover: Ints, xs: Ints, ys: Ints, scale: int, x: int, y: int) -> Area:
    """Share of each pixel inside a polygon that is scaled by 1/1024ths and moved, 0 … 1024; the pixels touched."""
    xs, ys, size = _place(xs, scale, x), _place(ys, scale, y), cover.shape[0]
    (left, right), (top, bottom) = _extent(xs), _extent(ys)
    x0, x1 = max(0, left >> 8), min(size - 1, right >> 8)
    y0, y1 = max(0, top >> 8), min(size - 1, bottom >> 8)
    cuts = np.empty(xs.size, np.int64)
    for row in range(y0, y1 + 1):
        for column in range(x0, x1 + 1):
            cover[row, column] = 0
        for line in range(row * 256 + 32, row * 256 + 256, 64):
            count = 0
            for k in range(xs.size):
                m = k + 1 if k + 1 < xs.size else 0
                if (ys[k] <= line) != (ys[m] <= line):
                    cut = xs[k] + (xs[m] - xs[k]) * (line - ys[k]) // (ys[m] - ys[k])
                    place = count
                    while place > 0 and cuts[place - 1] > cut:
                        cuts[place] = cuts[place - 1]
                        place -= 1
                    cuts[place] = cut
                    count += 1
            for pair in range(0, count - 1, 2):
                left, right = _clamp(cuts[pair], 0, size * 256), _clamp(cuts[pair + 1], 0, size * 256)
                for column in range(left >> 8, min(x1, right >> 8) + 1):
                    cover[row, column] += max(0, min(right, column * 256 + 256) - max(left, column * 256))
    return x0, y0, x1, y1


@jit_inner
def _stamp(cover: Ints, mark: Ints, x: int, y: int, side: int, turn: int) -> Area:
    """Share of each pixel inside a mark of 11 cells, smoothed over one pixel; returns the pixels touched."""
    size, reach = cover.shape[0], (side * 218) >> 8
    x0, x1 = max(0, (x - reach) >> 8), min(size - 1, (x + reach) >> 8)
    y0, y1 = max(0, (y - reach) >> 8), min(size - 1, (y + reach) >> 8)
    cosine, slope = SINE[(turn + 256) & 1023], SINE[turn & 1023]
    for row in range(y0, y1 + 1):
        for column in range(x0, x1 + 1):
            dx, dy = column * 256 + 128 - x, row * 256 + 128 - y
            a = ((dx * cosine + dy * slope) >> 14) * 2816 // side + 1536
            b = ((dy * cosine - dx * slope) >> 14) * 2816 // side + 1536
            cover[row, column] = 0
            if 0 <= a < 3072 and 0 <= b < 3072:
                tone = _between(mark, b >> 8, a >> 8, b & 255, a & 255)
                cover[row, column] = _clamp(512 + (tone - 128) * 8 * max(side, 2816) // 2816, 0, 1024)
    return x0, y0, x1, y1


@jit("void(i8[:,:,::1], i8[:,::1], UniTuple(i8,4), UniTuple(i8,3), i8)")
def _paint(canvas: Ints, cover: Ints, area: Area, color: Trio, opacity: int) -> None:
    """Lay one color over the covered pixels; opacity in 0 … 1024."""
    for y in range(area[1], area[3] + 1):
        for x in range(area[0], area[2] + 1):
            share = cover[y, x] * opacity >> 10
            for c in range(3):
                canvas[y, x, c] += (color[c] - canvas[y, x, c]) * share >> 10


@jit_inner
def _shade(canvas: Ints, cover: Ints, area: Area, color: Trio, light: Trio, state: Ints) -> None:
    """Lay a shaded, faintly striped or dotted color over the covered pixels; `light` is x, y, radius."""
    style, turn = _draw(state, 3), _draw(state, 1024)
    cosine, slope = SINE[(turn + 256) & 1023], SINE[turn]
    for y in range(area[1], area[3] + 1):
        for x in range(area[0], area[2] + 1):
            dx, dy = x * 256 + 128 - light[0], y * 256 + 128 - light[1]
            tone = 1120 - _clamp((dx * dx + dy * dy) * 400 // (light[2] * light[2]), 0, 420)
            u, w = (dx * cosine + dy * slope) // (light[2] * 4), (dy * cosine - dx * slope) // (light[2] * 4)
            if style == 1:
                tone += SINE[u & 1023] * 70 >> 14
            elif style == 2:
                tone += SINE[u & 1023] * SINE[w & 1023] // 2300000
            for c in range(3):
                goal = _clamp(color[c] * tone >> 10, 0, 255)
                canvas[y, x, c] += (goal - canvas[y, x, c]) * cover[y, x] >> 10


@jit_inner
def _claim(mask: Ints, box: Ints, cover: Ints, area: Area) -> None:
    """Add the pixels that are covered by half or more to the mask and to the box."""
    for y in range(area[1], area[3] + 1):
        for x in range(area[0], area[2] + 1):
            if cover[y, x] >= 512:
                mask[y, x] = True
                box[0], box[1] = min(box[0], x), min(box[1], y)
                box[2], box[3] = max(box[2], x), max(box[3], y)


@jit("UniTuple(i8[::1],2)(i8[::1], i8, i8, i8)")
def _outline(state: Ints, corners: int, lobes: int, squeeze: int) -> tuple[Ints, Ints]:
    """Corners of a lobed, squeezed and turned disc around the origin, about 1024 in radius."""
    xs, ys = np.empty(corners, np.int64), np.empty(corners, np.int64)
    depth = (90 + _draw(state, 130)) * 4 // max(lobes, 4) if lobes > 0 else 0
    bulge, phase, tilt, turn = _draw(state, 130), _draw(state, 1024), _draw(state, 1024), _draw(state, 1024)
    cosine, slope = SINE[(turn + 256) & 1023], SINE[turn]
    for k in range(corners):
        angle = k * 1024 // corners
        wave = SINE[(lobes * angle + phase) & 1023] * depth + SINE[(2 * angle + tilt) & 1023] * bulge
        radius = 1024 + (wave >> 14)
        x, y = radius * SINE[(angle + 256) & 1023] >> 14, (radius * SINE[angle] >> 14) * squeeze // 1000
        xs[k], ys[k] = (x * cosine + y * slope) >> 14, (y * cosine - x * slope) >> 14
    return xs, ys


@jit_inner
def _sides(knobs: Knobs, room: int, state: Ints) -> tuple[int, int]:
    """Side of an object that has so much room, and of its mark."""
    smallest, largest = knobs.object_size
    share = smallest + _draw(state, largest - smallest + 1)
    side = min(knobs.size * 256 * share // 1000, room)
    return side, max(side * knobs.glyph // 1000, knobs.glyph_pixels * 256)


@jit_inner
def _paint_clutter(canvas: Ints, knobs: Knobs, state: Ints, glyphs: Ints) -> None:
    """Small plain polygons, then marks that belong to no class."""
    span, cover = knobs.size * 256, np.zeros(canvas.shape[:2], np.int64)
    for _ in range(knobs.distractors):
        corners = 3 + _draw(state, 4)
        xs, ys = _outline(state, corners if corners < 6 else 24, 0, 350 + _draw(state, 651))
        radius, x, y = span * (40 + _draw(state, 71)) // 1000, _draw(state, span), _draw(state, span)
        color = _rgb(_draw(state, 1536), 40 + _draw(state, 140), 90 + _draw(state, 150))
        _paint(canvas, cover, _fill(cover, xs, ys, radius, x, y), color, 900)
    for _ in range(knobs.false_marks):
        _, side = _sides(knobs, span, state)
        mark = glyphs[CLASSES + _draw(state, glyphs.shape[0] - CLASSES)]
        x, y = _draw(state, span), _draw(state, span)
        area = _stamp(cover, mark, x, y, side, _draw(state, 1024))
        _paint(canvas, cover, area, LIGHT if _draw(state, 2) else DARK, 1024)


@jit_inner
def _seat(xs: Ints, ys: Ints, reach: int, state: Ints) -> tuple[int, int]:
    """Where on the body the glyph goes: the first of 30 tries at which it fits, else the roomiest."""
    best, best_room = (0, 0), -1
    for trial in range(31):
        k, share = _draw(state, xs.size), max(_draw(state, 900), _draw(state, 900)) if trial < 30 else 0
        x, y = xs[k] * share >> 10, ys[k] * share >> 10
        room = 1 << 60
        for m in range(xs.size):
            room = min(room, (xs[m] - x) * (xs[m] - x) + (ys[m] - y) * (ys[m] - y))
        if room > best_room:
            best, best_room = (x, y), room
        if room >= reach * reach:
            break
    return best


@jit_inner
def _settle(points: Ints, mark: int, reach: int, start: int, end: int, state: Ints) -> int:
    """Where between start and end an object's origin goes, so that body and mark have a pixel around them."""
    low, high = _extent(points)
    low, high = min(low, mark - reach), max(high, mark + reach)
    return start + 256 - low + _draw(state, max(1, end - start - (high - low + 512)))


@jit_inner
def _paint_object(canvas: Ints, mask: Ints, box: Ints, cell: Ints, glyph: Ints, knobs: Knobs, state: Ints) -> None:
    """One body of random outline, color and size somewhere in the cell x0 y0 x1 y1, its glyph upon it."""
    cover = np.zeros(canvas.shape[:2], np.int64)
    side, mark = _sides(knobs, min(cell[2] - cell[0], cell[3] - cell[1]) - 768, state)
    lobes = _draw(state, 7)
    xs, ys = _outline(state, 64, lobes if lobes > 1 else 0, 600 + _draw(state, 401))
    (left, right), (top, bottom) = _extent(xs), _extent(ys)
    scale = side * 1024 // max(right - left, bottom - top)
    xs, ys = _place(xs, scale, 0), _place(ys, scale, 0)
    (mark_x, mark_y), reach = _seat(xs, ys, mark * 160 >> 8, state), mark * 181 >> 8
    x = _settle(xs, mark_x, reach, cell[0], cell[2], state)
    y = _settle(ys, mark_y, reach, cell[1], cell[3], state)
    hue, saturation, value = _draw(state, 1536), 130 + _draw(state, 90), 205 + _draw(state, 50)
    color, rim = _rgb(hue, saturation, value), _rgb(hue, saturation + 25, value * 5 // 9)
    _paint(canvas, cover, _fill(cover, xs, ys, 1024, x + side // 40, y + side // 24), (20, 18, 30), 330)
    area = _fill(cover, xs, ys, 1024, x, y)
    _paint(canvas, cover, area, rim, 1024)
    _claim(mask, box, cover, area)
    area = _fill(cover, xs, ys, 930, x, y)
    _shade(canvas, cover, area, color, (x - side // 6, y - side // 5, side // 2), state)
    area = _stamp(cover, glyph, x + mark_x, y + mark_y, mark, _draw(state, 1024))
    _paint(canvas, cover, area, DARK if color[0] * 3 + color[1] * 6 + color[2] > 1500 else LIGHT, 1024)
    _claim(mask, box, cover, area)


@jit_inner
def _cells(size: int, count: int, state: Ints) -> Ints:
    """Split the picture into rectangles, the largest first and near its middle: (count, 4)."""
    cells = np.zeros((count, 4), np.int64)
    cells[0, 2], cells[0, 3] = size * 256, size * 256
    for made in range(1, count):
        k, most = 0, 0
        for m in range(made):
            area = (cells[m, 2] - cells[m, 0]) * (cells[m, 3] - cells[m, 1])
            if area > most:
                k, most = m, area
        for side in range(4):
            cells[made, side] = cells[k, side]
        axis = 0 if cells[k, 2] - cells[k, 0] >= cells[k, 3] - cells[k, 1] else 1
        span = cells[k, axis + 2] - cells[k, axis]
        cells[k, axis + 2] = cells[made, axis] = cells[k, axis] + span * (450 + _draw(state, 101)) // 1000
    return cells


@jit
def render(seed: int, split: int, index: int, label: int, knobs: Knobs, glyphs: Ints) -> tuple[Ints, Ints, Ints]:
    """Draw one image of 0 … 255 (H, W, 3), its objects' mask bool (H, W) and their boxes (G, 4)."""
    state, size = _stream(seed, split, index), knobs.size
    canvas, mask = np.empty((size, size, 3), np.int64), np.zeros((size, size), np.bool_)
    boxes = np.empty((knobs.objects, 4), np.int64)
    biased, texture = _draw(state, 1000) < knobs.background_bias, _draw(state, 24)
    _paint_background(canvas, label if biased else texture, state)
    state[2] = 1 << 20  # each part counts on its own, so that a knob leaves the other parts as they are
    _paint_clutter(canvas, knobs, state, glyphs)
    state[2] = 1 << 24
    cells = _cells(size, knobs.objects, state)
    for k in range(knobs.objects):
        state[2] = (2 + k) << 24
        boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = size, size, -1, -1
        _paint_object(canvas, mask, boxes[k], cells[k], glyphs[label], knobs, state)
    return canvas, mask, boxes
