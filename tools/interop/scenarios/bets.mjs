import assert from 'node:assert/strict';

import { PlayerPage } from '../lib/player-page.mjs';
import { until } from '../lib/until.mjs';

export const about = 'bets placed by clicking through two rounds of the demo: every outcome on screen, every signal counted';

const ROUNDS = 2;
/** What is over the limits is answered too, until it has been 500 (docs/bets.md). */
const ANSWERED_OF_A_FLOOD = 500;

export async function run(t) {
  const gateway = await t.demo();
  const browser = await t.chromium();
  const page = await browser.open(gateway.url('/play/demo'));
  await page.evaluate(() => {
    window.roundEvents = [];
    window.tableside.addEventListener('round', ({ detail }) => window.roundEvents.push(detail));
  });
  await page.evaluate(`globalThis.joinWithBets = ${joinWithBets}`);
  const player = new PlayerPage(page);
  await until('the page is live', 10, async () => (await player.state()) === 'live');

  let placed = 0;
  for (let round = 1; round <= ROUNDS; round += 1) {
    // A round takes 20 s, of which bets are taken for 12.
    await until('bets are taken', 30, () => page.evaluate(() => document.querySelector('#spots button')?.disabled === false));
    const close = await page.evaluate(() => parseInt(document.querySelector('#countdown').textContent, 10));
    assert(close >= 0 && close <= 12, `${close} s to the close`);
    for (const spot of ['red', 'black']) await page.click(`#spots [data-spot=${spot}]`);
    placed += 2;
    const outcomes = () => page.$$eval('#slip [data-status]', (lines) => lines.map((line) => line.dataset.status));
    await until('both outcomes are shown', 10, async () => (await outcomes()).length === placed);
    // Who clicks in the last moment of a round is told so; that is an outcome too.
    assert((await outcomes()).every((status) => ['accepted', 'rejected'].includes(status)), (await outcomes()).join());
    await until('the round is in the history', 30, async () => (await page.$$('#rounds li')).length >= round);
    assert.match(await page.textContent('#outcome'), /^\d+ (red|black|green)/);
    // One stake on either colour: one of them wins, or neither.
    const accepted = (await outcomes()).slice(0, 2).every((status) => status === 'accepted');
    if (accepted) assert.match(await page.textContent('#rounds li'), /^(0staked 10−10|\d+staked 10even)$/);
  }

  const all = await page.evaluate(() => window.roundEvents);
  const events = all.slice(0, 1 + all.findLastIndex(({ message }) => message.type === 'result'));
  // Of the first round the opening may have come before we listened.
  const kinds = events.map(({ message }) => message.type);
  const wanted = Array(ROUNDS).fill(['round.open', 'round.close', 'result']).flat();
  assert.deepEqual(kinds, wanted.slice(wanted.length - kinds.length));
  assert(kinds.length >= wanted.length - 1, kinds.join());
  assert(events.every(({ message }) => Number.isInteger(message.rtpTs)), 'each names its frame');
  // The first may be of a round that had begun before; the others are of now, and wait for their frame.
  const behind = events.slice(-4).map(({ behindMs }) => behindMs);
  t.measure('an event after its time, by the frame on screen, at most', Math.max(...behind), 'ms');

  // By hand, through the SDK: a key that is repeated, and one for another bet.
  const [first, again, other] = await page.evaluate(async () => {
    const bet = (amount, betId) =>
      window.tableside.bet({ roundId: 'nowhere', payload: { spot: 'red', amount }, betId, idempotencyKey: 'key' });
    return [await bet(1, 'b'), await bet(1, 'b'), await bet(2, 'b')];
  });
  assert.deepEqual([first.status, first.reason], ['rejected', 'unknown_round']);
  assert.deepEqual([again.status, again.reason, again.timing.upstreamMs], ['rejected', 'unknown_round', undefined]);
  assert.deepEqual([other.status, other.reason], ['refused', 'key_reused']);
  assert(first.timing.upstreamMs >= 0 && first.timing.edgeMs >= 0 && first.totalMs >= first.timing.edgeMs);
  // Channels that are closed, and more of them than there are names, disturb nobody's bets.
  const acks = await page.evaluate(misuse);
  assert.deepEqual(acks, [['refused', 'malformed'], ['refused', 'too_large'], ['refused', 'malformed']]);
  placed += acks.length;
  const after = await page.evaluate(() => window.tableside.bet({ roundId: 'nowhere', payload: null }));
  assert.deepEqual([after.status, after.reason], ['rejected', 'unknown_round']);
  placed += 1;

  // A flood comes last: it leaves nothing of what a player may say.
  const flood = await page.evaluate(() =>
    Promise.all(Array.from({ length: 100 }, () => window.tableside.bet({ roundId: 'nowhere', payload: null }))),
  );
  assert(flood.some(({ reason }) => reason === 'rate_limited'), 'a flood is limited');
  placed += 3 + flood.length;

  const { sum, histogram } = await until('every signal is counted', 5, async () => {
    const metrics = await gateway.metrics();
    const counted = metrics.sum('tableside_bet_signals_total');
    return counted >= placed && { sum: counted, histogram: metrics.sum('tableside_bet_signal_rtt_seconds_count', { leg: 'total' }) };
  }).then(({ value }) => value);
  assert.equal(sum, placed, 'one outcome for each signal');
  t.measure('signals, each with an outcome', placed);
  t.measure('of which the player told its own time', histogram);

  const answered = await page.evaluate(floodWithoutEnd);
  t.measure('bets of a flood that had an outcome before the edge ended its channels', answered);
  assert(answered >= ANSWERED_OF_A_FLOOD, `${answered} outcomes`);
  await page.close();
  assert.deepEqual(browser.errors, [], 'the page logged errors');
}

/** In the page: on a connection of its own. @returns the acks of an empty message, one of 64 KiB, and one that is no signal */
async function misuse() {
  const connection = globalThis.interopRecorder.connections.at(-1);
  const opened = (channel) => new Promise((resolve) => channel.addEventListener('open', resolve, { once: true }));
  const closed = (channel) => new Promise((resolve) => channel.addEventListener('close', resolve, { once: true }));
  for (const label of ['other', 'bets']) {
    const channel = connection.createDataChannel(label);
    await opened(channel);
    channel.send('{}');
    channel.close();
    await closed(channel);
  }
  const { session, bets } = await globalThis.joinWithBets();
  const acks = [];
  const all = new Promise((resolve) => {
    bets.onmessage = ({ data }) => acks.push(JSON.parse(data)) === 3 && resolve();
  });
  for (const message of ['', 'x'.repeat(65_536), '{"type":"bet"}']) bets.send(message);
  await all;
  session.close();
  return acks.map(({ status, reason }) => [status, reason]);
}

/** In the page: a connection with a channel for bets that is open. */
async function joinWithBets() {
  const session = new RTCPeerConnection();
  session.addTransceiver('video', { direction: 'recvonly' });
  const bets = session.createDataChannel('bets');
  const open = new Promise((resolve) => bets.addEventListener('open', resolve, { once: true }));
  await session.setLocalDescription();
  const answer = await fetch('/whep/demo', { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: session.localDescription.sdp });
  await session.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  await open;
  return { session, bets };
}

/** In the page: bets until the edge has had enough; the picture goes on. @returns how many had an outcome */
async function floodWithoutEnd() {
  const { session, bets } = await globalThis.joinWithBets();
  let answered = 0;
  bets.onmessage = () => (answered += 1);
  const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  while (bets.readyState === 'open') {
    for (let n = 0; n < 20 && bets.readyState === 'open'; n += 1) bets.send('{"type":"bet"}');
    await later(10);
  }
  const frames = async () => [...(await session.getStats()).values()].find(({ kind, type }) => type === 'inbound-rtp' && kind === 'video').framesReceived;
  const before = await frames();
  while ((await frames()) < before + 30) await later(100);
  session.close();
  return answered;
}
