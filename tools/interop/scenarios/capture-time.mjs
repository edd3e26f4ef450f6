import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { studioBehindNetsim } from '../lib/studio.mjs';
import { until } from '../lib/until.mjs';

export const about = 'players know how old their picture is: of two on links of different delay, both say so, and the edge says how far they are apart';

/** One way, in milliseconds. */
const NEAR = 10;
const FAR = 100;
/** A frame of the screen and some. */
const TOLERANCE = 25;

export async function run(t) {
  const { gateway, netsim } = await studioBehindNetsim(t);
  const browser = await t.chromium();
  const pages = [];
  for (const delay of [NEAR, FAR]) {
    // From the first packet: what a browser measured of a link before its delay changed counts for some seconds more.
    await netsim.command(`new both delay=${delay}ms`);
    const page = new PlayerPage(await browser.open(gateway.page('one')));
    await until('the page is live', 20, async () => (await page.state()) === 'live');
    pages.push(page);
  }
  const ages = async () => Promise.all(pages.map(({ page }) => page.evaluate(() => globalThis.tableside.stats.captureToShownMs)));
  const between = FAR - NEAR;
  // A first reading of the clocks may be late by what the machine had to do.
  const { value: known, seconds } = await until('both know, and are apart by what their links are', 40, async () => {
    const [near, far] = await ages();
    return near !== null && far !== null && near >= NEAR && Math.abs(far - near - between) < TOLERANCE && [near, far];
  });
  t.measure('from capture to screen, near and far', known.join(', '), 'ms');
  t.measure('until they say so', seconds, 's');
  assert(known[0] < 400, `${known[0]} ms is no age of a picture`);

  const reported = async () => {
    const metrics = await gateway.metrics();
    return (name) => metrics.sum(`tableside_player_${name}`, { table: 'one' });
  };
  const { value: of } = await until('the edge says so too', 30, async () => {
    const of = await reported();
    return of('capture_to_shown_seconds_count') >= 8 && Math.abs(1000 * of('skew_seconds') - between) < TOLERANCE && of;
  });
  t.measure('skew by the metric', Math.round(1000 * of('skew_seconds')), 'ms');
  const mean = (1000 * of('capture_to_shown_seconds_sum')) / of('capture_to_shown_seconds_count');
  t.measure('mean by the metric', Math.round(mean), 'ms');
}
