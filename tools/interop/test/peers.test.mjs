// The peers without the gateway: Chromium plays from Chromium, FFmpeg posts its offer to a server of the test's.

import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Chromium } from '../lib/chromium.mjs';
import { FfmpegPublisher } from '../lib/ffmpeg.mjs';
import { Firefox } from '../lib/firefox.mjs';
import { videoCodec } from '../lib/json-peer.mjs';
import { assertMoves, assertSounds, between } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

/** Serves an empty page, and hands POST bodies to `answer`. */
class Server {
  answer = async () => ({ status: 404, body: '' });

  async listen() {
    this.server = createServer(async (request, response) => {
      if (request.method === 'GET') return response.setHeader('Content-Type', 'text/html').end('<!doctype html><title>interop</title>');
      let body = '';
      for await (const chunk of request) body += chunk;
      const { status, body: text } = await this.answer(request, body);
      response.writeHead(status, { Location: '/session/1', 'Content-Type': 'application/sdp' }).end(text);
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.origin = `http://127.0.0.1:${this.server.address().port}`;
  }
}

const server = new Server();
const folder = mkdtempSync(join(tmpdir(), 'interop-'));
let browser;
before(async () => {
  await server.listen();
  browser = await Chromium.launch();
});
after(async () => {
  await browser?.close();
  server.server.close();
  server.server.closeAllConnections?.();
});

test('a player sees the frames, the sound and the clock of a sender', { timeout: 60_000 }, async () => {
  const sender = await browser.openPeers(`${server.origin}/`);
  server.answer = async (_, offer) => ({ status: 201, body: await sender.evaluate(send, offer) });
  const page = await browser.openPeers(`${server.origin}/`);
  const { peer, joinMs } = await page.evaluate((url) => globalThis.interop.watch(url), `${server.origin}/whep/x`);
  assert(joinMs > 0);
  const read = () => page.evaluate((number) => globalThis.interop.stats(number), peer);
  await until('sound', 10, async () => (await read()).audio?.totalAudioEnergy > 0);

  // The sender's encoder speeds up over the first seconds.
  await measureFor(2);
  const earlier = await read();
  await measureFor(3);
  const later = await read();
  const played = between(earlier, later);
  assertMoves(played, { fps: 30, tolerance: 0.2 });
  assertSounds(played);
  assert.equal(later.state, 'connected');

  const clock = await page.evaluate((number) => globalThis.interopClock.read(globalThis.interop.video(number)), peer);
  assert.equal(clock, 273);
  const recorded = await page.evaluate(() => globalThis.interopRecorder.latest());
  assert.equal(recorded.made, 1);
  assert(recorded.video.framesDecoded >= later.video.framesDecoded);
  await page.evaluate((number) => globalThis.interop.leave(number, 'close'), peer);
  assert.deepEqual(browser.errors, []);
});

test('a player that is refused says what the server said', async () => {
  server.answer = async () => ({ status: 409, body: 'not live' });
  const page = await browser.openPeers(`${server.origin}/`);
  const watching = page.evaluate((url) => globalThis.interop.watch(url), `${server.origin}/whep/x`);
  await assert.rejects(watching, /answered 409: not live/);
  const [post] = await page.evaluate(() => globalThis.interopRecorder.posts);
  assert.deepEqual([post.status, post.answer], [409, 'not live']);
  assert.match(post.offer, /^v=0/);
});

test('a publisher offers the codec that it is told to first, and its token', { timeout: 60_000 }, async () => {
  const studio = await Chromium.launch({ camera: true, fps: 15 });
  try {
    const posted = [];
    server.answer = async (request, body) => {
      posted.push({ token: request.headers.authorization, body });
      return { status: 409, body: 'published already' };
    };
    const page = await studio.openStudio(`${server.origin}/`);
    const options = { token: 'secret-of-the-studio', video: 'video/VP9', picture: { width: 320, height: 180, frameRate: 15 } };
    const publishing = page.evaluate(([url, how]) => globalThis.interopStudio.publish(url, how), [`${server.origin}/whip/x`, options]);
    await assert.rejects(publishing, /answered 409: published already/);
    assert.equal(posted[0].token, 'Bearer secret-of-the-studio');
    assert.equal(videoCodec(posted[0].body), 'VP9');
    await studio.shut(page);
    assert.deepEqual(studio.pages, []);
  } finally {
    await studio.close();
  }
});

test('Firefox offers VP8, and its connections are recorded', { timeout: 60_000 }, async () => {
  const firefox = await Firefox.launch();
  try {
    const page = await firefox.open(`${server.origin}/`);
    const offer = await page.evaluate(async () => {
      const connection = new RTCPeerConnection();
      connection.addTransceiver('video', { direction: 'recvonly' });
      return (await connection.createOffer()).sdp;
    });
    assert.match(offer, /VP8\/90000/);
    const recorded = await page.evaluate(() => globalThis.interopRecorder.latest());
    assert.deepEqual([recorded.made, recorded.state], [1, 'new']);
  } finally {
    await firefox.close();
  }
});

for (const dtls of ['passive', 'active']) {
  test(`FFmpeg offers setup:${dtls}, H.264 and Opus`, { timeout: 30_000 }, async () => {
    let posted;
    server.answer = async (request, body) => {
      posted = { token: request.headers.authorization, body };
      return { status: 404, body: '' };
    };
    const publisher = new FfmpegPublisher(`${server.origin}/whip/x`, folder, { name: dtls, dtls, token: 'secret-of-the-studio' });
    await until('the offer', 15, () => posted);
    await until('the end of FFmpeg, which was refused', 15, () => publisher.child.ended);
    assert.match(posted.body, new RegExp(`a=setup:${dtls}`));
    assert.match(posted.body, /H264\/90000/);
    assert.match(posted.body, /opus\/48000\/2/i);
    assert.equal(posted.token, 'Bearer secret-of-the-studio');
  });
}

/** Answers an offer with a moving picture, the clock at frame 273, and a tone. Runs in the sender's page. */
async function send(offer) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [1280, 720];
  const context = canvas.getContext('2d');
  const gray = 273 ^ (273 >> 1);
  const number = Array.from({ length: 9 }, (_, bit) => (gray >> (8 - bit)) & 1);
  const parity = number.reduce((sum, bit) => sum + bit, 0) % 2;
  const squares = [1, 0, ...number, ...number.slice(5).map((bit) => 1 - bit), parity];
  let drawn = 0;
  setInterval(() => {
    context.fillStyle = '#246';
    context.fillRect(0, 0, 1280, 720);
    squares.forEach((bit, i) => {
      context.fillStyle = bit ? '#fff' : '#000';
      context.fillRect(384 + 32 * i, 0, 32, 32);
    });
    context.fillStyle = '#fc6';
    context.fillRect((drawn++ * 8) % 1280, 300, 100, 100);
  }, 1000 / 30);
  const audio = new AudioContext();
  const tone = new OscillatorNode(audio);
  const sound = new MediaStreamAudioDestinationNode(audio);
  tone.connect(sound);
  tone.start();

  const connection = new RTCPeerConnection();
  await connection.setRemoteDescription({ type: 'offer', sdp: offer });
  connection.addTrack(canvas.captureStream(30).getVideoTracks()[0]);
  connection.addTrack(sound.stream.getAudioTracks()[0]);
  await connection.setLocalDescription();
  await new Promise((resolve) => {
    connection.onicegatheringstatechange = () => connection.iceGatheringState === 'complete' && resolve();
    if (connection.iceGatheringState === 'complete') resolve();
  });
  return connection.localDescription.sdp;
}
