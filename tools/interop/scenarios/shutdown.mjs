import assert from 'node:assert/strict';

import { until } from '../lib/until.mjs';

export const about = 'the demo exits within 2 s of SIGTERM, and the player watching it learns that at once';

const EXITS_WITHIN = 2;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const page = await browser.openPeers(gateway.url('/'));
  const { peer } = await page.evaluate((url) => globalThis.interop.watch(url), gateway.url('/whep/demo'));
  // An authenticated end is DTLS's close_notify; Chromium's `connectionState` stays 'connected' after it.
  const transport = async () => (await page.evaluate((number) => globalThis.interop.stats(number), peer)).transport;
  assert.equal(await transport(), 'connected');

  const { seconds } = await gateway.stop(EXITS_WITHIN);
  t.measure('from SIGTERM to the exit', seconds, 's');
  const told = await until("the player's connection is closed", 2, async () => (await transport()) === 'closed');
  t.measure('from the exit to the player knowing', told.seconds, 's');
}
