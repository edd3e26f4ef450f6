// aiortc: offers VP8 before H.264 by itself, and H.264 alone where it is told to.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { JsonPeer, assertRuns } from '../../lib/json-peer.mjs';
import { PYTHON, pythonVersion } from '../../lib/tools.mjs';

const PROGRAM = fileURLToPath(new URL('../aiortc/publish.py', import.meta.url));
const version = () => pythonVersion('aiortc');

export const publishers = [
  { name: 'aiortc', title: 'aiortc', product: 'aiortc', codec: 'VP8', version, publish: publisher('default') },
  { name: 'aiortc-h264', title: 'aiortc, H.264', product: 'aiortc', codec: 'H264', version, publish: publisher('H264') },
];

function publisher(codec) {
  return async ({ folder, picture: { width, height, fps } }, endpoint, token) => {
    const log = join(folder, `publisher-aiortc-${codec}.log`);
    const peer = new JsonPeer(PYTHON, [PROGRAM, endpoint, token, codec, width, height, fps].map(String), log);
    const { offer } = await peer.answered();
    return {
      offer: () => offer,
      picture: () => {
        assertRuns(peer.child);
        return { width, height };
      },
      stop: () => peer.stop({ playing: true }),
    };
  };
}
