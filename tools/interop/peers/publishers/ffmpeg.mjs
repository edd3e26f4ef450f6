// FFmpeg 9's own WHIP muxer: H.264 baseline and Opus, nothing else.

import { execFileSync } from 'node:child_process';

import { FfmpegPublisher } from '../../lib/ffmpeg.mjs';
import { assertRuns } from '../../lib/json-peer.mjs';
import { FFMPEG } from '../../lib/tools.mjs';

const VIDEO_BITRATE = '500k';
const AUDIO_BITRATE = '64k';

export const publishers = [{ name: 'ffmpeg', title: 'FFmpeg', product: 'FFmpeg', codec: 'H264', version, publish }];

function version() {
  return /version (\S+)/.exec(execFileSync(FFMPEG, ['-version'], { encoding: 'utf8' }))[1];
}

function publish({ folder, picture: { width, height, fps } }, endpoint, token) {
  const picture = { size: `${width}x${height}`, fps, video: VIDEO_BITRATE, audio: AUDIO_BITRATE };
  const ffmpeg = new FfmpegPublisher(endpoint, folder, { name: 'ffmpeg', token, picture });
  return {
    picture: () => {
      assertRuns(ffmpeg.child);
      return { width, height };
    },
    stop: () => ffmpeg.leave(),
  };
}
