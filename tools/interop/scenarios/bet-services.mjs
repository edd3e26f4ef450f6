import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { audit, bettingIsOpen, httpBetService, keepRounds, natsBetService, placeMany, startBetService, startNats, told } from '../lib/bets.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'bets through a service of another make, over HTTP and a real NATS server; it is killed in mid-round and comes back';

export const timeLimitSeconds = 300;

const TABLE = 'roulette-1';
const BETS = 60;
/** Slower than the edge takes from one player for good. */
const EVERY_MS = 120;

export async function run(t) {
  const issuer = new Issuer(t);
  for (const way of ['http', 'nats']) await plays(t, way, issuer);
}

async function plays(t, way, issuer) {
  const [http, admin, udp, port] = await freePorts(4);
  const books = join(t.folder, `${way}-books.jsonl`);
  const where = way === 'http' ? String(port) : `nats://127.0.0.1:${port}`;
  if (way === 'nats') await startNats(t, port);
  let service = await startBetService(t, way, where, books, `${way}-first`);

  const gateway = await t.configured(configuration(t, way, { http, admin, udp, port }), { http, admin });
  gateway.tokensFrom(issuer);
  const publisher = t.ffmpeg(gateway.url(`/whip/${TABLE}`), { token: gateway.publisherToken, name: `ffmpeg-${way}` });
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: TABLE }) === 1);
  const browser = await t.chromium();
  const page = await browser.open(gateway.page(TABLE));
  await keepRounds(page);
  const player = new PlayerPage(page);
  await until('the page is live', 15, async () => (await player.state()) === 'live');

  // By hand, as players do.
  await bettingIsOpen(page);
  for (const spot of ['red', 'black']) await page.click(`#spots [data-spot=${spot}]`);
  const outcomes = () => page.$$eval('#slip [data-status]', (lines) => lines.map((line) => line.dataset.status));
  await until('both outcomes are shown', 10, async () => (await outcomes()).length === 2);
  assert((await outcomes()).every((status) => ['accepted', 'rejected'].includes(status)), (await outcomes()).join());

  // Without a pause, while the service dies and comes back, in the middle of a round.
  await bettingIsOpen(page);
  await page.evaluate(placeMany, { bets: BETS, everyMs: EVERY_MS });
  await until('some have their outcome', 10, async () => (await page.evaluate(() => window.placed.length)) >= 10);
  await service.end('SIGKILL', 5);
  await measureFor(1.5);
  service = await startBetService(t, way, where, books, `${way}-again`);
  const { seconds } = await until('every bet has its outcome', 90, () => page.evaluate(() => window.placed.length === window.wanted));
  t.measure(`${way}: until every bet had its outcome, after the service was back`, seconds, 's');

  const placed = await page.evaluate(() => window.placed);
  assert.equal(placed.length, BETS, 'signals sent are outcomes received');
  t.measure(`${way}: ${BETS} bets`, told(placed));
  const repeats = audit(placed, books);
  t.measure(`${way}: asked again for the same bet`, repeats);
  assert(repeats >= 1, 'the service was killed with bets that it had taken and not answered');

  // The game goes on: a round that began after it came back, from its beginning to its number.
  const last = await page.evaluate(() => window.roundEvents.at(-1)?.roundId);
  await until('a whole round after it', 30, () => page.evaluate((before) => {
    const after = window.roundEvents.filter(({ roundId }) => roundId > before);
    return ['round.open', 'round.close', 'result'].every((type) => after.some((event) => event.type === type));
  }, last));
  const events = await page.evaluate(() => window.roundEvents.map(({ roundId, type }) => `${roundId} ${type}`));
  assert.equal(new Set(events).size, events.length, `no event is told twice: ${events.join(', ')}`);
  await bettingIsOpen(page);
  const again = await page.evaluate(() => window.tableside.bet({ roundId: window.roundEvents.at(-1).roundId, payload: { spot: 'red', amount: 1 } }));
  assert.equal(again.status, 'accepted', JSON.stringify(again));
  assert.deepEqual(browser.errors, [], 'the page logged errors');

  const metrics = await gateway.metrics();
  const counted = (result) => metrics.sum('tableside_bet_service_requests_total', { kind: way, result });
  t.measure(`${way}: lost on the way to the service, and asked for again by the page`, counted('lost'));
  t.measure(`${way}: reconnects`, metrics.sum('tableside_bet_service_reconnects_total', { kind: way }));
  assert(counted('accepted') >= 3);
  await publisher.leave();
  await gateway.stop();
  await service.end('SIGKILL', 5);
}

function configuration(t, way, { http, admin, udp, port }) {
  const service = {
    http: httpBetService(port),
    nats: natsBetService(port),
  };
  const file = join(t.folder, `${way}.toml`);
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    `[tables.${TABLE}]`,
    AUTH,
    service[way],
  ].join('\n\n'));
  return file;
}
