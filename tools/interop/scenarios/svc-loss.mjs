import assert from 'node:assert/strict';

import { DESCRIPTOR, endStudio, publishLayered, SIZE } from '../lib/layered.mjs';
import { watchLinked } from '../lib/linked.mjs';
import { between } from '../lib/playback.mjs';
import { longestGap, now, shownBetween } from '../lib/shown.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'one encoding in several spatial layers, over a path that loses 5 % of the packets: Chromium goes on showing it, and asks for no keyframe';
export const timeLimitSeconds = 300;

/** Layers that rest on each other in key pictures alone (`_KEY`) are where Chromium shows one without the one below it. */
const ENCODINGS = [
  { mimeType: 'video/VP9', scalabilityMode: 'L2T3_KEY' },
  { mimeType: 'video/VP9', scalabilityMode: 'L2T3_KEY', extension: DESCRIPTOR },
  { mimeType: 'video/AV1', scalabilityMode: 'L2T3_KEY', extension: DESCRIPTOR },
];
/** Each way. */
const DELAY = 'delay=20ms';
const LOSS = 'rate=3mbit/94kB loss=5%';
const SECONDS = 20;
const LONGEST_GAP_SECONDS = 1;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t, { codec: 'none' });
  for (const encoding of ENCODINGS) await lost(t, gateway, netsim, encoding);
}

async function lost(t, gateway, netsim, { mimeType, scalabilityMode, extension }) {
  const name = `${mimeType} ${scalabilityMode}${extension ? ', with descriptors' : ''}`;
  const { studio, sent } = await publishLayered(t, gateway, { mimeType, scalabilityMode, name });
  const conditions = { delay: DELAY, down: 'rate=3mbit/94kB', extension };
  const { page, read, frames, set } = await watchLinked(gateway, netsim, await t.chromium(), conditions);
  await until(`${name} is shown as large as it is`, 60, async () => (await read()).video?.frameHeight === SIZE.height);
  const before = await read();
  const begun = await set(LOSS);
  await measureFor(SECONDS);
  const [after, ended, single] = [await read(), now(), await sent()];
  const seen = await frames();
  const played = between(before, after);
  const gap = longestGap(seen, begun, ended);
  const shown = shownBetween(seen, begun, ended).length / SECONDS;
  t.measure(`${name}, frames a second sent and shown`, `${single.framesPerSecond} ${single.scalabilityMode}, ${shown.toFixed(1)}`);
  t.measure(`${name}, packets lost, freezes, keyframes asked for`, `${played.packetsLost}, ${played.freezes}, ${played.keyframeRequests}`);
  t.measure(`${name}, longest gap`, gap, 's');
  await page.close();
  await endStudio(gateway, studio);
  assert.equal(single.scalabilityMode, scalabilityMode);
  assert.equal(played.keyframeRequests, 0, `${name}: keyframes asked for`);
  assert(gap <= LONGEST_GAP_SECONDS, `${name}: ${gap} s without a new frame`);
}
