// The parts of the matrix that need no gateway: which pairs there are, what is expected, and how it is written down.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import '../page/picture.js';
import { JsonPeer, assertRuns, videoCodec } from '../lib/json-peer.mjs';
import { document } from '../lib/matrix-document.mjs';
import { PLAYERS, PUBLISHERS, choose, expected, offersCodec, surprises } from '../lib/matrix.mjs';
import { NpmServer, asModule, packageVersion } from '../lib/npm-server.mjs';
import { ROOT } from '../lib/tools.mjs';

const folder = mkdtempSync(join(tmpdir(), 'interop-'));
const names = (pairs) => pairs.map(({ publisher, player }) => `${publisher.name}×${player.name}`);
const offer = (name) => readFileSync(join(ROOT, 'tests/fixtures/offers', `${name}.sdp`), 'utf8');
const peer = (peers, name) => peers.find((one) => one.name === name);

/** What a run in which all went as it should would give. */
const cells = choose([]).map(({ publisher, player }) => {
  const outcome = expected(publisher, player);
  return { publisher: publisher.name, player: player.name, outcome, frames: 61, why: 'the offer has none' };
});

test('pairs are chosen by name, with * for any', () => {
  assert.equal(choose([]).length, PUBLISHERS.length * PLAYERS.length);
  assert.deepEqual(names(choose(['ffmpeg×firefox', 'ffmpeg:wrtc'])), ['ffmpeg×firefox', 'ffmpeg×wrtc']);
  assert.equal(choose(['*×wrtc']).length, PUBLISHERS.length);
  assert.equal(choose(['aiortc×*']).length, PLAYERS.length);
  for (const wrong of ['ffmpeg', 'ffmpeg×safari', 'obs×wrtc', 'ffmpeg×wrtc×firefox']) {
    assert.throws(() => choose([wrong]), /no such pair.*Publishers: ffmpeg/, wrong);
  }
});

test('a pair plays if the player decodes what is published', () => {
  const pair = (publisher, player) => expected(peer(PUBLISHERS, publisher), peer(PLAYERS, player));
  assert.equal(pair('ffmpeg', 'chromium'), 'plays');
  assert.equal(pair('ffmpeg', 'firefox'), 'refused');
  assert.equal(pair('chromium-av1', 'aiortc'), 'refused');
  assert.equal(pair('chromium-vp9', 'wrtc'), 'plays');
});

test('any other outcome is a surprise, and the reason is told', () => {
  assert.deepEqual(surprises(cells), []);
  const [first, ...others] = cells;
  assert.deepEqual(surprises([{ ...first, outcome: 'refused' }, ...others]), ['ffmpeg×chromium: refused, not plays: the offer has none']);
  const unexpected = cells.find(({ outcome }) => outcome === 'refused');
  assert.match(surprises([{ ...unexpected, outcome: 'plays' }])[0], /: plays, not refused/);
});

test('what players are said to decode is what they offered when they were captured', () => {
  const captured = {
    chromium: 'chromium-player',
    firefox: 'firefox-player',
    aiortc: 'aiortc-player',
    'whip-whep': 'whip-whep-player',
    'eyevinn-webrtc-player': 'eyevinn-player',
    wrtc: 'wrtc-player',
  };
  for (const { name, decodes } of PLAYERS) {
    const offered = ['H264', 'VP8', 'VP9', 'AV1'].filter((codec) => offersCodec(offer(captured[name]), codec));
    assert.deepEqual(offered, decodes, name);
  }
});

test('the codec of a description is the first of its video section', () => {
  assert.equal(videoCodec(offer('ffmpeg-publisher')), 'H264');
  assert.equal(videoCodec(offer('aiortc-publisher')), 'VP8');
  assert.equal(videoCodec('v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n'), undefined);
  assert.equal(videoCodec(undefined), undefined);
});

test('the document has a row for each publisher, and each refusal in words', () => {
  const versions = Object.fromEntries([...PUBLISHERS, ...PLAYERS].map(({ product }) => [product, '1.2.3']));
  const text = document(cells, versions);
  for (const { title } of [...PUBLISHERS, ...PLAYERS]) assert(text.includes(`| ${title} |`), title);
  assert.equal(text.match(/1\.2\.3/g).length, Object.keys(versions).length);
  assert.equal(text.match(/the offer has none/g).length, cells.filter(({ outcome }) => outcome === 'refused').length);
  assert.doesNotMatch(text, /undefined/);
});

test('docs/interop.md says of each pair what is expected now', () => {
  const file = join(ROOT, 'docs/interop.md');
  assert(existsSync(file), 'write it with tools/interop/matrix --write');
  const rows = readFileSync(file, 'utf8').split('\n').filter((line) => line.startsWith('| ')).map((line) => line.slice(2, -2).split(' | '));
  const words = { plays: /^plays, \d+$/, refused: /^no codec$/, cannot: /^not yet$/ };
  for (const publisher of PUBLISHERS) {
    const row = rows.find(([title, codecs]) => title === publisher.title && /Opus$/.test(codecs));
    assert(row, `no row for ${publisher.title}: write it anew with tools/interop/matrix --write`);
    PLAYERS.forEach((player, i) => assert.match(row[2 + i], words[expected(publisher, player)], `${publisher.title}, ${player.title}`));
  }
});

test('a picture has contrast, a flat colour has none', () => {
  const { contrast } = globalThis.interopPicture;
  const pixels = (luma) => Uint8ClampedArray.from({ length: 400 }, (_, i) => (i % 4 === 3 ? 255 : luma(i >> 2)));
  assert.equal(Math.round(contrast(pixels(() => 90))), 0);
  assert.equal(Math.round(contrast(pixels((i) => (i % 2) * 200))), 100);
});

test('packages in CommonJS become one ES module each', async () => {
  for (const [name, exported] of [['@eyevinn/webrtc-player', 'WebRTCPlayer'], ['@eyevinn/whip-web-client', 'WHIPClient']]) {
    const module = await import(`data:text/javascript;base64,${Buffer.from(asModule(name)).toString('base64')}`);
    assert.equal(typeof module.default[exported], 'function', name);
    assert.match(packageVersion(name), /^\d+\.\d+\.\d+$/);
  }
  assert.throws(() => asModule('no-such-package'), /no-such-package is not in node_modules/);
});

test('the server of packages serves them and nothing else', async () => {
  const server = await NpmServer.listen();
  try {
    const get = async (path) => fetch(server.origin + path);
    assert.match(await (await get('/node_modules/whip-whep/whep.js')).text(), /class WHEPClient/);
    assert.match((await get('/commonjs/@eyevinn/webrtc-player')).headers.get('Content-Type'), /javascript/);
    assert.equal((await get('/')).status, 200);
    for (const path of ['/node_modules/..%2fpackage.json', '/node_modules/..%2frun.mjs', '/node_modules/none.js']) {
      assert.equal((await get(path)).status, 404, path);
    }
  } finally {
    await server.close();
  }
});

test('a program of ours tells its answer and its statistics, and its end is noticed', async () => {
  const lines = ['{"answered":{"status":201,"offer":"o","answer":"a"}}', '{"statistics":{"frames":7}}'];
  const script = `printf '%s\\n' '${lines.join("' '")}'; trap 'exit 0' INT; while :; do sleep 0.05; done`;
  const player = new JsonPeer('/bin/sh', ['-c', script], join(folder, 'player.log'));
  assert.equal((await player.answered()).status, 201);
  await player.stop({ playing: true });
  assert.equal(player.said.statistics.frames, 7);
  assert.throws(() => assertRuns(player.child), /sh ended/);
  assert.throws(() => player.statistics(), /sh ended/);

  const broken = new JsonPeer('/bin/sh', ['-c', 'echo \'{"answered":{"status":422}}\'; exit 3'], join(folder, 'broken.log'));
  await broken.answered();
  await assert.rejects(broken.stop({ playing: true }), /it ended with 3/);
});
