// Debian's simple-whip-client (Meetecho), GStreamer's webrtcbin behind it. It trickles by PATCH with If-Match.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

import { assertRuns } from '../../lib/json-peer.mjs';
import { Child } from '../../lib/process.mjs';
import { NO_UPNP, WHIP_CLIENT } from '../../lib/tools.mjs';

const AUDIO = [
  'audiotestsrc is-live=true freq=440 ! audioconvert ! audioresample ! queue ! opusenc ! rtpopuspay pt=111 ssrc=1111',
  'queue ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111',
].join(' ! ');
const VIDEO = {
  H264: (fps) => [
    `x264enc tune=zerolatency speed-preset=ultrafast key-int-max=${2 * fps} bitrate=500 ! video/x-h264,profile=constrained-baseline`,
    'rtph264pay pt=96 ssrc=9696 config-interval=-1 ! queue ! application/x-rtp,media=video,encoding-name=H264,payload=96',
  ],
  VP8: (fps) => [
    `vp8enc deadline=1 cpu-used=8 target-bitrate=500000 keyframe-max-dist=${2 * fps}`,
    'rtpvp8pay pt=96 ssrc=9696 ! queue ! application/x-rtp,media=video,encoding-name=VP8,payload=96',
  ],
};

const common = { product: 'simple-whip-client', version };
export const publishers = [
  { ...common, name: 'simple-whip-client', title: 'simple-whip-client, H.264', codec: 'H264', publish: publisher('H264') },
  { ...common, name: 'simple-whip-client-vp8', title: 'simple-whip-client, VP8', codec: 'VP8', publish: publisher('VP8') },
];

function version() {
  const client = execFileSync('dpkg-query', ['-W', '-f', '${Version}', 'simple-whip-client'], { encoding: 'utf8' });
  const gstreamer = execFileSync('gst-inspect-1.0', ['--version'], { encoding: 'utf8' });
  return `Debian's ${client}, GStreamer ${/GStreamer (\S+)/.exec(gstreamer)[1]}`;
}

function publisher(codec) {
  return ({ folder, picture: { width, height, fps } }, endpoint, token) => {
    const source = `videotestsrc is-live=true pattern=ball background-color=0xff446688 ! video/x-raw,width=${width},height=${height},framerate=${fps}/1`;
    const video = [source, 'videoconvert ! queue', ...VIDEO[codec](fps)].join(' ! ');
    const args = ['--url', endpoint, '--token', token, '--disable-colors', '--audio', AUDIO, '--video', video];
    const log = join(folder, `publisher-simple-whip-client-${codec}.log`);
    const child = new Child(WHIP_CLIENT, args, log, undefined, { ...process.env, LD_LIBRARY_PATH: NO_UPNP });
    return {
      picture: () => {
        assertRuns(child);
        return { width, height };
      },
      async stop() {
        const { code } = await child.end('SIGINT', 10);
        assert.equal(code, 0, `it ended with ${code}: ${child.output().slice(-300)}`);
      },
    };
  };
}
