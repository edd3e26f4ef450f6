import { PlayerPage } from '../lib/player-page.mjs';
import { assertMoves, assertSounds, between, report } from '../lib/playback.mjs';
import { measureFor, until } from '../lib/until.mjs';

export const about = "Chromium publishes a fake camera from the camera page, another Chromium's player page plays it";

export async function run(t) {
  const gateway = await t.demo();
  const studio = await t.chromium({ camera: true });
  const camera = await studio.open(gateway.url('/publish/camera'));
  await camera.getByRole('button', { name: 'Go on air' }).click();
  await until('the camera is published', 15, async () => {
    return (await gateway.metrics()).sum('tableside_table_live', { table: 'camera' }) === 1;
  });

  const home = await t.chromium();
  const player = new PlayerPage(await home.open(gateway.url('/play/camera')));
  await until('the picture moves', 10, async () => (await player.latest()).video?.framesDecoded > 0);
  await player.turnSoundOn();
  await until('sound is heard', 5, async () => (await player.latest()).audio?.totalAudioEnergy > 0);
  // The encoder starts low and needs a few seconds to settle on a size and a rate.
  await measureFor(5);
  const before = await player.latest();
  await measureFor(10);
  const after = await player.latest();
  const played = between(before, after);
  report(t, 'player', played);
  t.measure('video', `${after.video.codec} ${after.video.frameWidth}x${after.video.frameHeight}`);
  const { framesPerSecond } = await sent(camera);
  t.measure('camera, frames per second', framesPerSecond);
  assertMoves(played, { fps: framesPerSecond, tolerance: 0.1 });
  assertSounds(played);
}

/** What the publishing browser says it sends. */
function sent(page) {
  return page.evaluate(async () => {
    const stats = await globalThis.interopRecorder.connections.at(-1).getStats();
    return [...stats.values()].find((entry) => entry.type === 'outbound-rtp' && entry.kind === 'video');
  });
}
