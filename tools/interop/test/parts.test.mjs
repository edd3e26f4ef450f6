import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { freePorts } from '../lib/gateway.mjs';
import { Metrics } from '../lib/metrics.mjs';
import { Network } from '../lib/network.mjs';
import { offer } from '../lib/offers.mjs';
import { assertMoves, assertSounds, between } from '../lib/playback.mjs';
import { Child } from '../lib/process.mjs';
import { runScenario } from '../lib/scenario.mjs';
import { firstAfter, longestGap, stretches } from '../lib/shown.mjs';
import { percentile, randomFrom } from '../lib/statistics.mjs';
import { until } from '../lib/until.mjs';

const folder = mkdtempSync(join(tmpdir(), 'interop-'));

test('a percentile is the nearest rank', () => {
  const values = Array.from({ length: 20 }, (_, i) => 20 - i);
  assert.equal(percentile(values, 95), 19);
  assert.equal(percentile(values, 50), 10);
  assert.equal(percentile([7], 95), 7);
  assert.throws(() => percentile([], 95));
});

test('a seed repeats its sequence, and the sequence is spread over [0, 1)', () => {
  const [a, b] = [randomFrom(7), randomFrom(7)];
  const values = Array.from({ length: 1000 }, a);
  assert.deepEqual(values, Array.from({ length: 1000 }, b));
  assert(values.every((value) => value >= 0 && value < 1));
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  assert(Math.abs(mean - 0.5) < 0.05, `mean ${mean}`);
});

test('shown frames are told by their heights, gaps and changes', () => {
  const frames = [[1000, 540], [1050, 540], [1500, 270], [1550, 540]];
  assert.deepEqual(stretches(frames).map(({ height, frames: count }) => [height, count]), [[540, 2], [270, 1], [540, 1]]);
  assert.equal(longestGap(frames, 1000, 1600), 0.45);
  assert.equal(longestGap(frames, 1000, 2600), 1.05, 'what stands at the end stands');
  assert.equal(longestGap([], 1000, 3000), 2);
  const isTop = (height) => height === 540;
  assert.deepEqual([firstAfter(frames, 1200, isTop), firstAfter(frames, 1600, isTop)], [0.35, undefined]);
});

test('metrics are summed over the labels that are not asked for', () => {
  const metrics = new Metrics(
    [
      '# HELP tableside_sessions Sessions.',
      '# TYPE tableside_sessions gauge',
      'tableside_sessions{role="player"} 3',
      'tableside_sessions{role="publisher"} 2',
      'tableside_frames_total{table="a \\"b\\"",outcome="dropped",cause="none"} 1.5e2 1700000000000',
      'up 1',
      '',
    ].join('\n'),
  );
  assert.equal(metrics.sum('tableside_sessions'), 5);
  assert.equal(metrics.sum('tableside_sessions', { role: 'player' }), 3);
  assert.equal(metrics.sum('tableside_frames_total', { table: 'a "b"', outcome: 'dropped' }), 150);
  assert.equal(metrics.sum('tableside_sessions', { role: 'dealer' }), 0);
  assert.throws(() => metrics.sum('tableside_session'), /no tableside_session/);
  assert.throws(() => new Metrics('not a sample'));
});

test('until returns what the probe found, and says what it last saw when it gives up', async () => {
  let asked = 0;
  const { value } = await until('three', 5, () => (++asked === 3 ? 'found' : undefined), { everyMs: 1 });
  assert.equal(value, 'found');
  await assert.rejects(until('never', 0.02, () => 0, { everyMs: 1 }), /never: not within 0.02 s \(last: 0\)/);
  const failing = () => {
    throw new Error('refused');
  };
  await assert.rejects(until('never', 0.02, failing, { everyMs: 1 }), /last: refused/);
});

test('a child reports its lines and its end', async () => {
  const lines = [];
  const child = new Child('/bin/sh', ['-c', 'echo one; echo two; exec sleep 60'], join(folder, 'child.log'), (line) => lines.push(line));
  await until('two lines', 5, () => lines.length === 2);
  const { code, signal } = await child.end('SIGTERM', 5);
  assert.deepEqual({ code, signal, lines }, { code: null, signal: 'SIGTERM', lines: ['one', 'two'] });
  assert.equal(child.output(), 'one\ntwo\n');
});

test('all that a child printed is there once it has ended', async () => {
  for (let n = 0; n < 20; n += 1) {
    const child = new Child('/bin/sh', ['-c', 'echo one; echo two >&2; exit 3'], join(folder, `short-${n}.log`));
    // Looked at the moment it is told, before anything else has its turn.
    const printed = await new Promise((resolve) => {
      child.process.on('close', () => resolve(child.ended && child.output()));
    });
    assert.deepEqual(printed.trim().split('\n').sort(), ['one', 'two']);
    assert.deepEqual(child.ended, { code: 3, signal: null });
  }
});

test('a child that cannot start has ended', async () => {
  const child = new Child('/nonexistent', [], join(folder, 'absent.log'));
  const { value } = await until('its end', 5, () => child.ended);
  assert.match(value.signal, /ENOENT/);
});

test('free ports are different', async () => {
  assert.equal(new Set(await freePorts(5)).size, 5);
});

test('what was played is the difference of two readings', () => {
  const reading = (at, framesDecoded, freezeCount, totalAudioEnergy) => ({
    at,
    video: { framesDecoded, freezeCount },
    audio: { totalAudioEnergy, totalSamplesReceived: at * 48 },
  });
  const played = between(reading(1000, 30, 1, 0.5), reading(11_000, 330, 1, 0.7));
  assert.equal(played.framesPerSecond, 30);
  assertMoves(played, { fps: 30 });
  assertSounds(played);
  assert.throws(() => assertMoves(between(reading(1000, 30, 1, 0), reading(11_000, 250, 1, 0)), { fps: 30 }), /22 frames/);
  assert.throws(() => assertMoves(between(reading(1000, 30, 1, 0), reading(11_000, 330, 2, 0)), { fps: 30 }), /freezes/);
  assert.throws(() => assertSounds(between(reading(1000, 30, 1, 0.5), reading(11_000, 330, 1, 0.5))), /silence/);
});

test('an offer has a section for each kind and ends its lines with CRLF', () => {
  const text = offer({ direction: 'sendonly', video: 'VP8' });
  assert.deepEqual(text.match(/^m=\w+/gm), ['m=audio', 'm=video']);
  assert.match(text, /a=rtpmap:96 VP8\/90000\r\n/);
  assert.equal(text.match(/a=ssrc:/g).length, 2);
  assert.doesNotMatch(text.replaceAll('\r\n', ''), /[\r\n]/);
  assert.doesNotMatch(offer({ direction: 'recvonly' }), /a=ssrc:/);
});

test('a scenario passes only if it and its cleanup do', async () => {
  const quiet = async (run) => {
    const { log } = console;
    const lines = [];
    console.log = (line) => lines.push(line);
    try {
      return { error: await runScenario('self-test', { about: 'the runner', run, timeLimitSeconds: 0.2 }, '/bin/false'), lines };
    } finally {
      console.log = log;
    }
  };
  let closed = 0;
  const fine = await quiet(async (t) => t.defer(() => (closed += 1)));
  assert.equal(fine.error, undefined);
  const broken = await quiet(async (t) => {
    t.defer(() => (closed += 1));
    assert.equal(1, 2);
  });
  assert.match(broken.error.message, /1 !== 2/);
  assert.match(broken.lines.join('\n'), /FAIL self-test/);
  const unclean = await quiet(async (t) => t.defer(() => assert.fail('left something behind')));
  assert.equal(unclean.error.message, 'left something behind');
  const hanging = await quiet(() => new Promise(() => {}));
  assert.equal(hanging.error.message, 'not done within 0.2 s');
  assert.equal(closed, 2);
});

test('a network is gone after the scenario, and after a run that was killed', async () => {
  const namespaces = () => execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' });
  const run = async (t) => {
    // Of a process that there is not.
    execFileSync('ip', ['netns', 'add', 'tableside-999999999']);
    const network = Network.make(t);
    const inside = execFileSync(network.program('ip'), ['-o', 'address'], { encoding: 'utf8' });
    assert(inside.includes(network.client.ipv4) && inside.includes(network.client.ipv6), inside);
    assert(!namespaces().includes('tableside-999999999'), 'it tidies up after others');
    throw new Error('as a scenario that fails');
  };
  assert.equal((await runScenario('network', { about: 'fails', run }, 'none')).message, 'as a scenario that fails');
  assert(!namespaces().includes(`tableside-${process.pid}`), namespaces());
});
