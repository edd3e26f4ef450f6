import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { audit, bettingIsOpen, httpBetService, keepRounds, placeMany, startBetService, told } from '../lib/bets.mjs';
import { Front } from '../lib/front.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { Netsim } from '../lib/netsim.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = 'a player bets without a pause while its network is gone for 3 s, and while its node is killed and it goes on at another: each bet has one outcome, and the service took none twice';
export const timeLimitSeconds = 180;

const TABLE = 'roulette-1';
const BETS = 60;
/** Slower than the edge takes from one player for good. */
const EVERY_MS = 120;
const GONE_SECONDS = 3;
/** A picture that stands for two seconds has the SDK ask for its session; then it begins another one. Bets go on for some six. */
const AGAIN_WITHIN = 10;

export async function run(t) {
  const issuer = new Issuer(t);
  const [port] = await freePorts(1);
  const books = join(t.folder, 'books.jsonl');
  const service = await startBetService(t, 'http', String(port), books);
  const nodes = [];
  for (const name of ['first', 'second']) nodes.push(await startNode(t, name, issuer, port));
  const [first, second] = nodes;

  // A load balancer that knows which node is there.
  const target = { ports: { http: first.gateway.ports.http } };
  const front = await Front.before(target);
  t.defer(() => front.close());
  const browser = await t.chromium();
  const page = await browser.open(first.gateway.page(TABLE, front.url('')));
  await keepRounds(page);
  const player = new PlayerPage(page);
  await until('the page is live', 15, async () => (await player.state()) === 'live');
  const placed = () => page.evaluate(() => window.placed);

  // Its network is gone, and comes back before anybody has given up.
  await bettingIsOpen(page);
  await page.evaluate(placeMany, { bets: BETS, everyMs: EVERY_MS, name: 'network' });
  await until('some have their outcome', 10, async () => (await placed()).length >= 10);
  await blackout(first, 'on');
  await measureFor(GONE_SECONDS);
  const meanwhile = (await placed()).length;
  await blackout(first, 'off');
  await settled(t, page, `after ${GONE_SECONDS} s without network`);
  assert(meanwhile < BETS, 'bets waited for the network');
  const afterOutage = await placed();
  audit(afterOutage, books);
  t.measure('  what became of them', told(afterOutage));

  // Its node is killed with bets under way.
  await bettingIsOpen(page);
  await page.evaluate(placeMany, { bets: BETS, everyMs: EVERY_MS, name: 'node' });
  await until('some have their outcome', 10, async () => (await placed()).length >= 10);
  await first.gateway.child.end('SIGKILL', 5);
  target.ports.http = second.gateway.ports.http;
  const seconds = await settled(t, page, 'after the node was killed');
  assert(seconds <= AGAIN_WITHIN, `${seconds} s until the bets of a killed node had their outcomes`);
  const afterKill = await placed();
  const repeats = audit([...afterOutage, ...afterKill], books);
  t.measure('  what became of them', told(afterKill));
  t.measure('bets that the service was asked for again', repeats);
  assert(repeats >= 1, 'the node was killed with bets that the service had taken');
  await until('the picture goes on', 15, async () => (await player.state()) === 'live');
  assert((await second.gateway.metrics()).sum('tableside_bet_signals_total') >= 1, 'the other node took bets');
  await second.gateway.stop();
  await service.end('SIGKILL', 5);
}

/** Of the player, and not of the publisher, which came first. */
async function blackout({ netsim }, state) {
  const [, ...player] = await netsim.clients();
  for (const { client } of player) await netsim.command(`client ${client} both blackout=${state}`);
}

/** Waits until each bet has an outcome. @returns after how many seconds that was */
async function settled(t, page, when) {
  const { seconds } = await until('every bet has its outcome', 90, () => page.evaluate(() => window.placed.length === window.wanted));
  t.measure(`${when}: until every bet had its outcome`, seconds, 's');
  const placed = await page.evaluate(() => window.placed);
  assert.equal(new Set(placed.map(({ key }) => key)).size, BETS, 'signals sent are outcomes received');
  return seconds;
}

/** A node whose players reach it through a link of its own, with the table live. */
async function startNode(t, name, issuer, betService) {
  const [http, admin, udp] = await freePorts(3);
  const announced = name === 'first' ? '127.0.0.2' : '127.0.0.3';
  const netsim = await Netsim.start(t, { [`${announced}:${udp}`]: `127.0.0.1:${udp}` }, { name: `netsim-${name}` });
  const file = join(t.folder, `${name}.toml`);
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    // The publisher is on the node's own network.
    `[media]\nlisten = "127.0.0.1"\nannounce = ["${announced}"]\nfirst_port = ${udp}\nshards = 1\ntcp.enabled = false`,
    `[tables.${TABLE}]`,
    AUTH,
    httpBetService(betService),
  ].join('\n\n'));
  const gateway = await t.configured(file, { http, admin });
  gateway.tokensFrom(issuer);
  t.ffmpeg(gateway.url(`/whip/${TABLE}`), { token: gateway.publisherToken, name: `ffmpeg-${name}` });
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: TABLE }) === 1);
  return { gateway, netsim };
}
