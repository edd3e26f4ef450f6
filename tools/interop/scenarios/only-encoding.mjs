import assert from 'node:assert/strict';

import { leftOut, watchLinked } from '../lib/linked.mjs';
import { between } from '../lib/playback.mjs';
import { longestGap, now, shownBetween } from '../lib/shown.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'one encoding without layers (H.264 of FFmpeg): a player whose path carries three quarters of it gets stretches of whole frames, never six seconds without one, and its sound; with 3 Mbit/s again, all frames';
export const timeLimitSeconds = 150;

/** A keyframe every two seconds. */
const PICTURE = { size: '640x360', fps: 25, video: '1000k', audio: '32k' };
/** Queues of a quarter of a second. */
const WIDE = 'rate=3mbit/94kB';
const NARROW = 'rate=850kbit/27kB';
/** Each way. */
const DELAY = 'delay=20ms';

const STEADY_SECONDS = 4;
const NARROW_SECONDS = 30;
const UP_SECONDS = 20;
const LONGEST_GAP_SECONDS = 6;
/** Of the frames, while the path carries three quarters of the bits. */
const LEAST_SHOWN = 0.1;
/** Of the sound, what the player makes up: the queue that loses it is full until the picture rests. */
const MOST_CONCEALED = 0.05;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  t.ffmpeg(gateway.url('/whip/one'), { token: gateway.publisherToken, picture: PICTURE });
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1);
  const { read, frames, set } = await watchLinked(gateway, netsim, await t.chromium(), { delay: DELAY, down: WIDE });
  const areAllShown = (since) => async () => {
    const shown = shownBetween(await frames(), now() - 2000, now());
    if (shown.length < 2 * 0.9 * PICTURE.fps) throw new Error(`${shown.length} frames in two seconds`);
    return (now() - since) / 1000;
  };
  await until('all frames are shown', 20, areAllShown(now()));
  await measureFor(STEADY_SECONDS);

  const before = await read();
  const cutAt = await set(NARROW);
  await measureFor(NARROW_SECONDS);
  const during = await read();
  const restoredAt = await set(WIDE);
  const { value: up } = await until('all frames are back', UP_SECONDS, areAllShown(restoredAt));
  const left = await leftOut(gateway);

  const cut = between(before, during);
  const shown = cut.framesPerSecond / PICTURE.fps;
  const gap = longestGap(await frames(), cutAt, restoredAt);
  t.measure('of the frames, shown while it is cut', shown.toFixed(2));
  t.measure('longest gap while it is cut', gap.toFixed(2), 's');
  t.measure('of the sound, made up while it is cut', cut.concealedRatio.toFixed(3));
  t.measure('keyframes asked for while it is cut', cut.keyframeRequests);
  t.measure('all frames again after', up, 's');
  t.measure('frames left out', left);
  assert(shown >= LEAST_SHOWN, `${shown} of the frames were shown`);
  assert(gap <= LONGEST_GAP_SECONDS, `${gap} s without a new frame`);
  assert(cut.concealedRatio <= MOST_CONCEALED, `${cut.concealedRatio} of the sound was made up`);
  assert(left > 0, 'no frame is on the ledger as left out');
}
