"""The frame number burnt into the picture: squares for machines, digits for people.

The strip is a contract with tests. At 1280x720 sixteen squares of 32x32 pixels stand side by side, square i covers
x = 384 + 32 i .. 416 + 32 i, y = 0 .. 32. White is one, black is zero. Macroblock-aligned, so that no codec smears
one into the next; read the mean of the inner 16x16 pixels of each, scaled by width / 1280 in other sizes.

    square   0      always white } the threshold lies half-way between the two;
    square   1      always black } less than 100 of 255 apart means: no strip in this picture
    square   2-10   frame number 0-299 in Gray code, most significant bit first
    square  11-14   squares 7-10 inverted
    square  15      1 where the number of white squares among 2-10 is odd

The frame's time in the loop is number / 30 seconds.
"""

FPS = 30
FRAMES = 300
SQUARES = 16
SIDE = 32
LEFT = 384


def squares(frame):
    """The sixteen values, 0 or 1, for a frame number."""
    gray = frame ^ (frame >> 1)
    bits = [(gray >> shift) & 1 for shift in range(8, -1, -1)]
    return [1, 0, *bits, *[1 - bit for bit in bits[5:]], sum(bits) % 2]


def frame_number(values):
    """The inverse of `squares`; None where a check fails."""
    bits = values[2:11]
    if values[:2] != [1, 0] or values[11:15] != [1 - bit for bit in bits[5:]] or values[15] != sum(bits) % 2:
        return None
    frame, bit = 0, 0
    for gray in bits:
        bit ^= gray
        frame = frame << 1 | bit
    return frame if frame < FRAMES else None


def read_luma(luma, width):
    """Reads the strip from rows of 8-bit luma (`luma[y * width + x]`) of a 1280-pixel-wide picture."""
    means = []
    for i in range(SQUARES):
        x = LEFT + SIDE * i + 8
        rows = [luma[y * width + x:y * width + x + 16] for y in range(8, 24)]
        means.append(sum(map(sum, rows)) / 256)
    if means[0] - means[1] < 100:
        return None
    threshold = (means[0] + means[1]) / 2
    return frame_number([int(mean > threshold) for mean in means])


def draw_strip(ctx, frame):
    """Paints the sixteen squares, without antialiasing."""
    for i, value in enumerate(squares(frame)):
        ctx.set_source_rgb(value, value, value)
        ctx.rectangle(LEFT + SIDE * i, 0, SIDE, SIDE)
        ctx.fill()


def readable(frame):
    """`07.433`, the time in the loop, and `223`, the frame number."""
    millis = frame * 1000 // FPS
    return f"{millis // 1000:02d}.{millis % 1000:03d}", f"{frame:03d}"
