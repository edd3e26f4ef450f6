import assert from 'node:assert/strict';

import { assertMoves, assertSounds, between, isLevel, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium trickles and restarts ICE over PATCH while it plays; the picture goes on';

const FPS = 30;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const page = await browser.openPeers(gateway.url('/'));
  const { peer } = await page.evaluate((url) => globalThis.interop.watch(url), gateway.url('/whep/demo'));
  const read = () => page.evaluate((number) => globalThis.interop.stats(number), peer);
  await until('the player is level with the table', 15, isLevel(read, FPS));

  const trickle = (etag) => page.evaluate(([number, tag]) => globalThis.interop.trickle(number, tag), [peer, etag]);
  assert.equal((await trickle()).status, 204, 'candidates');
  assert.equal((await trickle('')).status, 428, 'candidates for no ICE session');
  assert.equal((await trickle('"another"')).status, 412, 'candidates for another ICE session');

  const before = await read();
  const first = await page.evaluate((number) => globalThis.interop.pair(number), peer);
  for (const far of [false, true]) {
    const { local, remote } = await page.evaluate(([number, how]) => globalThis.interop.restart(number, how), [peer, { far }]);
    const { seconds } = await until('the new credentials carry the media', 10, async () => {
      const pair = await page.evaluate((number) => globalThis.interop.pair(number), peer);
      if (pair.local === local && pair.remote === remote) return true;
      const pairs = await page.evaluate((number) => globalThis.interop.pairs(number), peer);
      throw new Error(`${local}:${remote} is not selected, but ${JSON.stringify(pair)} of ${JSON.stringify(pairs)}`);
    });
    t.measure(`restart ${far ? 'from afar' : 'from nearby'}, until its pair carries the media`, seconds, 's');
    assert.notEqual(local, first.local);
    assert.notEqual(remote, first.remote);
    assert.equal((await trickle()).status, 204, 'candidates for the new ICE session');
    await measureFor(3);
  }
  const after = await read();
  const played = between(before, after);
  report(t, 'player', played);
  assertMoves(played, { fps: FPS });
  assertSounds(played);
  assert.equal(after.state, 'connected');
  assert.equal(after.transport, 'connected', 'the DTLS transport is the same one');

  await page.evaluate((number) => globalThis.interop.leave(number, 'delete'), peer);
  await gateway.sessionsAre({ players: 0 }, 5);
  assert.deepEqual(browser.errors.filter((error) => !/status of 4(12|28)/.test(error)), []);
}
