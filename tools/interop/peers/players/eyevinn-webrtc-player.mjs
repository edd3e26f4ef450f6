// npm `@eyevinn/webrtc-player` in Chromium. It adds a NACK line for Opus to its offer, and takes 400 and 406 for an
// invitation to try something else.

import { packageVersion } from '../../lib/npm-server.mjs';
import { PagePlayer } from '../../lib/page-player.mjs';

const PACKAGE = '@eyevinn/webrtc-player';

export const name = 'eyevinn-webrtc-player';
export const title = `\`${PACKAGE}\` in Chromium`;
export const product = `\`${PACKAGE}\``;
export const decodes = ['H264', 'VP8', 'VP9', 'AV1'];

export const version = () => packageVersion(PACKAGE);

export function player({ home, clients }) {
  return new PagePlayer({
    open: () => home.openPeers(clients.origin),
    shut: (page) => home.shut(page),
    begin,
    end: () => globalThis.client.unload(),
  });
}

async function begin(endpoint) {
  const { WebRTCPlayer } = (await import('/commonjs/@eyevinn/webrtc-player')).default;
  const video = document.createElement('video');
  video.autoplay = true;
  document.body.append(video);
  globalThis.client = new WebRTCPlayer({ video, type: 'whep', iceServers: [] });
  await globalThis.client.load(new URL(endpoint));
}
