// Every publisher with every player: one row is one publisher whose table all players watch at the same time. A pair
// either plays, or the gateway refuses it because the player's offer lacks the table's codec; all else is a failure.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';

import * as aiortc from '../peers/players/aiortc.mjs';
import * as chromium from '../peers/players/chromium.mjs';
import * as eyevinn from '../peers/players/eyevinn-webrtc-player.mjs';
import * as firefox from '../peers/players/firefox.mjs';
import * as whipWhep from '../peers/players/whip-whep.mjs';
import * as wrtc from '../peers/players/wrtc.mjs';
import { publishers as aiortcPublishers } from '../peers/publishers/aiortc.mjs';
import { publishers as chromiumPublishers } from '../peers/publishers/chromium.mjs';
import { publishers as eyevinnPublishers } from '../peers/publishers/eyevinn-whip-web-client.mjs';
import { publishers as ffmpegPublishers } from '../peers/publishers/ffmpeg.mjs';
import { publishers as simpleWhipClients } from '../peers/publishers/simple-whip-client.mjs';
import { freePorts } from './gateway.mjs';
import { AUTH, Issuer } from './issuer.mjs';
import { NpmServer } from './npm-server.mjs';
import { until } from './until.mjs';

/**
 * `{ name, title, product, decodes, version(stage), player(stage) }`. A player has `start(endpoint)`, which returns what its POST
 * was answered, `{ status, offer, answer }`; `statistics()`, which returns `{ codec, frames, width, height, contrast,
 * audio: { received, level } }`; and `stop({ playing })`. `contrast` is the standard deviation of the decoded luma;
 * `received` counts packets or samples; `level` is 0 for silence and `undefined` where the client does not say.
 */
export const PLAYERS = [chromium, firefox, aiortc, whipWhep, eyevinn, wrtc];

/**
 * `{ name, title, product, codec, version(stage), publish(stage, endpoint, token), cannot? }`. What `publish` returns has `picture()`,
 * the size it encodes now, which throws if it has ended; and `stop()`, which leaves by DELETE. `cannot` is for one that
 * does not get through yet: `{ why, says }`, `says` matching what it says then. Where it can be had, `offer()` is its offer.
 */
export const PUBLISHERS = [
  ...ffmpegPublishers,
  ...chromiumPublishers,
  ...aiortcPublishers,
  ...simpleWhipClients,
  ...eyevinnPublishers,
];

/** Small enough that two cores encode AV1 once and decode it six times. */
const PICTURE = { width: 640, height: 360, fps: 15 };
const LIVE_WITHIN = 30;
const PLAYS_WITHIN = 40;
const GONE_WITHIN = 20;
/** Frames that are decoded after the first look: more than the cached group of pictures can account for. */
const MORE_FRAMES = 45;
/** A black or frozen-grey picture has none; a fake camera's has about 30. */
const LEAST_CONTRAST = 5;
const NO_COMMON_CODEC = 'urn:tableside:problem:no-common-codec';

/** What a pair has to come to: `plays`, `refused`, or `cannot` where the publisher does not get through. */
export function expected(publisher, player) {
  if (publisher.cannot) return 'cannot';
  return player.decodes.includes(publisher.codec) ? 'plays' : 'refused';
}

/**
 * The pairs that `only` names, as in `ffmpeg×firefox`, `ffmpeg:firefox`, `chromium-av1×*` or `*×wrtc`; all of them if it
 * names none.
 *
 * @throws if it names what is not there
 */
export function choose(only) {
  const pairs = PUBLISHERS.flatMap((publisher) => PLAYERS.map((player) => ({ publisher, player })));
  const known = (peers, name) => name === '*' || peers.some((peer) => peer.name === name);
  const wanted = only.map((text) => {
    const [publisher, player, ...rest] = text.split(/[×:]/);
    if (rest.length === 0 && known(PUBLISHERS, publisher) && known(PLAYERS, player)) return { publisher, player };
    throw new Error(`no such pair: ${text}; a pair is PUBLISHER×PLAYER or PUBLISHER:PLAYER, either may be *. ${named()}`);
  });
  const is = (name, peer) => name === '*' || name === peer.name;
  const chosen = (pair) => wanted.some(({ publisher, player }) => is(publisher, pair.publisher) && is(player, pair.player));
  return wanted.length === 0 ? pairs : pairs.filter(chosen);
}

function named() {
  const names = (peers) => peers.map(({ name }) => name).join(', ');
  return `Publishers: ${names(PUBLISHERS)}. Players: ${names(PLAYERS)}.`;
}

/** Everything the peers need, up: a gateway with a table for each publisher, browsers, the clients' own origin. */
export async function prepare(t) {
  const [http, admin, udp] = await freePorts(3);
  const file = join(t.folder, 'gateway.toml');
  const issuer = new Issuer(t);
  writeFileSync(
    file,
    [
      `[http]\nlisten = "127.0.0.1:${http}"`,
      `[admin]\nlisten = "127.0.0.1:${admin}"`,
      `[media]\nfirst_port = ${udp}\nshards = 1`,
      AUTH,
      ...PUBLISHERS.map(({ name }) => `[tables.${name}]`),
      '',
    ].join('\n\n'),
  );
  const gateway = await t.configured(file, { http, admin });
  gateway.tokensFrom(issuer);
  const clients = await NpmServer.listen();
  t.defer(() => clients.close());
  const [studio, home, firefoxBrowser] = [await t.chromium({ camera: true, fps: PICTURE.fps }), await t.chromium(), await t.firefox()];
  return { gateway, clients, studio, home, firefox: firefoxBrowser, folder: t.folder, picture: PICTURE };
}

/** One publisher, and all of these players at the same time. @returns a cell for each player */
export async function playRow(stage, publisher, players) {
  const { gateway } = stage;
  const publishing = await publisher.publish(stage, gateway.url(`/whip/${publisher.name}`), gateway.publisherToken);
  const endpoint = gateway.whep(publisher.name);
  try {
    await isLive(gateway, publisher, publishing);
    if (publishing.offer) keepOffer(stage, publisher.name, await publishing.offer());
    const cells = [];
    // One after the other: six that start at once leave a publisher in software no time to encode.
    for (const player of players) cells.push(await startCell(stage, publisher, publishing, player, endpoint));
    return await Promise.all(cells.map((finish) => finish()));
  } finally {
    await publishing.stop();
    await gateway.sessionsAre({ players: 0 }, GONE_WITHIN);
  }
}

/** @throws at once if the publisher has ended */
async function isLive(gateway, { name }, publishing) {
  const { value } = await until(`${name} is live`, LIVE_WITHIN, async () => {
    const error = await Promise.resolve().then(() => publishing.picture()).then(() => undefined, (thrown) => thrown);
    return error ?? (await gateway.metrics()).sum('tableside_table_live', { table: name }) === 1;
  });
  if (value instanceof Error) throw value;
}

/** @returns what plays on and leaves, and then gives `{ publisher, player, outcome, … }`, the outcome one of the above or `failed` */
async function startCell(stage, publisher, publishing, player, endpoint) {
  const driver = player.player(stage);
  const failed = (error) => ({ outcome: 'failed', why: error.message });
  const answered = await driver.start(endpoint).catch(failed);
  const playing = answered.status === 201;
  if (answered.offer) keepOffer(stage, `${publisher.name}-to-${player.name}`, answered.offer);
  const playOn = async () => {
    if (answered.outcome) return answered;
    return playing ? decoded(publisher, publishing, driver) : refused(publisher, answered);
  };
  return async () => {
    const played = await playOn().catch(failed);
    const left = await Promise.resolve(driver.stop({ playing })).then(() => ({}), failed);
    // Who never played may not leave well either: the first failure is the reason.
    const outcome = played.outcome === 'failed' ? played : { ...played, ...left };
    return { publisher: publisher.name, player: player.name, ...outcome };
  };
}

async function decoded(publisher, publishing, driver) {
  const { value: first } = await until('it plays', PLAYS_WITHIN, async () => {
    const [seen, sent] = [await driver.statistics(), await publishing.picture()];
    const plays = seen.frames > 0 && seen.contrast > LEAST_CONTRAST && seen.audio.received > 0 && seen.audio.level !== 0;
    if (plays && seen.codec === publisher.codec && seen.width === sent.width && seen.height === sent.height) return seen;
    throw new Error(`${JSON.stringify(seen)} of ${publisher.codec} ${JSON.stringify(sent)}`);
  });
  const { value: last } = await until(`${MORE_FRAMES} more frames and more sound`, PLAYS_WITHIN, async () => {
    const seen = await driver.statistics();
    if (seen.frames >= first.frames + MORE_FRAMES && seen.audio.received > first.audio.received) return seen;
    throw new Error(`from ${JSON.stringify(first)} to ${JSON.stringify(seen)}`);
  });
  const { codec, frames, width, height } = last;
  return { outcome: 'plays', codec, frames, width, height };
}

/** A refusal is right only as the documented problem, and only if the offer has not got the codec. */
function refused({ codec }, { status, offer, answer }) {
  const problem = JSON.parse(answer);
  assert.deepEqual([status, problem.type], [422, NO_COMMON_CODEC], answer);
  assert(!offersCodec(offer, codec), `refused for want of ${codec}, which the offer has: ${answer}`);
  return { outcome: 'refused', why: problem.detail };
}

export function offersCodec(offer, codec) {
  return new RegExp(`^a=rtpmap:\\d+ ${codec}/90000`, 'im').test(offer);
}

/** For whoever looks for the reason of a failure, and for tests/fixtures/offers. */
function keepOffer({ folder }, name, offer) {
  mkdirSync(join(folder, 'offers'), { recursive: true });
  writeFileSync(join(folder, 'offers', `${name}.sdp`), offer);
}

/** Plays the pairs row by row. @returns `{ cells, versions }`, the versions by product */
export async function playMatrix(t, pairs) {
  const stage = await prepare(t);
  const cells = [];
  for (const publisher of new Set(pairs.map((pair) => pair.publisher))) {
    const players = pairs.filter((pair) => pair.publisher === publisher).map(({ player }) => player);
    const begin = performance.now();
    const row = await playRow(stage, publisher, players).catch((error) => brokenRow(publisher, players, error));
    cells.push(...row);
    t.measure(publisher.name, `${row.map(inWords).join(', ')} (${((performance.now() - begin) / 1000).toFixed(1)} s)`);
  }
  const peers = [...new Set(pairs.flatMap(({ publisher, player }) => [publisher, player]))];
  const versions = await Promise.all(peers.map(async (peer) => [peer.product, await peer.version(stage)]));
  return { cells, versions: Object.fromEntries(versions) };
}

function brokenRow({ name, cannot }, players, { message }) {
  const how = cannot?.says.test(message) ? { outcome: 'cannot', why: cannot.why } : { outcome: 'failed', why: message };
  return players.map((player) => ({ publisher: name, player: player.name, ...how }));
}

function inWords({ player, outcome, frames }) {
  return `${player} ${outcome}${frames ? ` ${frames}` : ''}`;
}

/** The cells that did not come to what they should, in words. */
export function surprises(cells) {
  return cells.flatMap((cell) => {
    const wanted = expected(
      PUBLISHERS.find(({ name }) => name === cell.publisher),
      PLAYERS.find(({ name }) => name === cell.player),
    );
    if (cell.outcome === wanted) return [];
    return [`${cell.publisher}×${cell.player}: ${cell.outcome}, not ${wanted}${cell.why ? `: ${cell.why}` : ''}`];
  });
}
