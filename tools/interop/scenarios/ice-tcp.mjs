import assert from 'node:assert/strict';

import { Network } from '../lib/network.mjs';
import { assertMoves, between, isLevel, report } from '../lib/playback.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { FPS, studio } from '../lib/studio.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'Chromium in a network that lets no UDP through plays over ICE-TCP';

export async function run(t) {
  const network = Network.make(t);
  const { gateway, http, media } = await studio(t, `announce = ["${network.gateway.ipv4}", "${network.gateway.ipv6}"]`);
  network.drop('meta l4proto udp');
  const browser = await t.chromium({ network });
  const page = new PlayerPage(await browser.open(gateway.page('one', `http://${network.gateway.ipv4}:${http}`)));
  const { seconds } = await until('the page is live', 20, async () => (await page.state()) === 'live');
  t.measure('until the page is live', seconds, 's');

  const path = await page.page.evaluate(() => globalThis.interopRecorder.path());
  t.measure('path', `${path.protocol} ${path.address} ${path.port}`);
  assert.deepEqual([path.protocol, path.port], ['tcp', media], 'over TCP, on the number of the UDP port');
  await until('the player is level with the table', 10, isLevel(() => page.latest(), FPS));
  const before = await page.latest();
  await measureFor(8);
  const played = between(before, await page.latest());
  report(t, 'Chromium over TCP', played);
  assertMoves(played, { fps: FPS, tolerance: 0.1 });
  assert.equal((await page.latest()).made, 1, 'the page made one connection and kept it');
  assert((await gateway.metrics()).sum('tableside_ice_tcp_connections') >= 1);

  await browser.close();
  await until('no connection is left', 10, async () => (await gateway.metrics()).sum('tableside_ice_tcp_connections') === 0);
}
