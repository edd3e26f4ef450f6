import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { bettingIsOpen, httpBetService, keepRounds, natsBetService, startBetService, startNats } from '../lib/bets.mjs';
import { freePorts } from '../lib/gateway.mjs';
import { AUTH, Issuer } from '../lib/issuer.mjs';
import { PlayerPage } from '../lib/player-page.mjs';
import { Child } from '../lib/process.mjs';
import { PYTHON } from '../lib/tools.mjs';
import { until } from '../lib/until.mjs';

export const about = 'one trace from the page to the bet service, over HTTP and NATS: spans at a collector of another make, log lines, nobody named';

const COLLECTOR = fileURLToPath(new URL('../peers/otlp/collector.py', import.meta.url));
const TABLE = 'roulette-1';
const PLAYER = 'ann-of-the-tokens';
const BETS = 5;
/** Of a page with traces of its own. */
const OWN = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00';
/** Spans are told by the time of day in batches: between two of them it may be set. */
const CLOCK_MS = 2;

export async function run(t) {
  const issuer = new Issuer(t);
  for (const way of ['http', 'nats']) await follows(t, way, issuer);
}

async function follows(t, way, issuer) {
  const [http, admin, udp, port, otlp] = await freePorts(5);
  const books = join(t.folder, `${way}-books.jsonl`);
  if (way === 'nats') await startNats(t, port);
  await startBetService(t, way, way === 'http' ? String(port) : `nats://127.0.0.1:${port}`, books);
  const { collector, spans } = await startCollector(t, otlp, way);
  const gateway = await t.configured(configuration(t, way, { http, admin, udp, port, otlp }), { http, admin });
  gateway.tokensFrom(issuer);
  gateway.playerToken = issuer.player(PLAYER);
  const publisher = t.ffmpeg(gateway.url(`/whip/${TABLE}`), { token: gateway.publisherToken, name: `ffmpeg-${way}` });
  await until('the table is live', 15, async () => (await gateway.metrics()).sum('tableside_table_live', { table: TABLE }) === 1);
  const page = await (await t.chromium()).open(gateway.page(TABLE));
  await keepRounds(page);
  await until('the page is live', 15, async () => (await new PlayerPage(page).state()) === 'live');
  await bettingIsOpen(page);
  const outcomes = await page.evaluate(place, { bets: BETS, own: OWN });
  assert.equal(outcomes[0].traceId, OWN.split('-')[1], 'the trace of the page');
  assert.equal(new Set(outcomes.map(({ traceId }) => traceId)).size, BETS);

  const { value: traces } = await until('the collector has all of them', 15, () => {
    const traced = outcomes.map(({ traceId }) => spans.filter(({ trace }) => trace === traceId));
    return traced.every((trace) => trace.length === 2) && traced;
  });
  const entries = readFileSync(books, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const log = gateway.child.output().split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
  for (const [i, outcome] of outcomes.entries()) holds(outcome, traces[i], entries, log, way);
  assert.equal(traces[0].find(({ name }) => name === 'bet').parent, OWN.split('-')[2]);
  t.measure(`${way}: ${BETS} bets`, `${spans.length} spans of ${new Set(spans.map(({ name }) => name)).size} kinds, ${log.filter(({ traceId }) => traceId).length} log lines`);
  for (const text of [gateway.child.output(), JSON.stringify(spans)]) assert(!text.includes(PLAYER), 'who plays stays here');

  // Bets do not wait for a collector.
  await collector.end('SIGKILL', 5);
  await bettingIsOpen(page);
  const after = await page.evaluate(place, { bets: 1 });
  assert.equal(after[0].status, 'accepted');
  const results = async (result) => (await gateway.metrics()).sum('tableside_trace_spans_total', { result });
  await until('what cannot be sent is counted', 30, async () => (await results('failed')) === 2);
  assert.equal(await results('exported'), 2 * BETS);
  await publisher.leave();
  await gateway.stop();
}

/** Runs in the page: bets one after the other, the first in a trace of the page's own. */
async function place({ bets, own }) {
  const { roundId } = window.roundEvents.findLast(({ type }) => type === 'round.open');
  const outcomes = [];
  for (let n = 0; n < bets; n += 1) {
    const traceparent = n === 0 ? own : undefined;
    outcomes.push({ roundId, ...(await window.tableside.bet({ roundId, payload: { spot: 'red', amount: 1 }, traceparent })) });
  }
  return outcomes;
}

/** One bet, wherever it left a mark. */
function holds({ betId, roundId, traceId, status }, trace, entries, log, way) {
  const [bet, ask] = ['bet', 'ask the bet service'].map((name) => trace.find((span) => span.name === name));
  assert(bet && ask, JSON.stringify(trace));
  assert.deepEqual([bet.kind, ask.kind, ask.parent], ['SPAN_KIND_SERVER', 'SPAN_KIND_CLIENT', bet.span]);
  assert.equal(entries.find(({ traceparent }) => traceparent?.includes(traceId)).traceparent, `00-${traceId}-${ask.span}-01`);
  assert.match(bet.attributes.playerId, /^hmac-[0-9a-f]{64}$/);
  const { playerId } = bet.attributes;
  const { upstreamMs, lastMileMs, ...attributes } = bet.attributes;
  assert.deepEqual(attributes, { playerId, betId, roundId, table: TABLE, status });
  assert.deepEqual(ask.attributes, { attempt: 1, status });
  assert(upstreamMs > 150 - CLOCK_MS, `the service judges for 150 ms, and it took ${upstreamMs}`);
  assert(lastMileMs === undefined || lastMileMs > 0);
  const [begin, end] = [(ask.beginNs - bet.beginNs) / 1e6, (bet.endNs - ask.endNs) / 1e6];
  assert(begin > -CLOCK_MS && end > -CLOCK_MS, `the request is within the bet: ${begin} ms after its begin, ${end} before its end`);
  for (const span of trace) {
    assert.equal(span.apiKey, 'a%2Fb');
    assert.deepEqual([span.resource['service.name'], span.resource['service.instance.id']], ['tableside', `edge-${way}`]);
  }
  for (const message of ['bet outcome', 'bet service asked']) {
    const line = log.find((event) => event.message === message && event.traceId === traceId);
    assert.deepEqual([line?.playerId, line?.betId, line?.roundId, line?.table], [playerId, betId, roundId, TABLE], message);
  }
}

async function startCollector(t, port, way) {
  const spans = [];
  let listens = false;
  const collector = new Child(PYTHON, [COLLECTOR, String(port)], join(t.folder, `collector-${way}.log`), (line) => {
    const { span, listens: ready } = JSON.parse(line);
    if (span) spans.push(span);
    listens ||= Boolean(ready);
  });
  t.defer(async () => {
    if (!collector.ended) await collector.end('SIGKILL', 5);
  });
  await until('the collector listens', 10, () => listens);
  return { collector, spans };
}

function configuration(t, way, { http, admin, udp, port, otlp }) {
  writeFileSync(join(t.folder, 'headers.txt'), '# of the collector\nApi-Key: a%2Fb\n');
  writeFileSync(join(t.folder, 'players.key'), randomBytes(32).toString('hex'));
  const file = join(t.folder, `${way}.toml`);
  writeFileSync(file, [
    `[http]\nlisten = "127.0.0.1:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nlisten = "127.0.0.1"\nannounce = ["127.0.0.1"]\nfirst_port = ${udp}\nshards = 1`,
    `[tables.${TABLE}]`,
    AUTH,
    way === 'http' ? httpBetService(port) : natsBetService(port),
    `[audit]\nnode = "edge-${way}"`,
    '[log]\nformat = "json"\nlevel = "debug"\nplayer_ids = "hashed"\nplayer_key_file = "players.key"',
    `[traces]\nendpoint = "http://127.0.0.1:${otlp}/v1/traces"\nsample_ratio = 1.0\nheaders_file = "headers.txt"`,
  ].join('\n\n'));
  return file;
}
