// What a cell of the loss matrix comes to, from readings that are made up.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FPS, outcome } from '../lib/loss-matrix.mjs';

const EVERY_MS = 250;
const SECONDS = 30;

/**
 * Readings of a player every quarter of a second.
 *
 * @typedef {(seconds: number) => number} Course
 * @param {{ behind?: Course, wait?: Course, dropped?: Course, dropsDecoded?: boolean }} how frames not shown by then; seconds that a frame
 * waits in the jitter buffer; frames dropped, and whether they were decoded before
 */
function readings({ behind = () => 0, wait = () => 0, dropped = () => 0, dropsDecoded = false }) {
  let delay = 0;
  let emitted = 0;
  return Array.from({ length: (SECONDS * 1000) / EVERY_MS + 1 }, (_, n) => {
    const seconds = (n * EVERY_MS) / 1000;
    const framesReceived = 100 + Math.floor(FPS * seconds - behind(seconds));
    const framesDropped = dropped(seconds);
    const framesDecoded = framesReceived - (dropsDecoded ? 0 : framesDropped);
    delay += (framesDecoded - emitted) * wait(seconds);
    emitted = framesDecoded;
    const jitterBuffer = { jitterBufferDelay: delay, jitterBufferEmittedCount: emitted };
    return { at: 1e12 + 1000 * seconds, video: { framesReceived, framesDecoded, framesDropped, freezeCount: 0, ...jitterBuffer } };
  });
}

const shown = (how) => outcome(readings(how)).shown;
const near = (value, wanted) => assert(Math.abs(value - wanted) < 0.003, `${value}, not ${wanted}`);

test('who shows every frame has shown all', () => near(shown({}), 1));

test('frames that never came are missing', () => {
  // One in ten, spread over the whole time, and thirty in its middle.
  near(shown({ behind: (seconds) => 0.1 * FPS * seconds }), 0.9);
  near(shown({ behind: (seconds) => (seconds > 15 ? 30 : 0) }), 1 - 30 / (FPS * SECONDS));
});

test('frames that were dropped are missing, once, whether they had been decoded or not', () => {
  for (const dropsDecoded of [true, false]) {
    near(shown({ dropsDecoded, dropped: (seconds) => (seconds > 15 ? 45 : 0) }), 1 - 45 / (FPS * SECONDS));
  }
});

test('what waits for a repair as a reading is made is not lost', () => {
  const late = [0.25, 12, SECONDS - 0.25, SECONDS];
  near(shown({ behind: (seconds) => (late.includes(seconds) ? 12 : 0) }), 1);
});

test('what the jitter buffer has come to hold back is not lost', () => {
  const wait = (seconds) => (seconds > 10 ? 0.2 : 0);
  near(shown({ wait, behind: (seconds) => FPS * wait(seconds) }), 1);
});

test('a picture that stands at the end is missing', () => {
  // Compared with the first of the last readings, where it stood already.
  near(shown({ behind: (seconds) => FPS * Math.max(0, seconds - 20) }), 20 / (SECONDS - 4.75));
});
