// libwebrtc in Node as a WHEP player: `play.mjs ENDPOINT`. Its sinks get what the decoders made of the packets.

import wrtc from '@roamhq/wrtc';

const { RTCPeerConnection, nonstandard } = wrtc;
const REPORT_MS = 250;
/** Of the luma plane, every so many bytes are looked at. */
const LUMA_STEP = 97;

const [endpoint] = process.argv.slice(2);
const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
const video = { frames: 0, width: 0, height: 0, contrast: 0 };
const audio = { received: 0, level: 0 };
const sinks = [];
let reports;

connection.addTransceiver('video', { direction: 'recvonly' });
connection.addTransceiver('audio', { direction: 'recvonly' });
connection.ontrack = ({ track }) => {
  const sink = track.kind === 'video' ? new nonstandard.RTCVideoSink(track) : new nonstandard.RTCAudioSink(track);
  sinks.push(sink);
  if (track.kind === 'video') sink.onframe = ({ frame }) => watched(frame);
  else sink.ondata = ({ samples }) => heard(samples);
};

function watched({ width, height, data }) {
  const luma = [];
  for (let i = 0; i < width * height; i += LUMA_STEP) luma.push(data[i]);
  const mean = luma.reduce((sum, value) => sum + value, 0) / luma.length;
  const contrast = Math.sqrt(luma.reduce((sum, value) => sum + (value - mean) ** 2, 0) / luma.length);
  Object.assign(video, { frames: video.frames + 1, width, height, contrast });
}

/** libwebrtc gives 10 ms of silence where nothing has come: only what is louder counts. */
function heard(samples) {
  audio.level = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  if (audio.level > 0) audio.received += 1;
}

function say(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** @returns the session's URL, `undefined` if the endpoint refused */
async function negotiate() {
  await connection.setLocalDescription(await connection.createOffer());
  const offer = connection.localDescription.sdp;
  const response = await fetch(endpoint, { method: 'POST', headers: { 'Content-Type': 'application/sdp' }, body: offer });
  const answer = await response.text();
  say({ answered: { status: response.status, offer, answer } });
  if (response.status !== 201) return undefined;
  await connection.setRemoteDescription({ type: 'answer', sdp: answer });
  // The states are for whoever looks for the reason of a failure.
  const states = () => ({ ice: connection.iceConnectionState, state: connection.connectionState });
  reports = setInterval(() => say({ statistics: { ...video, audio, ...states() } }), REPORT_MS);
  return new URL(response.headers.get('Location'), endpoint).href;
}

const session = negotiate();
// Waits for the signal also where it was refused: whoever started this ends it.
const running = setInterval(() => {}, 60_000);
process.on('SIGINT', async () => {
  const url = await session;
  clearInterval(running);
  clearInterval(reports);
  const response = url && (await fetch(url, { method: 'DELETE' }));
  sinks.forEach((sink) => sink.stop());
  connection.close();
  process.exit(!response || response.status === 200 ? 0 : 1);
});
