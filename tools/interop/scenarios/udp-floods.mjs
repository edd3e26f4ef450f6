import assert from 'node:assert/strict';
import { setPriority } from 'node:os';
import { join } from 'node:path';

import { PlayerPage } from '../lib/player-page.mjs';
import { assertMoves, between, isLevel } from '../lib/playback.mjs';
import { Child } from '../lib/process.mjs';
import { FLOOD } from '../lib/tools.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = '50,000 false checks and 5,000 ClientHellos a second, and junk: a Chromium that watches notices nothing';
export const timeLimitSeconds = 240;

const SECONDS = 10;
/** The flood has two cores to share with the gateway and the browser: it aims higher, so that `rate` is what it reaches. */
const AIM = 1.1;
/** The rest never reached the socket: loopback has a queue of its own. */
const COUNTED = 0.98;
/** What the kernel may throw away unread, with a player's checks among it: two cores are not idle when they are asked. */
const UNREAD = 0.02;

/** `reasons` are those under which the gateway may count the flood (`tableside_packets_dropped_total`). */
const FLOODS = [
  { name: 'checks of the session with a wrong password', kind: 'bindings', own: true, rate: 50_000, reasons: ['stun_integrity', 'stun_rate_limited'] },
  { name: 'checks of sessions that never were', kind: 'bindings', rate: 50_000, reasons: ['stun_unknown_ufrag'] },
  { name: 'ClientHellos from unchecked addresses', kind: 'hellos', rate: 5_000, sources: 50, reasons: ['unknown_source'] },
  { name: 'junk', kind: 'junk', rate: 20_000, sources: 20, reasons: ['unrecognised', 'stun_malformed', 'unknown_source'] },
];

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const player = new PlayerPage(await browser.open(gateway.url('/play/demo')));
  await until('the page is live', 10, async () => (await player.state()) === 'live');
  await until('the player is level with the table', 10, isLevel(() => player.latest(), 30));
  const session = await player.page.evaluate(() => {
    const { sdp } = globalThis.interopRecorder.connections.at(-1).remoteDescription;
    return { ufrag: /a=ice-ufrag:(\S+)/.exec(sdp)[1], port: /a=candidate:\S+ 1 udp \d+ \S+ (\d+)/i.exec(sdp)[1] };
  });
  const quiet = await watched(gateway, player, () => measureFor(SECONDS));
  t.measure('undisturbed: frames per second, CPU of the shard', `${quiet.played.framesPerSecond.toFixed(2)}, ${percent(quiet.cpu)}`);

  for (const flood of FLOODS) {
    const { played, cpu, dropped, outcome } = await watched(gateway, player, () => send(t, flood, session));
    const counted = flood.reasons.map((reason) => `${reason} ${dropped[reason]}`).join(', ');
    t.measure(flood.name, `${Math.round(outcome.rate)}/s; ${counted}; receive_buffer_full ${dropped.receive_buffer_full}`);
    t.measure('  the player', `${played.framesPerSecond.toFixed(2)} frames per second, ${played.freezes} freezes, ${played.packetsLost} packets lost`);
    t.measure('  CPU of the shard', percent(cpu));
    assert(outcome.rate >= flood.rate, `the flood reached ${outcome.rate} a second only: this run says nothing`);
    assertMoves(played, { fps: 30 });
    assert.equal(played.packetsLost, 0, 'packets lost');
    assert.equal(played.keyframeRequests, 0, 'keyframe requests');
    const unread = dropped.receive_buffer_full;
    assert(unread <= UNREAD * outcome.sent, `the gateway did not keep up: the kernel dropped ${unread} datagrams`);
    const sum = flood.reasons.reduce((total, reason) => total + dropped[reason], unread);
    assert(sum >= COUNTED * outcome.sent, `${sum} of ${outcome.sent} datagrams are in the counters`);
  }

  // One that comes in the middle of it, from the very address of the flood, is let in as well.
  const running = send(t, { ...FLOODS[0], name: 'join' }, session);
  const second = await browser.openPeers(gateway.url('/'));
  const { joinMs } = await second.evaluate((url) => globalThis.interop.watch(url), gateway.url('/whep/demo'));
  t.measure('a join beside the first flood', joinMs, 'ms');
  await running;
  const now = await player.latest();
  assert.equal(now.made, 1, 'the page made one connection and kept it');
  assert.equal(now.state, 'connected');
}

/** What the player saw and the gateway counted while `during` went on. */
async function watched(gateway, player, during) {
  const [metrics, before] = [await gateway.metrics(), await player.latest()];
  const outcome = await during();
  const after = await player.latest();
  const played = between(before, after);
  const grown = await settled(gateway, metrics);
  return { played, outcome, cpu: grown.cpu / played.seconds, dropped: grown.dropped };
}

/** What the counters have grown by, once the shard has reported what came last. */
async function settled(gateway, before) {
  const cpu = async () => (await gateway.metrics()).sum('tableside_shard_cpu_seconds_total');
  const then = await cpu();
  await until('the report after it', 5, async () => (await cpu()) !== then);
  const after = await gateway.metrics();
  const grown = (name, labels) => after.sum(name, labels) - before.sum(name, labels);
  const reasons = [...new Set(['receive_buffer_full', ...FLOODS.flatMap((flood) => flood.reasons)])];
  return {
    cpu: grown('tableside_shard_cpu_seconds_total'),
    dropped: Object.fromEntries(reasons.map((reason) => [reason, grown('tableside_packets_dropped_total', { reason })])),
  };
}

async function send(t, flood, session) {
  const args = ['--target', `127.0.0.1:${session.port}`, '--kind', flood.kind, '--rate', AIM * flood.rate, '--seconds', SECONDS];
  if (flood.own) args.push('--ufrag', session.ufrag);
  if (flood.sources) args.push('--sources', flood.sources);
  const child = new Child(FLOOD, args.map((arg) => (typeof arg === 'number' ? String(Math.round(arg)) : arg)), join(t.folder, `${flood.kind}-${flood.name.slice(0, 10)}.log`));
  t.defer(async () => {
    if (!child.ended) await child.end('SIGKILL', 5);
  });
  // Whoever floods a real node has cores of his own: here the gateway comes first.
  setPriority(child.process.pid, 5);
  await until('the flood is over', SECONDS + 10, () => child.ended);
  assert.equal(child.ended.code, 0, child.output());
  return JSON.parse(child.output().trim().split('\n').at(-1));
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
