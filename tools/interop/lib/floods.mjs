// Clients that mean no good, bounded in number and time, and what somebody who watches notices of them.

import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';

import { between, report } from './playback.mjs';
import { measureFor } from './until.mjs';

const TABLE_FPS = 30;
const LEAST_SHARE = 0.95;

/** So many TCP connections that say `text` and no more, opened over a second or so. @returns a function that ends them */
export async function halfOpen(port, count, text) {
  const sockets = [];
  for (let i = 0; i < count; i += 1) {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    // Being thrown out is what they are for.
    socket.on('error', () => {});
    socket.resume();
    sockets.push(socket);
    if (i % 20 === 19) await measureFor(0.02);
  }
  return () => sockets.forEach((socket) => socket.destroy());
}

/** POSTs `bodies` in turn, `rate` a second for `seconds`. @returns how often each status came, and the answers' times */
export async function posts(url, bodies, { rate, seconds }) {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const statuses = {};
  const millis = [];
  const answers = [];
  const begin = performance.now();
  for (let i = 0; i < rate * seconds; i += 1) {
    answers.push(post(url, bodies[i % bodies.length], agent).then(({ status, ms }) => {
      statuses[status] = (statuses[status] ?? 0) + 1;
      millis.push(ms);
    }));
    const ahead = begin + (1000 * (i + 1)) / rate - performance.now();
    if (ahead > 0) await measureFor(ahead / 1000);
  }
  const sent = rate * seconds / ((performance.now() - begin) / 1000);
  await Promise.all(answers);
  agent.destroy();
  return { statuses, rate: sent, median: millis.sort((a, b) => a - b)[Math.floor(millis.length / 2)], slowest: millis.at(-1) };
}

function post(url, body, agent) {
  const begin = performance.now();
  const headers = { 'Content-Type': 'application/sdp', 'Content-Length': Buffer.byteLength(body) };
  return new Promise((resolve) => {
    const done = (status) => resolve({ status, ms: performance.now() - begin });
    request(url, { method: 'POST', headers, agent, timeout: 15_000 }, (response) => {
      response.resume().on('end', () => done(response.statusCode));
    }).on('error', (error) => done(error.code ?? 'error')).end(body);
  });
}

/**
 * Holds a player to the frames that were sent, and the node to its answers, while `flood` runs.
 *
 * @param watched `framesSent` reads the publisher's count; without it the table is known to have 30 frames a second
 * @returns what `flood` returned
 */
export async function unnoticed(t, what, { gateway, player, framesSent, atLeastSeconds }, flood) {
  const sentBefore = await framesSent?.();
  const before = await player.latest();
  const asked = { health: 0 };
  let over = false;
  const probes = (async () => {
    while (!over) {
      for (const path of ['/healthz', '/readyz']) {
        const response = await fetch(gateway.admin(path), { signal: AbortSignal.timeout(2000) });
        assert.equal(response.status, 200, `${path} during ${what}`);
      }
      asked.health += 1;
      await measureFor(0.25);
    }
  })();
  let outcome;
  try {
    [outcome] = await Promise.all([flood(), measureFor(atLeastSeconds)]);
  } finally {
    over = true;
  }
  await probes;
  const after = await player.latest();
  const played = between(before, after);
  report(t, `${what}: player`, played);
  t.measure(`${what}: health and readiness asked`, asked.health);
  const sent = framesSent ? (await framesSent()) - sentBefore : TABLE_FPS * played.seconds;
  t.measure(`${what}: frames sent and decoded`, `${Math.round(sent)} and ${played.frames}`);
  // No upper bound: whoever was a little behind before may catch up meanwhile.
  assert(played.frames >= LEAST_SHARE * sent, `${what}: ${played.frames} of ${sent} frames were decoded`);
  assert.equal(played.freezes, 0, `${what}: freezes`);
  assert.equal(after.made, before.made, 'the player made no new connection');
  return outcome;
}
