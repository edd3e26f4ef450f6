// A gateway with a configuration of the scenario's, and one table that is published.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { LIGHT } from './ffmpeg.mjs';
import { freePorts } from './gateway.mjs';
import { AUTH, Issuer } from './issuer.mjs';
import { Netsim } from './netsim.mjs';
import { until } from './until.mjs';

/** Frames per second of the table. */
export const FPS = LIGHT.fps;

/**
 * Starts both and waits until the table `one` is live. `media` are lines of the section `[media]`, with port and shards
 * given. Public HTTP listens at all addresses. `beforePublishing` gets the media port. H.264 comes from FFmpeg, VP8 from
 * Chromium's fake camera; with `codec: 'none'` the scenario publishes. `sections` are further ones of the configuration, and `env` is added to the
 * gateway's environment.
 *
 * @returns {Promise<{ gateway: import('./gateway.mjs').Gateway, http: number, media: number }>}
 */
export async function studio(t, media, { beforePublishing = async () => {}, codec = 'H264', sections = [], env = {} } = {}) {
  const [http, admin, port] = await freePorts(3);
  const text = [
    `[http]\nlisten = "[::]:${http}"`,
    `[admin]\nlisten = "127.0.0.1:${admin}"`,
    `[media]\nfirst_port = ${port}\nshards = 1\n${media}`,
    '[tables.one]',
    AUTH,
    ...sections,
  ].join('\n\n');
  mkdirSync(t.folder, { recursive: true });
  const issuer = new Issuer(t);
  const file = join(t.folder, 'gateway.toml');
  writeFileSync(file, text);
  const gateway = await t.configured(file, { http, admin }, env);
  gateway.tokensFrom(issuer);
  await beforePublishing(port);
  if (codec === 'none') return { gateway, http, media: port };
  if (codec === 'H264') t.ffmpeg(gateway.url('/whip/one'), { token: gateway.publisherToken, picture: LIGHT });
  else await publishCamera(t, gateway, codec);
  await until('the table is live', 15, async () => {
    return (await gateway.metrics()).sum('tableside_table_live', { table: 'one' }) === 1;
  });
  return { gateway, http, media: port };
}

/**
 * The same, in VP8 by default, and whoever sends or watches reaches the gateway through the link emulator only, whose address is what
 * the gateway announces.
 *
 * @returns {Promise<{ gateway: import('./gateway.mjs').Gateway, netsim: Netsim, http: number, media: number }>}
 */
export async function studioBehindNetsim(t, { codec = 'VP8', sections = [], env = {} } = {}) {
  const announced = '127.0.0.2';
  let netsim;
  const beforePublishing = async (port) => {
    netsim = await Netsim.start(t, { [`${announced}:${port}`]: `127.0.0.1:${port}` });
  };
  const media = `listen = "127.0.0.1"\nannounce = ["${announced}"]\ntcp.enabled = false`;
  return { ...(await studio(t, media, { beforePublishing, codec, sections, env })), netsim };
}

async function publishCamera(t, gateway, codec) {
  const browser = await t.chromium({ camera: true, fps: FPS });
  const page = await browser.openStudio(gateway.url('/'));
  await page.evaluate(([url, options]) => globalThis.interopStudio.publish(url, options), [
    gateway.url('/whip/one'),
    { token: gateway.publisherToken, video: `video/${codec}`, picture: { width: 320, height: 180, frameRate: FPS } },
  ]);
}
