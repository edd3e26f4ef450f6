"""The wheel seen from above: bowl, rotor, ball."""

import math

import cairo

CENTRE = (364, 392)
RADIUS = 300
# Single-zero order, clockwise.
ORDER = [0, 32, 15, 19, 4, 21, 2, 25, 17, 34, 6, 27, 13, 36, 11, 30, 8, 23, 10, 5, 24, 16, 33, 1, 20, 14, 31, 9, 22, 18,
         29, 7, 28, 12, 35, 3, 26]
RED = {1, 3, 5, 7, 9, 12, 14, 16, 18, 19, 21, 23, 25, 27, 30, 32, 34, 36}
WINNER = 17
SECTOR = 2 * math.pi / 37

LOOP = 10.0
TURNS = 2            # of the rotor in one loop, clockwise: a whole number, so that the loop closes
LIFTED, LAUNCHED, LEAVES_TRACK, SETTLED = 1.0, 1.7, 6.2, 8.0
LAUNCH_SPEED = 1.75  # turns a second against the rotor
TRACK_RADIUS, POCKET_RADIUS = 262, 164


def colour_of(number):
    """The pocket's colour as RGB."""
    if number == 0:
        return (0.02, 0.36, 0.20)
    return (0.60, 0.06, 0.07) if number in RED else (0.055, 0.055, 0.065)


def rotor_angle(t):
    return 2 * math.pi * TURNS * t / LOOP


def winner_angle():
    return ORDER.index(WINNER) * SECTOR - math.pi / 2


def smooth(x):
    x = min(1.0, max(0.0, x))
    return x * x * (3 - 2 * x)


def ball(t):
    """(angle, radius, scale, opacity) of the ball, or None while it is in the dealer's hand."""
    if t < LIFTED:
        lift = smooth((t - 0.5) / (LIFTED - 0.5))
        return rotor_angle(t) + winner_angle(), POCKET_RADIUS, 1 + 0.5 * lift, 1 - lift
    if t < LAUNCHED - 0.2:
        return None
    if t >= SETTLED:
        return rotor_angle(t) + winner_angle(), POCKET_RADIUS, 1, 1
    left = (SETTLED - t) / (SETTLED - LAUNCHED)
    # The integral of a relative speed that falls as left^0.8 to nothing at SETTLED.
    behind = 2 * math.pi * LAUNCH_SPEED * (SETTLED - LAUNCHED) / 1.8 * left ** 1.8
    angle = rotor_angle(t) + winner_angle() + behind
    opacity = smooth((t - LAUNCHED + 0.2) / 0.2)
    return angle, ball_radius(t), 1, opacity


def ball_radius(t):
    if t < LEAVES_TRACK:
        return TRACK_RADIUS
    first_hit = 7.0
    if t < first_hit:
        return TRACK_RADIUS + (POCKET_RADIUS + 8 - TRACK_RADIUS) * smooth((t - LEAVES_TRACK) / (first_hit - LEAVES_TRACK))
    since = (t - first_hit) / (SETTLED - first_hit)
    bounce = 34 * (1 - since) ** 2 * abs(math.sin(since * 3 * math.pi))
    return POCKET_RADIUS + 8 * (1 - since) + bounce


def radial(r0, r1, *stops):
    gradient = cairo.RadialGradient(0, 0, r0, 0, 0, r1)
    for stop in stops:
        gradient.add_color_stop_rgba(*stop, *([1] if len(stop) == 4 else []))
    return gradient


def ring(ctx, outer, inner, source):
    ctx.new_path()
    ctx.arc(0, 0, outer, 0, 2 * math.pi)
    ctx.new_sub_path()
    ctx.arc_negative(0, 0, inner, 2 * math.pi, 0)
    ctx.set_source(source)
    ctx.fill()


def draw_bowl(ctx):
    """What does not turn: shadow, wooden rim, ball track, deflectors."""
    ctx.save()
    ctx.translate(*CENTRE)
    ctx.save()
    ctx.translate(10, 16)
    ring(ctx, RADIUS + 46, 0, radial(RADIUS - 40, RADIUS + 46, (0, 0, 0, 0, 0.75), (1, 0, 0, 0, 0)))
    ctx.restore()
    ring(ctx, RADIUS, 0, radial(230, RADIUS, (0, .10, .045, .025), (.35, .20, .09, .045), (.62, .36, .17, .08),
                                (.84, .26, .115, .055), (1, .10, .04, .02)))
    for k in range(160):  # the grain of the wood
        angle = k * 2.39996
        ctx.set_source_rgba(0, 0, 0, 0.05 + 0.05 * math.sin(k * 1.7))
        ctx.set_line_width(1.1)
        ctx.new_path()
        ctx.arc(0, 0, 276 + (k * 7.31) % 22, angle, angle + 0.35 + 0.2 * math.sin(k))
        ctx.stroke()
    ring(ctx, 276, 236, radial(236, 276, (0, .16, .07, .035), (.45, .30, .14, .07), (.75, .20, .09, .045), (1, .06, .025, .015)))
    for radius, width in ((RADIUS - 1, 3.2), (276, 1.6), (237, 2.6)):
        gold_circle(ctx, radius, width)
    for k in range(8):
        ctx.save()
        ctx.rotate(k * math.pi / 4 + math.pi / 8)
        ctx.translate(250, 0)
        if k % 2:
            ctx.rotate(math.pi / 2)
        diamond(ctx)
        ctx.restore()
    ctx.restore()


def gold_circle(ctx, radius, width):
    gold = cairo.LinearGradient(-radius, -radius, radius, radius)
    for at, shade in ((0, 1.0), (.3, .55), (.5, .85), (.75, .45), (1, .8)):
        gold.add_color_stop_rgb(at, .95 * shade, .78 * shade, .42 * shade)
    ctx.new_path()
    ctx.arc(0, 0, radius, 0, 2 * math.pi)
    ctx.set_line_width(width)
    ctx.set_source(gold)
    ctx.stroke()


def diamond(ctx):
    for sign, shade in ((1, 1.0), (-1, .6)):
        ctx.new_path()
        ctx.move_to(-11, 0)
        ctx.line_to(0, 4.5 * sign)
        ctx.line_to(11, 0)
        ctx.close_path()
        ctx.set_source_rgb(.93 * shade, .77 * shade, .45 * shade)
        ctx.fill()


def draw_rotor(ctx, angle):
    """The turning part: numbers, pockets, cone, turret."""
    ctx.save()
    ctx.translate(*CENTRE)
    ctx.rotate(angle)
    for k, number in enumerate(ORDER):
        start = k * SECTOR - math.pi / 2 - SECTOR / 2
        for outer, inner, shade in ((236, 188, 1.0), (188, 140, 0.62)):
            ctx.new_path()
            ctx.arc(0, 0, outer, start, start + SECTOR)
            ctx.arc_negative(0, 0, inner, start + SECTOR, start)
            ctx.close_path()
            ctx.set_source_rgb(*(c * shade for c in colour_of(number)))
            ctx.fill()
    ring(ctx, 188, 140, radial(140, 188, (0, 0, 0, 0, .55), (.35, 0, 0, 0, .05), (.8, 0, 0, 0, .1), (1, 0, 0, 0, .5)))
    for k in range(37):
        ctx.save()
        ctx.rotate((k + 0.5) * SECTOR)
        ctx.set_source_rgb(.78, .63, .34)
        ctx.rectangle(-0.9, -236, 1.8, 96)
        ctx.fill()
        ctx.restore()
    ctx.select_font_face("DejaVu Sans Condensed", cairo.FONT_SLANT_NORMAL, cairo.FONT_WEIGHT_BOLD)
    ctx.set_font_size(24)
    for k, number in enumerate(ORDER):
        ctx.save()
        ctx.rotate(k * SECTOR)
        box = ctx.text_extents(str(number))
        ctx.move_to(-box.width / 2 - box.x_bearing, -203)
        ctx.set_source_rgb(.97, .95, .90)
        ctx.show_text(str(number))
        ctx.restore()
    gold_circle(ctx, 188, 1.8)
    gold_circle(ctx, 140, 3)
    draw_cone(ctx)
    ctx.restore()


def draw_cone(ctx):
    ring(ctx, 138, 0, radial(0, 138, (0, .52, .28, .13), (.5, .34, .15, .07), (.9, .20, .085, .04), (1, .09, .035, .02)))
    for k in range(12):
        ctx.save()
        ctx.rotate(k * math.pi / 6)
        ctx.new_path()
        ctx.move_to(0, -46)
        ctx.line_to(9, -92)
        ctx.line_to(0, -130)
        ctx.line_to(-9, -92)
        ctx.close_path()
        ctx.set_source_rgba(.93, .76, .42, .16 if k % 2 else .30)
        ctx.fill()
        ctx.restore()
    gold_circle(ctx, 96, 1.0)
    for k in range(4):
        ctx.save()
        ctx.rotate(k * math.pi / 2)
        arm = cairo.LinearGradient(-6, 0, 6, 0)
        arm.add_color_stop_rgb(0, .50, .38, .17)
        arm.add_color_stop_rgb(.4, 1, .90, .62)
        arm.add_color_stop_rgb(1, .42, .31, .13)
        ctx.set_source(arm)
        ctx.rectangle(-4.5, -70, 9, 56)
        ctx.fill()
        ctx.translate(0, -72)
        ring(ctx, 11, 0, radial(0, 11, (0, 1, .95, .75), (.5, .88, .70, .36), (1, .40, .29, .11)))
        ctx.restore()
    ring(ctx, 34, 0, radial(0, 34, (0, 1, .94, .72), (.25, .93, .77, .43), (.6, .66, .49, .21), (.8, .90, .73, .40), (1, .36, .26, .10)))


def draw_lights(ctx):
    """Reflections of the room's lamps: they stand still while the rotor turns under them."""
    ctx.save()
    ctx.translate(*CENTRE)
    ctx.arc(0, 0, RADIUS, 0, 2 * math.pi)
    ctx.clip()
    for x, y, r, strength in ((-110, -150, 230, .20), (150, 120, 190, .07)):
        light = cairo.RadialGradient(x, y, 0, x, y, r)
        light.add_color_stop_rgba(0, 1, .96, .86, strength)
        light.add_color_stop_rgba(1, 1, .96, .86, 0)
        ctx.set_source(light)
        ctx.paint()
    ctx.restore()


def draw_ball(ctx, exposures):
    """The ball, smeared over the shutter's opening: `exposures` are the moments that add up to the frame."""
    for moment in exposures:
        state = ball(min(LOOP, max(0.0, moment)))
        if state is None:
            continue
        angle, radius, scale, opacity = state
        x, y = CENTRE[0] + radius * math.cos(angle), CENTRE[1] + radius * math.sin(angle)
        weight = 2 * opacity / len(exposures)
        ctx.save()
        ctx.translate(x + 3 * scale, y + 4 * scale)
        ring(ctx, 11 * scale, 0, radial(3, 11 * scale, (0, 0, 0, 0, .6 * weight), (1, 0, 0, 0, 0)))
        ctx.translate(-3 * scale, -4 * scale)
        size = 9.5 * scale
        shine = cairo.RadialGradient(-3, -3.5, 1, 0, 0, size)
        shine.add_color_stop_rgba(0, 1, 1, 1, min(1, 1.6 * weight))
        shine.add_color_stop_rgba(.6, .93, .92, .88, min(1, 1.6 * weight))
        shine.add_color_stop_rgba(1, .62, .60, .56, min(1, 1.6 * weight))
        ctx.new_path()
        ctx.arc(0, 0, size, 0, 2 * math.pi)
        ctx.set_source(shine)
        ctx.fill()
        ctx.restore()
