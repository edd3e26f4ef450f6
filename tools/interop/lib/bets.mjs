// Bets of a page that go on and on, and the books of the bet service that they are held against.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Child } from './process.mjs';
import { NATS_SERVER } from './tools.mjs';
import { until } from './until.mjs';

const SERVICE = fileURLToPath(new URL('../peers/bet-service.mjs', import.meta.url));

/**
 * The bet service of peers/bet-service.mjs, ready.
 *
 * @param {import('./scenario.mjs').Scenario} t
 * @param {'http' | 'nats'} way
 * @param {string} where the port, or the URL of the NATS server
 * @param {string} books the file that it goes on with
 * @param {string} [name] of its log
 */
export async function startBetService(t, way, where, books, name = `bet-service-${way}`) {
  const service = new Child(process.execPath, [SERVICE, way, where, books], join(t.folder, `${name}.log`));
  t.defer(async () => {
    if (!service.ended) await service.end('SIGKILL', 5);
  });
  await until('the bet service is ready', 10, () => {
    if (service.ended) throw new Error(`it ended: ${JSON.stringify(service.ended)}`);
    return existsSync(service.log) && service.output().includes('ready');
  });
  return service;
}

/** The section of a gateway's configuration for that service over HTTP. */
export function httpBetService(port) {
  const base = `http://127.0.0.1:${port}`;
  return `[bet_service]\nkind = "http"\n[bet_service.http]\nurl = "${base}/bets"\nevents_url = "${base}/events"\ntables_url = "${base}/tables"`;
}

/** The same over NATS. */
export function natsBetService(port) {
  return `[bet_service]\nkind = "nats"\n[bet_service.nats]\nservers = ["nats://127.0.0.1:${port}"]`;
}

/** A NATS server that listens. */
export async function startNats(t, port) {
  const server = new Child(NATS_SERVER, ['--addr', '127.0.0.1', '--port', String(port)], join(t.folder, 'nats-server.log'));
  t.defer(async () => {
    if (!server.ended) await server.end('SIGKILL', 5);
  });
  await until('the NATS server listens', 10, () => new Promise((resolve, reject) => {
    const socket = createConnection(port, '127.0.0.1', () => resolve(socket.destroy())).once('error', reject);
  }));
}

/** A player page keeps the round events that come from now on, for `placeMany`. */
export async function keepRounds(page) {
  await page.evaluate(() => {
    window.roundEvents = [];
    window.tableside.addEventListener('round', ({ detail }) => window.roundEvents.push(detail.message));
  });
}

export async function bettingIsOpen(page) {
  await until('bets are taken, with time left', 30, () => page.evaluate(() => {
    // Of a round that opened before they were kept nothing is known.
    const isKnown = !window.roundEvents || window.roundEvents.at(-1)?.type === 'round.open';
    const isOpen = isKnown && document.querySelector('#spots button')?.disabled === false;
    return isOpen && parseInt(document.querySelector('#countdown').textContent, 10) >= 4;
  }));
}

/** Runs in the page: bets in whatever round is the current one, each under a key of its own that begins with `name`. */
export function placeMany({ bets, everyMs, name = 'key' }) {
  [window.placed, window.wanted] = [[], bets];
  let next = 0;
  const timer = setInterval(async () => {
    if (next === bets) return clearInterval(timer);
    const key = `${name}-${next}`;
    next += 1;
    const { roundId } = window.roundEvents.findLast(({ type }) => type === 'round.open');
    const { status, reason } = await window.tableside.bet({ roundId, payload: { spot: 'red', amount: 1 }, betId: key, idempotencyKey: key });
    window.placed.push({ key, roundId, status, reason });
  }, everyMs);
}

/** Holds what the player was told against the service's books. @returns how often a bet was asked for again */
export function audit(placed, books) {
  const entries = readFileSync(books, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const taken = new Map();
  for (const { playerId, roundId, key, answer } of entries.filter((entry) => entry.answer)) {
    const bet = `${playerId} ${roundId} ${key}`;
    assert(!taken.has(bet), `${bet} was taken twice`);
    taken.set(bet, answer.status);
  }
  const byKey = new Map([...taken].map(([bet, status]) => [bet.split(' ').at(-1), status]));
  for (const { key, status, reason } of placed) {
    if (status === 'refused') {
      assert(['unavailable', 'too_many_waiting', 'rate_limited'].includes(reason), reason);
      assert(!byKey.has(key), `${key} was told refused, and the bet was taken`);
    } else {
      assert.equal(status, byKey.get(key), `${key}: the player was told what the service says`);
    }
  }
  return entries.filter((entry) => entry.again).length;
}

/** How many were told what: `3 accepted, 1 refused unavailable`. */
export function told(placed) {
  const counts = new Map();
  for (const { status, reason } of placed) {
    const name = status === 'accepted' ? status : `${status} ${reason}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `${count} ${name}`).join(', ');
}
