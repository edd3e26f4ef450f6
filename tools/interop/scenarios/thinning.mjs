import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { leftOut, watchLinked } from '../lib/linked.mjs';
import { between } from '../lib/playback.mjs';
import { longestGap, now, shownBetween } from '../lib/shown.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'one encoding in three temporal layers, in VP8 and VP9: a player whose path carries two thirds of it gets fewer frames, never a second of freeze, and asks for no keyframe; with 3 Mbit/s again, all frames';
/** Anything else that runs beside it changes what it measures. */
export const byNameOnly = 'a picture is encoded and decoded on time';
export const timeLimitSeconds = 400;

const WHEEL = readFileSync(new URL('../page/wheel.js', import.meta.url), 'utf8');
const SIMULCAST = readFileSync(new URL('../page/simulcast.js', import.meta.url), 'utf8');
/** Small enough for two cores that encode it, and decode it again. */
const SIZE = { width: 640, height: 360, frameRate: 24 };
const BITS = 1_000_000;
/** Queues of a quarter of a second. */
const WIDE = 'rate=3mbit/94kB';
/** What carries the base layer, to which Chromium's VP9 gives more than half of the bits, and not all. */
const NARROW = { 'video/VP8': 'rate=650kbit/20kB', 'video/VP9': 'rate=850kbit/27kB' };
/** Each way. */
const DELAY = 'delay=20ms';

const STEADY_SECONDS = 5;
/** The frame rate is another within … */
const DOWN_SECONDS = 2;
const NARROW_SECONDS = 20;
const UP_SECONDS = 30;
const LONGEST_GAP_SECONDS = 1;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  for (const mimeType of Object.keys(NARROW)) await thinned(t, gateway, netsim, mimeType);
}

async function thinned(t, gateway, netsim, mimeType) {
  const { studio, sent } = await published(t, gateway, mimeType);
  const { page, read, frames, set } = await watchLinked(gateway, netsim, await t.chromium(), { delay: DELAY, down: WIDE });
  await measureFor(STEADY_SECONDS);
  const begun = [await read(), await sent()];
  await measureFor(STEADY_SECONDS);
  const [before, sentBefore] = [await read(), await sent()];
  const full = between(begun[0], before);
  const droppedBefore = await leftOut(gateway);

  const cutAt = await set(NARROW[mimeType]);
  await measureFor(DOWN_SECONDS);
  const down = await read();
  await measureFor(NARROW_SECONDS - DOWN_SECONDS);
  const [during, droppedDuring] = [await read(), await leftOut(gateway)];
  const restoredAt = await set(WIDE);
  const { value: up } = await until('all frames are back', UP_SECONDS, async () => {
    const shown = shownBetween(await frames(), now() - 2000, now());
    if (shown.length < 2 * 0.9 * full.framesPerSecond) throw new Error(`${shown.length} frames in two seconds`);
    return (now() - restoredAt) / 1000;
  }).catch((error) => ({ value: undefined, error }));
  await measureFor(STEADY_SECONDS);
  const [after, sentAfter] = [await read(), await sent()];

  const wrong = [];
  const expect = (holds, what) => holds || wrong.push(`${mimeType}: ${what}`);
  const seen = await frames();
  const [thin, all] = [between(down, during), between(before, after)];
  const ratio = thin.framesPerSecond / full.framesPerSecond;
  const grown = (from, to, key) => (to.video[key] ?? 0) - (from.video[key] ?? 0);
  const gaps = [longestGap(seen, cutAt, restoredAt), longestGap(seen, restoredAt, now())];
  const nacks = grown(before, during, 'nackCount');
  const [plis, keyframes] = [all.keyframeRequests, sentAfter.keyFramesEncoded - sentBefore.keyFramesEncoded];
  t.measure(`${mimeType}, sent`, `${sentAfter.scalabilityMode}, ${sentAfter.framesPerSecond} frames a second, ${keyframes} keyframes since the cut`);
  t.measure(`${mimeType}, frames a second before, while it is cut`, `${full.framesPerSecond.toFixed(1)}, ${thin.framesPerSecond.toFixed(1)}`);
  t.measure(`${mimeType}, longest gap while it is cut, and then`, gaps.map((gap) => gap.toFixed(2)).join(' and '), 's');
  t.measure(`${mimeType}, freezes, PLIs, NACKs while it is cut`, `${between(before, during).freezes}, ${plis}, ${nacks}`);
  t.measure(`${mimeType}, NACKs and lost packets in the whole`, `${grown(before, after, 'nackCount')}, ${all.packetsLost}`);
  t.measure(`${mimeType}, all frames again after`, up ?? 'never', 's');
  t.measure(`${mimeType}, frames left out`, droppedDuring - droppedBefore);
  expect(sentAfter.scalabilityMode === 'L1T3', `${sentAfter.scalabilityMode} is sent, not L1T3`);
  expect(full.framesPerSecond > 0.8 * SIZE.frameRate, `${full.framesPerSecond} frames a second at first`);
  expect(ratio > 0.2 && ratio < 0.65, `${Math.round(100 * ratio)} % of the frames while it is cut, not about a quarter or a half`);
  expect(Math.max(...gaps) <= LONGEST_GAP_SECONDS, `${Math.max(...gaps).toFixed(2)} s without a new frame`);
  expect(plis === 0, `${plis} keyframes asked for`);
  expect(nacks < 200, `${nacks} NACKs while it is cut`);
  expect(up !== undefined, `the frames are not back within ${UP_SECONDS} s`);
  expect(droppedDuring > droppedBefore, 'no frame is on the ledger as left out');
  await page.close();
  await studio.close();
  await until('the publisher is gone', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 0);
  assert(wrong.length === 0, wrong.join('; '));
}

/** Publishes one encoding of three temporal layers and waits until it has its bits. */
async function published(t, gateway, mimeType) {
  const browser = await t.chromium({ camera: true });
  const studio = await browser.open(gateway.url('/'));
  await studio.evaluate(WHEEL);
  await studio.evaluate(SIMULCAST);
  const encodings = [{ scalabilityMode: 'L1T3', maxBitrate: BITS }];
  await studio.evaluate(([endpoint, options]) => globalThis.interopSimulcast.publish(endpoint, options), [
    gateway.url('/whip/one'),
    { mimeType, ...SIZE, token: gateway.publisherToken, wheel: true, encodings },
  ]);
  const sent = async () => (await studio.evaluate(() => globalThis.interopSimulcast.layers())).single;
  const { seconds } = await until('the encoding has its bits', 60, async () => {
    const single = await sent();
    if (!(single?.targetBitrate >= 0.9 * BITS)) throw new Error(JSON.stringify(single));
    return true;
  });
  t.measure(`${mimeType}, until the encoding has its bits`, seconds, 's');
  return { studio, sent };
}
