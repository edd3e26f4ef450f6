import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { FPS, studio } from '../lib/studio.mjs';
import { UdpRelay } from '../lib/udp-relay.mjs';
import { until } from '../lib/until.mjs';

export const about = 'browsers play on in the same session after a NAT gave them another port, Chromium within 3 s';

const ANNOUNCED = '127.0.0.2';
const REBINDINGS = 3;
/** How long the picture may stand: Chromium checks every 2.6 s, Firefox every 4 to 6 s, and without USE-CANDIDATE. */
const LIMITS = { Chromium: 3, Firefox: 7 };

export async function run(t) {
  // Everybody reaches the gateway through the relay only.
  const { gateway, relay } = await behindRelay(t);
  await rebinds(t, { gateway, relay, browser: await t.chromium(), name: 'Chromium' });
  await rebinds(t, { gateway, relay, browser: await t.firefox(), name: 'Firefox' });
}

async function rebinds(t, { gateway, relay, browser, name }) {
  const others = relay.clients();
  const page = new PlayerPage(await browser.open(gateway.url('/play/one')));
  await until(`${name}: the page is live`, 20, async () => (await page.state()) === 'live');
  const before = await gateway.metrics();
  for (let n = 1; n <= REBINDINGS; n += 1) {
    await until(`${name}: a second of the table has played`, 10, grows(page, FPS));
    const own = relay.clients().filter((client) => !others.includes(client));
    assert(own.length > 0, `${name} has a binding`);
    relay.rebind(own);
    // Half a second of picture, not what was under way in the relay.
    const { seconds } = await until(`${name}: the picture goes on`, 20, grows(page, FPS / 2), { everyMs: 20 });
    t.measure(`${name}, rebinding ${n}, until the picture goes on`, seconds, 's');
    assert(seconds < LIMITS[name], `${name}: ${seconds} s`);
  }
  const after = await gateway.metrics();
  const grown = (metric, labels) => after.sum(metric, labels) - before.sum(metric, labels);
  assert.equal(grown('tableside_sessions_connected_total', { role: 'player' }), 0, 'no new handshake');
  assert(grown('tableside_address_changes_total') >= REBINDINGS, 'the gateway saw the ports change');
  assert.equal((await page.latest()).made, 1, 'the page made one connection and kept it');
  assert.equal(await page.state(), 'live');
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

async function behindRelay(t) {
  let relay;
  const beforePublishing = async (port) => {
    relay = await UdpRelay.open({ address: ANNOUNCED, port }, { address: '127.0.0.1', port });
    t.defer(() => relay.close());
  };
  const media = `listen = "127.0.0.1"\nannounce = ["${ANNOUNCED}"]\ntcp.enabled = false`;
  const started = await studio(t, media, { beforePublishing, codec: 'VP8' });
  return { ...started, relay };
}
