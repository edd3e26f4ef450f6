import assert from 'node:assert/strict';

import { percentile, randomFrom } from '../lib/statistics.mjs';
import { measureFor } from '../lib/until.mjs';

export const about = '20 joins at random points of the GOP: first frame at p95 within 200 ms, level with others after 1 s, without a freeze';

const JOINS = 20;
const GOP_SECONDS = 2;
const P95_MS = 200;
const APART_MS = 100;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const page = await browser.openPeers(gateway.url('/'));
  const endpoint = gateway.url('/whep/demo');
  const random = randomFrom(20_261_123);

  // The page's very first join warms up its decoder; that player goes on to be the one that watches for long.
  const first = await page.evaluate((url) => globalThis.interop.watch(url), endpoint);
  t.measure('the first join, not counted', first.joinMs, 'ms');
  await measureFor(3);

  const joins = [];
  const apart = [];
  const freezes = [];
  for (let i = 0; i < JOINS; i += 1) {
    await measureFor(random() * GOP_SECONDS);
    const joined = await page.evaluate((url) => globalThis.interop.watch(url), endpoint);
    await measureFor(1);
    const clocks = await page.evaluate(readTwoClocks, [joined.peer, first.peer]);
    assert(clocks.every(Number.isInteger), `the burnt-in clock cannot be read: ${clocks}`);
    apart.push(await page.evaluate(([a, b]) => globalThis.interopClock.aheadMs(a, b), clocks));
    joins.push(joined.joinMs);
    const { video } = await page.evaluate((peer) => globalThis.interop.stats(peer), joined.peer);
    freezes.push(video.freezeCount);
    await page.evaluate((peer) => globalThis.interop.leave(peer, 'delete'), joined.peer);
  }

  t.measure('POST to first frame, median', percentile(joins, 50), 'ms');
  t.measure('POST to first frame, p95', percentile(joins, 95), 'ms');
  t.measure('POST to first frame, each', joins.map(Math.round).join(' '), 'ms');
  t.measure('ahead of the long-time watcher after 1 s, each', apart.map(Math.round).join(' '), 'ms');
  t.measure('freezes of each on its way to there', freezes.join(' '));
  assert(percentile(joins, 95) <= P95_MS, `p95 of the joins is above ${P95_MS} ms`);
  const furthest = Math.max(...apart.map(Math.abs));
  assert(furthest <= APART_MS, `${furthest} ms apart from a player that has watched for long`);
  assert.deepEqual(freezes, freezes.map(() => 0), 'a picture stood still while its player came level');
}

/** Both in one task, so that nothing is drawn in between. Runs in the page. */
function readTwoClocks(peers) {
  return peers.map((peer) => globalThis.interopClock.read(globalThis.interop.video(peer)));
}
