import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { FPS, studioBehindNetsim } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'Chromium plays on in the same session within 3 s after a NAT gave it another port';

const REBINDINGS = 3;
/** How long the picture may stand, in seconds: Chromium checks every 2.6 s. */
const LIMIT = 3;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t);
  await rebinds(t, { gateway, netsim, browser: await t.chromium(), name: 'Chromium', players: 1 });
}

/** `players` is how many have connected with this one. */
async function rebinds(t, { gateway, netsim, browser, name, players }) {
  const others = (await netsim.clients()).length;
  const page = new PlayerPage(await browser.open(gateway.page('one')));
  await until(`${name}: the page is live`, 20, async () => (await page.state()) === 'live');
  const connected = (metrics) => metrics.sum('tableside_sessions_connected_total', { role: 'player' });
  const { value: before } = await until(`${name} is counted`, 5, async () => {
    const metrics = await gateway.metrics();
    return connected(metrics) === players && metrics;
  });
  for (let n = 1; n <= REBINDINGS; n += 1) {
    await until(`${name}: a second of the table has played`, 10, grows(page, FPS));
    const own = (await netsim.clients()).slice(others);
    assert(own.length > 0, `${name} has a binding`);
    for (const { client } of own) await netsim.command(`client ${client} rebind`);
    // More than what was under way in the decoder.
    const { seconds } = await until(`${name}: the picture goes on`, 20, grows(page, FPS / 3), { everyMs: 20 });
    t.measure(`${name}, rebinding ${n}, until the picture goes on`, seconds, 's');
    assert(seconds < LIMIT, `${name}: ${seconds} s`);
  }
  const changes = (metrics) => metrics.sum('tableside_address_changes_total');
  const { value: after } = await until(`${name}: the gateway has counted the changes`, 5, async () => {
    const metrics = await gateway.metrics();
    return changes(metrics) >= changes(before) + REBINDINGS && metrics;
  });
  assert.equal(connected(after), players, 'no new handshake');
  assert.equal((await page.latest()).made, 1, 'the page made one connection and kept it');
  await until(`${name}: the page is live again`, 5, async () => (await page.state()) === 'live');
}

/** A probe: so many more frames have been decoded than at its first call. */
function grows(page, frames) {
  let first;
  return async () => {
    const decoded = (await page.latest()).video?.framesDecoded ?? 0;
    first ??= decoded;
    return decoded >= first + frames;
  };
}
