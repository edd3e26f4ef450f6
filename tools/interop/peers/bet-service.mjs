// A bet service as somebody else might write it after docs/bet-service.md: Node, the NATS project's own client, and a file
// for its books. Its rounds go by the clock, so it may be killed at any time and goes on in the middle of one.
//
// Usage: node bet-service.mjs http PORT BOOKS | nats URL BOOKS

import { appendFileSync, closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const [way, where, booksFile] = process.argv.slice(2);

/** A round: bets are taken, none are taken any more, there is a number, and the next one begins. In milliseconds. */
const CLOSES = 6000;
const SETTLES = 7000;
const ROUND = 8000;
/** A judge takes his time: so a service that is killed leaves bets behind that are taken and not answered. */
const JUDGING = 150;
const RED = [1, 3, 5, 7, 9, 12, 14, 16, 18, 19, 21, 23, 25, 27, 30, 32, 34, 36];

/** What was taken, by `requestId`: each is in the file before it is answered. */
const books = new Map();
if (existsSync(booksFile)) {
  for (const line of readFileSync(booksFile, 'utf8').split('\n').filter(Boolean)) {
    const entry = JSON.parse(line);
    if (entry.answer) books.set(entry.requestId, entry);
  }
}
closeSync(openSync(booksFile, 'a'));

const staked = new Map();
for (const { playerId, roundId, amount, answer } of books.values()) stake(playerId, roundId, answer.status === 'accepted' ? amount : 0);

function stake(playerId, roundId, amount) {
  const key = `${playerId} ${roundId}`;
  staked.set(key, (staked.get(key) ?? 0) + amount);
  return staked.get(key);
}

/** Which tables are live, by the word of the nodes. */
const tables = new Map();

/** The answer to a bet: of the books, or a new entry in them. */
async function bet({ requestId, playerId, table, signal }, traceparent) {
  const known = books.get(requestId);
  if (known) {
    appendFileSync(booksFile, `${JSON.stringify({ requestId, again: true })}\n`);
    return known.answer;
  }
  const { roundId, idempotencyKey, payload } = signal;
  const amount = Number(payload?.amount);
  const reason = judge(playerId, table, roundId, payload, amount);
  const answer = reason ? { status: 'rejected', reason } : { status: 'accepted', requestId };
  if (!reason) stake(playerId, roundId, amount);
  const entry = { requestId, playerId, table, roundId, key: idempotencyKey, amount, answer, traceparent };
  books.set(requestId, entry);
  appendFileSync(booksFile, `${JSON.stringify(entry)}\n`);
  await delay(JUDGING);
  return answer;
}

function judge(playerId, table, roundId, payload, amount) {
  if (!['red', 'black', 'even', 'odd', 'low', 'high'].includes(payload?.spot)) return 'invalid_bet';
  if (!(amount >= 1 && amount <= 100)) return 'limit_exceeded';
  const now = Date.now();
  if (roundId !== roundName(now)) return 'unknown_round';
  if (now % ROUND >= CLOSES) return 'round_closed';
  if ((staked.get(`${playerId} ${roundId}`) ?? 0) + amount > 500) return 'limit_exceeded';
  return undefined;
}

function roundName(now) {
  return `wheel-${Math.floor(now / ROUND)}`;
}

/** What has been said of a table's current round. */
function current(table) {
  const now = Date.now();
  const begun = now - (now % ROUND);
  const happened = (type, at, more) => ({ table, type, roundId: roundName(now), captureTs: begun + at, ...more });
  const events = [happened('round.open', 0, { game: 'wheel', closesTs: begun + CLOSES, limits: { least: 1, most: 100, mostInRound: 500 } })];
  if (now - begun >= CLOSES) events.push(happened('round.close', CLOSES, { resultTs: begun + SETTLES }));
  if (now - begun >= SETTLES) events.push(happened('result', SETTLES, result(Math.floor(now / ROUND))));
  return events;
}

function result(round) {
  const number = (round * 7919) % 37;
  const colour = number === 0 ? 'green' : RED.includes(number) ? 'red' : 'black';
  const winners = [String(number)];
  if (number) winners.push(colour, number % 2 ? 'odd' : 'even', number < 19 ? 'low' : 'high');
  return { number, colour, winners };
}

/** Tells `say` of each event once, in its time, of all tables that are live. */
function play(say) {
  const told = new Map();
  setInterval(() => {
    for (const [table, live] of tables) {
      if (!live) continue;
      for (const event of current(table)) {
        const name = `${event.roundId} ${event.type}`;
        if (told.get(table)?.has(name)) continue;
        if (event.type === 'round.open') told.set(table, new Set());
        told.get(table)?.add(name);
        say(event);
      }
    }
  }, 20);
}

const ways = { http: serveHttp, nats: serveNats };
await ways[way]();
console.log('ready');

async function serveHttp() {
  const streams = new Set();
  const write = (stream, event) => stream.write(`id: ${event.roundId}/${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  const routes = {
    'POST /bets': async (document, response, { traceparent }) => {
      const answer = await bet(document, traceparent);
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
    },
    'POST /tables': ({ table, live }, response) => {
      tables.set(table, live);
      if (live) streams.forEach((stream) => current(table).forEach((event) => write(stream, event)));
      response.writeHead(204).end();
    },
    'GET /events': (_, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
      response.write(': welcome\n\n');
      streams.add(response);
      response.on('close', () => streams.delete(response));
    },
  };
  play((event) => streams.forEach((stream) => write(stream, event)));
  setInterval(() => streams.forEach((stream) => stream.write(':\n\n')), 1000);
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += chunk;
    const route = routes[`${request.method} ${request.url}`];
    if (!route) return response.writeHead(404).end();
    await route(body && JSON.parse(body), response, request.headers);
  });
  await new Promise((resolve) => server.listen(Number(where), '127.0.0.1', resolve));
}

async function serveNats() {
  const { connect } = await import('@nats-io/transport-node');
  const nats = await connect({ servers: where, name: 'bet service' });
  const say = (event) => nats.publish(`tableside.rounds.${event.table}`, JSON.stringify(event));
  const each = async (subscription, act) => {
    for await (const message of subscription) act(message.json(), message);
  };
  each(nats.subscribe('tableside.bets.*', { queue: 'bets' }), async (document, message) => {
    message.respond(JSON.stringify(await bet(document, message.headers?.get('traceparent'))));
  });
  each(nats.subscribe('tableside.tables.*'), ({ table, live }) => {
    tables.set(table, live);
    if (live) current(table).forEach(say);
  });
  play(say);
  await nats.flush();
}
