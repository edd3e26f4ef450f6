import assert from 'node:assert/strict';

import { Network } from '../lib/network.mjs';
import { assertMoves, between, isLevel, report } from '../lib/playback.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { FPS, studio } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium without IPv4 plays over IPv6';

export async function run(t) {
  const network = Network.make(t);
  const { gateway, http } = await studio(t, `announce = ["${network.gateway.ipv6}", "${network.gateway.ipv4}"]`);
  network.drop('meta nfproto ipv4 oifname != "lo"');
  const browser = await t.chromium({ network });
  const page = new PlayerPage(await browser.open(gateway.page('one', `http://[${network.gateway.ipv6}]:${http}`)));
  const { seconds } = await until('the page is live', 20, async () => (await page.state()) === 'live');
  t.measure('until the page is live', seconds, 's');

  const path = await page.page.evaluate(() => globalThis.interopRecorder.path());
  t.measure('path', `${path.protocol} ${path.address}`);
  assert.deepEqual([path.protocol, path.address.replace(/[[\]]/g, '')], ['udp', network.gateway.ipv6]);
  await until('the player is level with the table', 10, isLevel(() => page.latest(), FPS));
  const before = await page.latest();
  await measureFor(5);
  const played = between(before, await page.latest());
  report(t, 'Chromium over IPv6', played);
  assertMoves(played, { fps: FPS, tolerance: 0.1 });
}
