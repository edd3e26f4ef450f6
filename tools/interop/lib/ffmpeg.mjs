// FFmpeg 9 as a studio's encoder: H.264 baseline without B-frames and Opus, over its own WHIP client.

import { join } from 'node:path';

import { Child } from './process.mjs';
import { FFMPEG } from './tools.mjs';

const FULL = { size: '1280x720', fps: 30, video: '2500k', audio: '96k' };
/** For scenarios with many players on few cores. */
export const LIGHT = { size: '320x180', fps: 15, video: '150k', audio: '32k' };

/** The command line. `dtls` is FFmpeg's role: its offer says `setup:passive` or `setup:active`. */
export function whipArguments(url, { dtls = 'passive', token, picture = FULL } = {}) {
  const { size, fps, video, audio } = picture;
  return [
    ...['-hide_banner', '-nostdin', '-loglevel', 'info', '-progress', 'pipe:1', '-stats_period', '0.1'],
    ...['-re', '-f', 'lavfi', '-i', `testsrc2=size=${size}:rate=${fps}`],
    ...['-re', '-f', 'lavfi', '-i', 'sine=frequency=440:sample_rate=48000'],
    ...['-c:v', 'libx264', '-preset', 'ultrafast', '-tune', 'zerolatency', '-profile:v', 'baseline', '-bf', '0'],
    ...['-pix_fmt', 'yuv420p', '-g', String(2 * fps), '-b:v', video, '-maxrate', video, '-bufsize', video],
    ...['-c:a', 'libopus', '-ac', '2', '-ar', '48000', '-b:a', audio],
    ...['-f', 'whip', ...(dtls === 'active' ? ['-whip_flags', 'dtls_active'] : [])],
    ...(token ? ['-authorization', token] : []),
    url,
  ];
}

export class FfmpegPublisher {
  /** Starts to publish to the WHIP endpoint `url`. */
  constructor(url, folder, { name = 'ffmpeg', ...options } = {}) {
    this.framesSent = 0;
    this.child = new Child(FFMPEG, whipArguments(url, options), join(folder, `${name}.log`), (line) => {
      const frames = /^frame=\s*(\d+)/.exec(line);
      if (frames) this.framesSent = Number(frames[1]);
    });
  }

  /** Gone in an instant, without DELETE and without a DTLS alert: a power cut. */
  async vanish() {
    await this.child.end('SIGKILL', 5);
  }

  /** As an operator ends it: FFmpeg sends DELETE. */
  async leave() {
    return this.child.end('SIGINT', 10);
  }
}
