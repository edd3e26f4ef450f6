import assert from 'node:assert/strict';

import { DESCRIPTOR, endStudio, publishLayered, SIZE } from '../lib/layered.mjs';
import { watchLinked } from '../lib/linked.mjs';
import { between } from '../lib/playback.mjs';
import { firstAfter, longestGap, now, shownBetween, stretches } from '../lib/shown.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'one encoding in several spatial layers, of VP9 and AV1: a player whose path carries less gets the smaller picture without a freeze, and the larger one again; ?maxLayer=0 gives the smallest';
/** Anything else that runs beside it changes what it measures. */
export const byNameOnly = 'a picture is encoded and decoded on time';
export const timeLimitSeconds = 400;

/** Queues of a quarter and of half a second. `extension` is what the player asks for: nothing else says of AV1 what may be left out. */
const WIDE = 'rate=3mbit/94kB';
const ENCODINGS = [
  { mimeType: 'video/VP9', scalabilityMode: 'L2T3_KEY', layers: 2, narrow: 'rate=400kbit/25kB' },
  // So much is lost before the picture is smaller that there is no room for all repairs at once.
  { mimeType: 'video/VP9', scalabilityMode: 'L2T3_KEY', layers: 2, narrow: 'rate=320kbit/10kB' },
  { mimeType: 'video/VP9', scalabilityMode: 'L2T1', layers: 2, narrow: 'rate=400kbit/25kB' },
  { mimeType: 'video/AV1', scalabilityMode: 'L2T1', layers: 2, narrow: 'rate=400kbit/25kB', extension: DESCRIPTOR },
];
/** Each way. */
const DELAY = 'delay=20ms';

const STEADY_SECONDS = 5;
/** The picture is another within … */
const DOWN_SECONDS = 4;
const NARROW_SECONDS = 15;
const UP_SECONDS = 40;
const LONGEST_GAP_SECONDS = 1;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  for (const encoding of ENCODINGS) await chosen(t, gateway, netsim, encoding);
}

async function chosen(t, gateway, netsim, { mimeType, scalabilityMode, layers, narrow, extension }) {
  const name = `${mimeType} ${scalabilityMode}, ${narrow}`;
  const { studio, sent } = await publishLayered(t, gateway, { mimeType, scalabilityMode, name });
  const endpoint = gateway.whep('one');
  const smallestOnly = `${endpoint}${endpoint.includes('?') ? '&' : '?'}maxLayer=0`;
  const conditions = { delay: DELAY, down: WIDE, extension };
  const { page, read, frames, set, watch } = await watchLinked(gateway, netsim, await t.chromium(), conditions);
  const least = await watch(smallestOnly);
  const largest = SIZE.height;
  const smallest = largest / 2 ** (layers - 1);
  const wrong = [];
  const expect = (holds, what) => holds || wrong.push(`${name}: ${what}`);
  await until(`${name} is shown as large as it is`, 60, async () => (await read()).video?.frameHeight === largest);
  await measureFor(STEADY_SECONDS);
  const [before, sentBefore] = [await read(), await sent()];

  const cutAt = await set(narrow);
  await measureFor(NARROW_SECONDS);
  const during = await read();
  const restoredAt = await set(WIDE);
  const { value: up } = await until('the largest picture is back', UP_SECONDS, async () => {
    const back = firstAfter(await frames(), restoredAt, (height) => height === largest);
    if (back === undefined) throw new Error(`${(await read()).video?.frameHeight} lines`);
    return back;
  }).catch(() => ({ value: undefined }));
  await measureFor(STEADY_SECONDS);
  const [after, sentAfter] = [await read(), await sent()];

  const [seen, bounded] = [await frames(), await frames(least)];
  const down = firstAfter(seen, cutAt, (height) => height < largest);
  const lower = shownBetween(seen, cutAt + DOWN_SECONDS * 1000, restoredAt).map(([, height]) => height);
  const gaps = [longestGap(seen, cutAt, restoredAt), longestGap(seen, restoredAt, now())];
  const all = between(before, after);
  const keyframes = sentAfter.keyFramesEncoded - sentBefore.keyFramesEncoded;
  const heights = stretches(seen).map(({ height, frames: count }) => `${count} of ${height}`);
  const shown = lower.length / (NARROW_SECONDS - DOWN_SECONDS);
  t.measure(`${name}, sent`, `${sentAfter.scalabilityMode}, ${sentAfter.framesPerSecond} frames a second, ${keyframes} keyframes since the cut`);
  t.measure(`${name}, frames shown by height`, heights.join(', '));
  t.measure(`${name}, a smaller picture after`, down ?? 'never', 's');
  t.measure(`${name}, frames a second while it is cut`, shown.toFixed(1));
  t.measure(`${name}, longest gap while it is cut, and then`, gaps.map((gap) => gap.toFixed(2)).join(' and '), 's');
  t.measure(`${name}, freezes while it is cut, PLIs in the whole`, `${between(before, during).freezes}, ${all.keyframeRequests}`);
  t.measure(`${name}, the largest again after`, up ?? 'never', 's');
  t.measure(`${name}, heights with ?maxLayer=0`, stretches(bounded).map(({ height, frames: count }) => `${count} of ${height}`).join(', '));
  expect(sentAfter.scalabilityMode === scalabilityMode, `${sentAfter.scalabilityMode} is sent`);
  expect(down !== undefined && down <= DOWN_SECONDS, `a smaller picture after ${down} s`);
  expect(lower.length > 0 && lower.every((height) => height < largest), 'the largest picture while it is cut');
  expect(shown > 0.2 * SIZE.frameRate, `${shown.toFixed(1)} frames a second while it is cut`);
  expect(Math.max(...gaps) <= LONGEST_GAP_SECONDS, `${Math.max(...gaps).toFixed(2)} s without a new frame`);
  expect(all.keyframeRequests === 0, `${all.keyframeRequests} keyframes asked for`);
  expect(up !== undefined, `the largest picture is not back within ${UP_SECONDS} s`);
  expect(bounded.length > 0 && bounded.every(([, height]) => height === smallest), `not ${smallest} lines alone with ?maxLayer=0`);
  await page.close();
  await endStudio(gateway, studio);
  assert(wrong.length === 0, wrong.join('; '));
}
