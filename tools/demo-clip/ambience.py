"""Ten seconds of a quiet lounge that close on themselves: chords, the ball on its track, a tick each second.

The tick starts exactly on the second, the one at 0 s is an octave higher: with the burnt-in clock that lets ear and
eye judge whether sound and picture are together.
"""

import array
import math
import random

import wheel

RATE = 48_000
SECONDS = 10
TOTAL = RATE * SECONDS

# Cmaj9, Am9, Dm9, G13 without the root doubled, in Hz; rounded to 0.1 Hz every partial fits the loop a whole number of times.
CHORDS = [
    (130.8, 196.0, 246.9, 293.7, 329.6),
    (110.0, 196.0, 246.9, 261.6, 329.6),
    (146.8, 174.6, 220.0, 261.6, 329.6),
    (98.0, 174.6, 246.9, 293.7, 329.6),
]
MELODY = [659.3, 587.3, 493.9, 587.3, 523.3, 493.9, 440.0, 493.9, 349.2, 440.0, 523.3, 587.3, 493.9, 587.3, 659.3, 784.0]


class Track:
    """Two channels of floats, written to with wrap-around."""

    def __init__(self):
        self.left = array.array("d", bytes(8 * TOTAL))
        self.right = array.array("d", bytes(8 * TOTAL))

    def add(self, at, samples, pan):
        """Mixes mono `samples` in from second `at`; pan 0 is left, 1 right."""
        start = round(at * RATE)
        gain_left, gain_right = math.cos(pan * math.pi / 2), math.sin(pan * math.pi / 2)
        for i, sample in enumerate(samples):
            k = (start + i) % TOTAL
            self.left[k] += gain_left * sample
            self.right[k] += gain_right * sample


def chords(track):
    length = 4 * RATE  # each swells over 4 s, 2.5 s apart
    swell = [math.sin(math.pi * i / length) ** 2 for i in range(length)]
    for index, chord in enumerate(CHORDS):
        for voice, hertz in enumerate(chord):
            # The phase runs on loop time, so the overlap with the next chord does not beat.
            step, start = 2 * math.pi * hertz / RATE, round(index * 2.5 * RATE - 0.75 * RATE)
            gain = 0.030 if voice else 0.045
            samples = [gain * swell[i] * (math.sin(step * (start + i)) + 0.22 * math.sin(2 * step * (start + i)))
                       for i in range(length)]
            track.add(start / RATE, samples, 0.25 + 0.5 * voice / (len(chord) - 1))


def melody(track):
    """A soft electric piano, every 0.625 s."""
    length = int(1.8 * RATE)
    decay = [math.exp(-2.6 * i / RATE) * min(1, i / 240) * min(1, (length - i) / 4800) for i in range(length)]
    for index, hertz in enumerate(MELODY):
        step = 2 * math.pi * hertz / RATE
        gain = 0.040 if index % 4 == 0 else 0.024
        samples = [gain * decay[i] * (math.sin(step * i + 0.9 * decay[i] * math.sin(step * i))) for i in range(length)]
        track.add(index * 0.625, samples, 0.35 + 0.3 * (index % 2))


def ticks(track):
    length = int(0.03 * RATE)
    for second in range(SECONDS):
        step = 2 * math.pi * (2400 if second == 0 else 1200) / RATE
        samples = [0.13 * math.exp(-160 * i / RATE) * math.cos(step * i) for i in range(length)]
        track.add(second, samples, 0.5)


def rolling(track, rng):
    """The ball on wood: noise whose brightness follows the speed, then its hits among the pockets."""
    start, end = wheel.LAUNCHED, 6.9
    low = band = 0.0
    samples = []
    length = round((end - start) * RATE)
    for i in range(length):
        done = i / length
        cut = 0.16 - 0.09 * done
        low += cut * (rng.uniform(-1, 1) - low)
        band += 0.03 * (low - band)
        turn = 0.75 + 0.25 * math.sin(2 * math.pi * (7.0 * done - 2.6 * done * done))
        samples.append(0.10 * (low - band) * turn * min(1, i / 4000) * (1 - done) ** 0.6)
    track.add(start, samples, 0.42)
    for at, gain in ((7.0, .16), (7.33, .11), (7.5, .05), (7.66, .06), (7.85, .03), (8.0, .04)):
        length = int(0.02 * RATE)
        click = [gain * math.exp(-420 * i / RATE) * math.sin(2 * math.pi * 3100 * i / RATE) for i in range(length)]
        track.add(at, click, 0.42)


def room(track, rng):
    """Air: very quiet low noise, cross-faded into itself."""
    fade = RATE
    for side in (track.left, track.right):
        value, noise = 0.0, []
        for _ in range(TOTAL + fade):
            value += 0.02 * (rng.uniform(-1, 1) - value)
            noise.append(0.030 * value)
        for i in range(TOTAL):
            if i < fade:
                x = i / fade
                side[i] += math.sqrt(x) * noise[i] + math.sqrt(1 - x) * noise[TOTAL + i]
            else:
                side[i] += noise[i]


def render():
    """One loop as interleaved signed 16-bit stereo."""
    rng = random.Random(17)
    track = Track()
    chords(track)
    melody(track)
    ticks(track)
    rolling(track, rng)
    room(track, rng)
    peak = max(max(map(abs, track.left)), max(map(abs, track.right)))
    scale = 0.7 * 32767 / peak
    out = array.array("h")
    for left, right in zip(track.left, track.right):
        out.append(round(left * scale))
        out.append(round(right * scale))
    return out
