import assert from 'node:assert/strict';

import { halfOpen, posts, unnoticed } from '../lib/floods.mjs';
import { offer } from '../lib/offers.mjs';
import { isLevel } from '../lib/playback.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { until } from '../lib/until.mjs';

export const about = '1,000 half requests, and 200 POSTs a second of 64 KiB SDP: a player in Chromium notices nothing';

const HALVES = 1000;
/** The demo's `header_timeout_ms`, and some. */
const HALVES_ARE_GONE = 15;
const FLOOD = { rate: 200, seconds: 15 };
const MOST_BYTES = 64 * 1024;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const player = new PlayerPage(await browser.open(gateway.url('/play/demo')));
  await until('the page is live', 10, async () => (await player.state()) === 'live');
  await until('the player is level with the table', 10, isLevel(() => player.latest(), 30));
  const watched = { gateway, player, atLeastSeconds: 10 };
  const limited = async (reason) => {
    return (await gateway.metrics()).sum('tableside_http_limited_total', { listener: 'public', reason });
  };

  const end = await unnoticed(t, 'half requests', watched, async () => {
    const close = await halfOpen(gateway.ports.http, HALVES, 'POST /whep/demo HTTP/1.1\r\nHost: a\r\nX-Half: ');
    const { ok } = await fetch(gateway.url('/api/tables'), { signal: AbortSignal.timeout(2000) });
    assert(ok, 'a whole request is answered meanwhile');
    return close;
  });
  const { seconds } = await until('all are let go', HALVES_ARE_GONE, async () => (await limited('header_time')) >= HALVES);
  t.measure('half requests: gone after another', seconds, 's');
  end();

  const bodies = [padded(offer({ direction: 'recvonly' })), padded('v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 X 96\r\n')];
  const answered = await unnoticed(t, 'offers', watched, () => posts(gateway.url('/whep/demo'), bodies, FLOOD));
  t.measure('offers: answers', JSON.stringify(answered.statuses));
  t.measure('offers: a second', answered.rate);
  t.measure('offers: median and slowest answer', `${answered.median.toFixed(0)} and ${answered.slowest.toFixed(0)} ms`);
  assert(answered.rate > 0.9 * FLOOD.rate, `only ${answered.rate} offers a second: this run says nothing`);
  const expected = ['201', '422', '503'];
  assert.deepEqual(Object.keys(answered.statuses).filter((status) => !expected.includes(status)), [], 'unexpected answers');
  const metrics = await gateway.metrics();
  const refused = metrics.sum('tableside_offers_refused_total');
  t.measure('offers: refused by admission', refused);
  assert(refused > 0, 'sessions that never connect are bounded');
  assert.equal(refused, answered.statuses['503'] ?? 0, 'every 503 is counted');

  // Those that never connected make room again, and the next player gets in.
  await gateway.sessionsAre({ players: 1 }, 25);
  const next = new PlayerPage(await browser.open(gateway.url('/play/demo')));
  await until('the next player is live', 10, async () => (await next.state()) === 'live');
  assert.deepEqual(browser.errors, [], 'a page logged errors');
}

/** An offer of just under 64 KiB, its length in attributes that nobody knows. */
function padded(sdp) {
  const line = `a=x-pad:${'p'.repeat(80)}\r\n`;
  return sdp + line.repeat(Math.floor((MOST_BYTES - sdp.length) / line.length));
}
