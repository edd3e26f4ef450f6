// npm `whip-whep` (Medooze): its `WHEPClient` in Chromium. It trickles by PATCH, without the ETag of the 201.

import { packageVersion } from '../../lib/npm-server.mjs';
import { PagePlayer } from '../../lib/page-player.mjs';

export const name = 'whip-whep';
export const title = '`whip-whep` in Chromium';
export const product = '`whip-whep`';
export const decodes = ['H264', 'VP8', 'VP9', 'AV1'];

export const version = () => packageVersion('whip-whep');

export function player({ home, clients }) {
  return new PagePlayer({
    open: () => home.openPeers(clients.origin),
    shut: (page) => home.shut(page),
    begin,
    end: () => globalThis.client.stop(),
  });
}

async function begin(endpoint) {
  const { WHEPClient } = await import('/node_modules/whip-whep/whep.js');
  const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const video = document.createElement('video');
  video.autoplay = true;
  video.srcObject = new MediaStream();
  document.body.append(video);
  connection.ontrack = ({ track }) => video.srcObject.addTrack(track);
  connection.addTransceiver('audio', { direction: 'recvonly' });
  connection.addTransceiver('video', { direction: 'recvonly' });
  globalThis.client = new WHEPClient();
  await globalThis.client.view(connection, endpoint);
}
