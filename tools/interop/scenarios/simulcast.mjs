import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { SHOWN } from '../lib/chromium.mjs';
import { between } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium publishes three layers, another plays the best that comes: the top one ends, and returns; one with maxLayer never gets it';
export const timeLimitSeconds = 240;

const SIMULCAST = readFileSync(new URL('../page/simulcast.js', import.meta.url), 'utf8');
/** Of a smaller picture, Chromium sends two layers at most. The rate lets a small machine encode three of this one. */
const SIZE = { width: 1280, height: 720, frameRate: 20 };

export async function run(t) {
  const gateway = await t.demo();
  const studio = await t.chromium({ camera: true });
  const home = await t.chromium();
  for (const mimeType of ['video/VP8', 'video/H264']) await published(t, gateway, studio, home, mimeType);
}

async function published(t, gateway, studio, home, mimeType) {
  const table = mimeType === 'video/VP8' ? 'layers-vp8' : 'layers-h264';
  const camera = await studio.open(gateway.url('/'));
  await camera.evaluate(SIMULCAST);
  const { offer, answer } = await camera.evaluate(
    ([endpoint, options]) => globalThis.interopSimulcast.publish(endpoint, options),
    [gateway.url(`/whip/${table}`), { mimeType, ...SIZE }],
  );
  assert.match(offer, /a=simulcast:send q;h;f\r\n/);
  assert.match(answer, /a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n/);
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table }) === 1);

  const switches = async () => (await gateway.metrics()).sum('tableside_layer_switches_total', { table });
  const atJoin = await switches();
  const watching = await home.openPeers(gateway.url('/'));
  const { peer } = await watching.evaluate((url) => globalThis.interop.watch(url), gateway.url(`/whep/${table}`));
  const read = () => watching.evaluate((number) => globalThis.interop.stats(number), peer);
  const setActive = (active) => camera.evaluate((layers) => globalThis.interopSimulcast.setActive(layers), active);
  const sent = () => camera.evaluate(() => globalThis.interopSimulcast.layers());
  const plays = (height, seconds) =>
    until(`the picture is ${height} rows high`, seconds, async () => {
      const { video } = await read();
      if (video.frameHeight !== height) throw new Error(`${video.frameHeight}; sent: ${JSON.stringify(await sent())}`);
      return true;
    });

  // Browsers begin with the small layers, and add others as their estimate of the bandwidth rises.
  const joined = await read();
  const first = await plays(SIZE.height, 60);
  t.measure(`${mimeType}, to the top layer`, first.seconds, 's');
  // A freeze is counted when it is over: that of the switch after the first picture of the top layer.
  await measureFor(1);
  const start = between(joined, await read());
  // From the small layer it may go over the middle one.
  const climbed = await switches() - atJoin;
  t.measure(`${mimeType}, switches and freezes over the first way up`, `${climbed}, ${start.freezes}`);
  assert(start.freezes <= Math.max(1, climbed), `${start.freezes} freezes: more than the ${climbed} switches themselves`);
  await assertPlays(t, read, `${mimeType}, top layer`);
  const bounded = await watchUpTo(watching, gateway.url(`/whep/${table}?maxLayer=1`));

  await setActive({ f: false });
  const before = await read();
  const down = await plays(SIZE.height / 2, 5);
  t.measure(`${mimeType}, to the middle layer`, down.seconds, 's');
  await measureFor(2);
  const over = between(before, await read());
  t.measure(`${mimeType}, freezes over the way down`, over.freezes);
  assert(over.freezes <= 1, `${over.freezes} freezes: more than the switch itself`);
  await assertPlays(t, read, `${mimeType}, middle layer`);

  await setActive({ h: false });
  const lowest = await plays(SIZE.height / 4, 5);
  t.measure(`${mimeType}, to the small layer`, lowest.seconds, 's');
  await assertPlays(t, read, `${mimeType}, small layer`);

  await setActive({ h: true, f: true });
  const atBottom = await read();
  const up = await plays(SIZE.height, 60);
  t.measure(`${mimeType}, back to the top layer`, up.seconds, 's');
  // Chromium sets its encoders up anew for that, and sends nothing meanwhile.
  const climb = between(atBottom, await read());
  t.measure(`${mimeType}, freezes over the way up`, climb.freezes);
  assert(climb.freezes <= 1, `${climb.freezes} freezes: more than the switch itself`);
  await assertPlays(t, read, `${mimeType}, top layer again`);
  await until('who may not have it has the middle layer again', 30, async () => (await bounded()).at(-1) === SIZE.height / 2);
  const heights = await bounded();
  const tallies = [4, 2, 1].map((part) => heights.filter((height) => height === SIZE.height / part).length);
  t.measure(`${mimeType}, frames of each layer with maxLayer 1`, tallies.join(', '));
  assert.equal(heights[0], SIZE.height / 2, 'with maxLayer 1 the picture begins with the middle layer');
  assert(tallies[0] > 0 && tallies[1] > 0, 'with maxLayer 1 both layers below the top one were seen');
  assert.equal(tallies[0] + tallies[1], heights.length, `with maxLayer 1, pictures of other heights: ${[...new Set(heights)]}`);

  const metrics = await gateway.metrics();
  const all = await switches();
  t.measure(`${mimeType}, switches`, all);
  assert(all >= 3);
  const skipped = metrics.sum('tableside_frames_total', { table, outcome: 'dropped', cause: 'layer_switch' });
  t.measure(`${mimeType}, frames skipped by switches`, skipped);
  t.measure(`${mimeType}, layers`, JSON.stringify(await sent()));
  await camera.close();
  await watching.close();
}

/** Lets a player join in the page. @returns what gives the heights of the frames that it has shown so far */
async function watchUpTo(page, url) {
  await page.evaluate(SHOWN);
  const { peer } = await page.evaluate(async (endpoint) => {
    const joined = await globalThis.interop.watch(endpoint);
    globalThis.interopShown.keep(joined.peer);
    return joined;
  }, url);
  return () => page.evaluate((number) => globalThis.interopShown.frames(number).map(([, height]) => height), peer);
}

/** The picture moves steadily for a while, whatever rate the machine's encoders reach. */
async function assertPlays(t, read, what) {
  const before = await read();
  await measureFor(3);
  const played = between(before, await read());
  t.measure(`${what}, frames per second`, played.framesPerSecond);
  assert(played.framesPerSecond >= 10, `${what}: ${played.framesPerSecond} frames per second`);
  assert.equal(played.freezes, 0, `${what}: freezes`);
}
