"""One frame of the table: felt, wheel, layout with chips, state of the round, clock."""

import math
import random

import cairo

import timecode
import wheel

WIDTH, HEIGHT = 1280, 720
GOLD = (.90, .74, .42)
CREAM = (.96, .93, .86)
CELL_W, CELL_H = 36, 58
GRID_X, GRID_Y = 744, 322
BETS_CLOSE = 5.0
RESULT_FROM, RESULT_UNTIL = wheel.SETTLED + 0.25, 9.75

# (seconds, layout cell or outside bet, colour, height of the stack)
CHIPS = [
    (0.7, 17, (.75, .12, .12), 3), (1.1, "red", (.12, .30, .62), 2), (1.4, 23, (.10, .45, .25), 2), (1.9, 8, (.75, .12, .12), 1),
    (2.1, "2nd 12", (.85, .62, .15), 4), (2.4, 32, (.12, .30, .62), 2), (2.8, 5, (.45, .15, .50), 3), (3.0, "even", (.10, .45, .25), 2),
    (3.3, 29, (.85, .62, .15), 1), (3.6, "black", (.75, .12, .12), 3), (3.9, 14, (.12, .30, .62), 2), (4.2, 36, (.10, .45, .25), 1),
    (4.4, "1 to 18", (.45, .15, .50), 2), (4.6, 0, (.75, .12, .12), 1), (4.8, 20, (.85, .62, .15), 2),
]
HISTORY = [32, 7, 0, 24, 11, 36, 5]


def text(ctx, x, y, words, size, colour, face="DejaVu Sans", bold=False, align=0.0, spacing=0.0, alpha=1.0):
    """Shows `words` with the baseline at y; align 0 starts, 0.5 centres, 1 ends at x."""
    ctx.select_font_face(face, cairo.FONT_SLANT_NORMAL, cairo.FONT_WEIGHT_BOLD if bold else cairo.FONT_WEIGHT_NORMAL)
    ctx.set_font_size(size)
    advances = [ctx.text_extents(c).x_advance + spacing for c in words]
    x -= align * (sum(advances) - spacing)
    ctx.set_source_rgba(*colour, alpha)
    for c, advance in zip(words, advances):
        ctx.move_to(x, y)
        ctx.show_text(c)
        x += advance


def rounded(ctx, x, y, w, h, r):
    ctx.new_path()
    for cx, cy, quarter in ((x + w - r, y + r, -1), (x + w - r, y + h - r, 0), (x + r, y + h - r, 1), (x + r, y + r, 2)):
        ctx.arc(cx, cy, r, quarter * math.pi / 2, (quarter + 1) * math.pi / 2)
    ctx.close_path()


def cell(bet):
    """(x, y, w, h) of a place on the layout."""
    if bet == 0:
        return GRID_X - 40, GRID_Y, 40, 3 * CELL_H
    if isinstance(bet, int):
        return GRID_X + (bet - 1) // 3 * CELL_W, GRID_Y + (2 - (bet - 1) % 3) * CELL_H, CELL_W, CELL_H
    dozens = ["1st 12", "2nd 12", "3rd 12"]
    if bet in dozens:
        return GRID_X + dozens.index(bet) * 4 * CELL_W, GRID_Y + 3 * CELL_H, 4 * CELL_W, 40
    evens = ["1 to 18", "even", "red", "black", "odd", "19 to 36"]
    return GRID_X + evens.index(bet) * 2 * CELL_W, GRID_Y + 3 * CELL_H + 40, 2 * CELL_W, 40


class Scene:
    """Draws frames; what never changes is drawn once."""

    def __init__(self):
        self.rng = random.Random(17)
        self.grain = self._grain()
        self.backdrop = cairo.ImageSurface(cairo.FORMAT_RGB24, WIDTH, HEIGHT)
        ctx = cairo.Context(self.backdrop)
        draw_felt(ctx)
        self._weave(ctx)
        draw_layout(ctx)
        wheel.draw_bowl(ctx)
        draw_bar(ctx)

    def _grain(self):
        """Two tiles of sensor noise, lighter and darker: it keeps gradients from banding."""
        size = 512
        tiles = []
        for shade in (0, 255):
            data = bytearray(size * size * 4)
            for i, noise in enumerate(self.rng.randbytes(size * size)):
                alpha = max(0, noise - 128) >> 3
                data[4 * i:4 * i + 4] = bytes((shade * alpha // 255,) * 3 + (alpha,))
            surface = cairo.ImageSurface.create_for_data(data, cairo.FORMAT_ARGB32, size, size)
            pattern = cairo.SurfacePattern(surface)
            pattern.set_extend(cairo.EXTEND_REPEAT)
            pattern.set_filter(cairo.FILTER_NEAREST)
            tiles.append(pattern)
        return tiles

    def _noise(self, ctx, opacity):
        for tile in self.grain:
            tile.set_matrix(cairo.Matrix(x0=self.rng.randrange(512), y0=self.rng.randrange(512)))
            ctx.set_source(tile)
            ctx.paint_with_alpha(opacity)

    def _weave(self, ctx):
        self._noise(ctx, 0.55)

    def frame(self, number):
        """The picture of frame `number` as an RGB24 surface."""
        t = number / timecode.FPS
        surface = cairo.ImageSurface(cairo.FORMAT_RGB24, WIDTH, HEIGHT)
        ctx = cairo.Context(surface)
        ctx.set_source_surface(self.backdrop)
        ctx.paint()
        exposures = [t + k / (4 * 2 * timecode.FPS) for k in range(4)]
        draw_moving_rotor(ctx, exposures)
        wheel.draw_lights(ctx)
        wheel.draw_ball(ctx, [t + k / (8 * 2 * timecode.FPS) for k in range(8)])
        draw_bets(ctx, t)
        draw_state(ctx, t)
        draw_result(ctx, t)
        self._noise(ctx, 0.30)
        draw_clock(ctx, number)
        timecode.draw_strip(ctx, number)
        return surface


def draw_felt(ctx):
    felt = cairo.RadialGradient(640, 340, 60, 640, 400, 860)
    felt.add_color_stop_rgb(0, .035, .285, .185)
    felt.add_color_stop_rgb(.55, .02, .175, .115)
    felt.add_color_stop_rgb(1, .005, .05, .035)
    ctx.set_source(felt)
    ctx.paint()


def draw_bar(ctx):
    bar = cairo.LinearGradient(0, 0, 0, 56)
    bar.add_color_stop_rgb(0, .035, .04, .042)
    bar.add_color_stop_rgb(1, .06, .068, .066)
    ctx.set_source(bar)
    ctx.rectangle(0, 0, WIDTH, 56)
    ctx.fill()
    ctx.set_source_rgb(*(c * .75 for c in GOLD))
    ctx.rectangle(0, 56, WIDTH, 1.5)
    ctx.fill()
    text(ctx, 28, 36, "EMERALD ROULETTE", 20, GOLD, "DejaVu Serif", spacing=3.2)


def draw_layout(ctx):
    ctx.set_line_width(1.4)
    for number in range(37):
        x, y, w, h = cell(number)
        ctx.rectangle(x, y, w, h)
        ctx.set_source_rgba(*wheel.colour_of(number), .92)
        ctx.fill_preserve()
        ctx.set_source_rgba(*CREAM, .75)
        ctx.stroke()
        text(ctx, x + w / 2, y + h / 2 + 7, str(number), 19, CREAM, "DejaVu Serif", True, 0.5)
    for bet in ("1st 12", "2nd 12", "3rd 12", "1 to 18", "even", "red", "black", "odd", "19 to 36"):
        x, y, w, h = cell(bet)
        ctx.rectangle(x, y, w, h)
        ctx.set_source_rgba(0, 0, 0, .12)
        ctx.fill_preserve()
        ctx.set_source_rgba(*CREAM, .75)
        ctx.stroke()
        if bet in ("red", "black"):
            ctx.new_path()
            for dx, dy in ((-22, 0), (0, -12), (22, 0), (0, 12)):
                ctx.line_to(x + w / 2 + dx, y + h / 2 + dy)
            ctx.close_path()
            ctx.set_source_rgb(*wheel.colour_of(1 if bet == "red" else 2))
            ctx.fill_preserve()
            ctx.set_source_rgba(*CREAM, .6)
            ctx.stroke()
        else:
            text(ctx, x + w / 2, y + h / 2 + 6, bet.upper(), 14, CREAM, "DejaVu Serif", False, 0.5, 0.6, .92)
    rounded(ctx, GRID_X - 62, GRID_Y - 22, 40 + 12 * CELL_W + 44, 3 * CELL_H + 80 + 44, 16)
    ctx.set_source_rgba(*GOLD, .55)
    ctx.set_line_width(1.6)
    ctx.stroke()
    text(ctx, 940, 664, "TABLESIDE", 21, GOLD, "DejaVu Serif", False, 0.5, 11, .62)
    ctx.set_source_rgba(*GOLD, .4)
    for x in (GRID_X - 62, 1066):
        ctx.rectangle(x, 656, 132, 1.2)
        ctx.fill()


def draw_moving_rotor(ctx, exposures):
    """Averages the rotor over the exposures: the first opaque, each further one with its share."""
    for k, moment in enumerate(exposures):
        ctx.push_group()
        wheel.draw_rotor(ctx, wheel.rotor_angle(moment))
        ctx.pop_group_to_source()
        ctx.paint_with_alpha(1 / (k + 1))


def chip(ctx, x, y, colour, alpha):
    ctx.save()
    ctx.translate(x, y)
    ctx.new_path()
    ctx.arc(0, 0, 13, 0, 2 * math.pi)
    ctx.set_source_rgba(*colour, alpha)
    ctx.fill()
    ctx.set_source_rgba(.96, .95, .92, alpha)
    ctx.set_line_width(3.6)
    for k in range(6):
        ctx.new_path()
        ctx.arc(0, 0, 11, k * math.pi / 3, k * math.pi / 3 + .42)
        ctx.stroke()
    ctx.new_path()
    ctx.arc(0, 0, 7.4, 0, 2 * math.pi)
    ctx.set_source_rgba(.96, .95, .92, .55 * alpha)
    ctx.set_line_width(1.1)
    ctx.stroke()
    ctx.new_path()
    ctx.arc(0, 0, 13, 0, 2 * math.pi)
    ctx.set_source_rgba(0, 0, 0, .45 * alpha)
    ctx.set_line_width(1)
    ctx.stroke()
    ctx.restore()


def draw_bets(ctx, t):
    """Chips slide in while bets are open and are cleared after the result."""
    for placed, bet, colour, height in CHIPS:
        come = wheel.smooth((t - placed) / 0.35)
        wins = bet in (wheel.WINNER, "black", "2nd 12", "1 to 18")
        gone = wheel.smooth((t - (9.45 if wins else 8.85)) / 0.4)
        if come == 0 or gone == 1:
            continue
        x, y, w, h = cell(bet)
        x = x + w / 2 + 2 if isinstance(bet, int) else x + w - 17
        y = y + h / 2 + 4 + 160 * (1 - come) ** 2 - (120 * gone ** 2 if not wins else 0)
        ctx.save()
        ctx.translate(x + 4, y + 5)
        ctx.new_path()
        ctx.arc(0, 0, 14, 0, 2 * math.pi)
        ctx.set_source_rgba(0, 0, 0, .4 * come * (1 - gone))
        ctx.fill()
        ctx.restore()
        for level in range(height):
            chip(ctx, x, y - 3.2 * level, colour, come * (1 - gone))


def draw_state(ctx, t):
    """Which part of the round it is, with the time left to bet."""
    x, y, w, h = GRID_X - 62, 84, 516, 150
    rounded(ctx, x, y, w, h, 14)
    ctx.set_source_rgba(.01, .02, .018, .62)
    ctx.fill_preserve()
    ctx.set_source_rgba(*GOLD, .45)
    ctx.set_line_width(1.2)
    ctx.stroke()
    text(ctx, x + 26, y + 38, "ROUND  2 418", 15, GOLD, spacing=1.6)
    if t < BETS_CLOSE:
        words, colour = "PLACE YOUR BETS", (.55, .90, .66)
    elif t < RESULT_FROM:
        words, colour = "NO MORE BETS", (.95, .60, .42)
    else:
        words, colour = "SEVENTEEN BLACK", CREAM
    text(ctx, x + 26, y + 78, words, 27, colour, "DejaVu Serif", spacing=1.4)
    left = max(0.0, 1 - t / BETS_CLOSE)
    ctx.set_source_rgba(1, 1, 1, .12)
    rounded(ctx, x + 26, y + 92, 372, 5, 2.5)
    ctx.fill()
    if left > 0.015:
        ctx.set_source_rgb(*((.36, .78, .50) if left > .3 else (.93, .62, .30)))
        rounded(ctx, x + 26, y + 92, 372 * left, 5, 2.5)
        ctx.fill()
    for k, number in enumerate(HISTORY):
        text(ctx, x + 36 + 46 * k, y + 130, str(number), 16,
             CREAM if number and number not in wheel.RED else ((.45, .85, .6) if number == 0 else (.95, .40, .38)),
             "DejaVu Sans", k == 0, 0.5, 0, 1 - .09 * k)
    disc(ctx, x + w - 62, y + 75, t)


def disc(ctx, cx, cy, t):
    """Seconds left, or the number that came."""
    shown = t >= RESULT_FROM
    ctx.new_path()
    ctx.arc(cx, cy, 44, 0, 2 * math.pi)
    ctx.set_source_rgb(*(wheel.colour_of(wheel.WINNER) if shown else (.03, .10, .07)))
    ctx.fill_preserve()
    ctx.set_source_rgba(*GOLD, .9)
    ctx.set_line_width(2.4)
    ctx.stroke()
    if shown:
        text(ctx, cx, cy + 15, str(wheel.WINNER), 42, CREAM, "DejaVu Serif", True, 0.5)
    elif t < BETS_CLOSE:
        text(ctx, cx, cy + 14, str(math.ceil(BETS_CLOSE - t)), 40, CREAM, "DejaVu Serif", False, 0.5)
    else:
        for k in range(3):
            ctx.new_path()
            ctx.arc(cx - 16 + 16 * k, cy, 4.2, 0, 2 * math.pi)
            ctx.set_source_rgba(*CREAM, .25 + .75 * max(0, math.sin(2 * math.pi * (t - .2 * k))))
            ctx.fill()


def draw_result(ctx, t):
    """A glow on the winning cell."""
    glow = wheel.smooth((t - RESULT_FROM) / .3) * (1 - wheel.smooth((t - 9.5) / (RESULT_UNTIL - 9.5)))
    if glow == 0:
        return
    x, y, w, h = cell(wheel.WINNER)
    pulse = glow * (.7 + .3 * math.cos(2 * math.pi * t))
    for spread in (14, 9, 4):
        rounded(ctx, x - spread, y - spread, w + 2 * spread, h + 2 * spread, 6 + spread)
        ctx.set_source_rgba(1, .86, .48, .16 * pulse)
        ctx.fill()
    ctx.rectangle(x, y, w, h)
    ctx.set_source_rgba(1, .88, .55, pulse)
    ctx.set_line_width(3)
    ctx.stroke()


def draw_clock(ctx, number):
    seconds, frame = timecode.readable(number)
    text(ctx, 1096, 39, seconds, 25, CREAM, "DejaVu Sans Mono", True, 1.0)
    text(ctx, 1252, 38, f"FRAME {frame}", 17, GOLD, "DejaVu Sans Mono", False, 1.0)
