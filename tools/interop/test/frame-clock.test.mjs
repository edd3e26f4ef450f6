import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

import '../page/frame-clock.js';
import { FFMPEG, ROOT } from '../lib/tools.mjs';

const { STRIP, FRAMES, decode, draw, aheadMs } = globalThis.interopClock;
const WIDTH = STRIP.side * STRIP.squares;

/** The strip of a frame, as `draw` paints it, with these for white and black. */
function strip(frame, { white = 235, black = 16 } = {}) {
  const squares = new Map();
  const context = { fillStyle: '', fillRect: (x, y, width, height) => squares.set(x, { y, width, height, white: context.fillStyle === '#fff' }) };
  draw(context, frame);
  return pixels((x) => {
    const { y, width, height, white: isWhite } = squares.get(STRIP.left + STRIP.side * Math.floor(x / STRIP.side));
    assert.deepEqual([y, width, height], [0, STRIP.side, STRIP.side]);
    return isWhite ? white : black;
  });
}

function pixels(luma) {
  const rgba = new Uint8ClampedArray(4 * WIDTH * STRIP.side);
  for (let i = 0; i < WIDTH * STRIP.side; i += 1) rgba.fill(luma(i % WIDTH, Math.floor(i / WIDTH)), 4 * i, 4 * i + 4);
  return rgba;
}

test('every frame number is read back', () => {
  for (let frame = 0; frame < FRAMES; frame += 1) assert.equal(decode(strip(frame), STRIP.side), frame);
});

test('a picture without a strip, or with a damaged one, has no number', () => {
  assert.equal(decode(pixels(() => 128), STRIP.side), undefined);
  assert.equal(decode(strip(17, { white: 100, black: 60 }), STRIP.side), undefined);
  assert.equal(decode(strip(FRAMES), STRIP.side), undefined, 'a number beyond the loop');
  for (let square = 0; square < STRIP.squares; square += 1) {
    const damaged = strip(17);
    for (let i = 0; i < damaged.length; i += 1) {
      if (Math.floor(((i >> 2) % WIDTH) / STRIP.side) === square) damaged[i] = 251 - damaged[i];
    }
    assert.equal(decode(damaged, STRIP.side), undefined, `square ${square}`);
  }
});

test('the distance goes the shorter way round the loop', () => {
  assert.equal(aheadMs(3, 0), 100);
  assert.equal(aheadMs(0, 3), -100);
  assert.equal(aheadMs(1, 298), 100);
  assert.equal(aheadMs(298, 1), -100);
});

test('the demo clips carry the clock, in both codecs', () => {
  for (const clip of ['dealer.h264', 'dealer.ivf']) {
    const crop = `crop=${WIDTH}:${STRIP.side}:${STRIP.left}:0`;
    const rgba = execFileSync(
      FFMPEG,
      ['-v', 'error', '-i', join(ROOT, 'config/demo', clip), '-vf', crop, '-f', 'rawvideo', '-pix_fmt', 'rgba', '-'],
      { maxBuffer: 1 << 30 },
    );
    const size = 4 * WIDTH * STRIP.side;
    assert.equal(rgba.length, FRAMES * size, clip);
    for (let frame = 0; frame < FRAMES; frame += 1) {
      assert.equal(decode(rgba.subarray(frame * size, (frame + 1) * size), STRIP.side), frame, `${clip}, frame ${frame}`);
    }
  }
});
