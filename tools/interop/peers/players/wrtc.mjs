// libwebrtc in Node: npm `@roamhq/wrtc`, whose build has no H.264.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { JsonPeer } from '../../lib/json-peer.mjs';
import { packageVersion } from '../../lib/npm-server.mjs';

const PROGRAM = fileURLToPath(new URL('../wrtc/play.mjs', import.meta.url));

export const name = 'wrtc';
export const title = '`@roamhq/wrtc` in Node';
export const product = '`@roamhq/wrtc`';
export const decodes = ['VP8', 'VP9', 'AV1'];

export const version = () => packageVersion('@roamhq/wrtc');

export function player({ folder }) {
  let peer;
  return {
    start(endpoint) {
      peer = new JsonPeer(process.execPath, [PROGRAM, endpoint], join(folder, `${new URL(endpoint).pathname.split('/').at(-1)}-wrtc.log`));
      return peer.answered();
    },
    statistics: () => peer.statistics(),
    stop: (how) => peer?.stop(how),
  };
}
