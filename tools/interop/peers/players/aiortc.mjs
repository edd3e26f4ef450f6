// aiortc, the WebRTC stack in Python. Its decoders are VP8 and H.264.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { JsonPeer } from '../../lib/json-peer.mjs';
import { PYTHON, pythonVersion } from '../../lib/tools.mjs';

const PROGRAM = fileURLToPath(new URL('../aiortc/play.py', import.meta.url));

export const name = 'aiortc';
export const title = 'aiortc';
export const product = 'aiortc';
export const decodes = ['H264', 'VP8'];

export const version = () => pythonVersion('aiortc');

export function player({ folder }) {
  let peer;
  return {
    start(endpoint) {
      peer = new JsonPeer(PYTHON, [PROGRAM, endpoint], join(folder, `${new URL(endpoint).pathname.split('/').at(-1)}-aiortc.log`));
      return peer.answered();
    },
    statistics: () => peer.statistics(),
    stop: (how) => peer?.stop(how),
  };
}
