// Reads the frame number that is burnt into the demo clip from canvas pixels. The layout is that of
// tools/demo-clip/timecode.py: sixteen squares of 32x32 at (384 + 32 i, 0) of a 1280x720 picture.

const FRAMES = 300;

/**
 * The frame number, 0-299, of the picture that a video element shows; `null` where there is no readable strip.
 *
 * @param {HTMLVideoElement} video
 */
export function frameNumber(video) {
  const scale = video.videoWidth / 1280;
  if (!scale) return null;
  const canvas = new OffscreenCanvas(16, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return null;
  // The inner 16x16 of each square shrinks to one pixel: its mean, near enough.
  context.imageSmoothingQuality = "high";
  for (let i = 0; i < 16; i++) {
    context.drawImage(video, (384 + 32 * i + 8) * scale, 8 * scale, 16 * scale, 16 * scale, i, 0, 1, 1);
  }
  const { data } = context.getImageData(0, 0, 16, 1);
  return decode(Array.from({ length: 16 }, (_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3));
}

/**
 * @param {number[]} means the brightness of the sixteen squares, 0 to 255
 * @returns {number | null}
 */
export function decode(means) {
  if (means[0] - means[1] < 100) return null;
  const threshold = (means[0] + means[1]) / 2;
  const values = means.map((mean) => Number(mean > threshold));
  const gray = values.slice(2, 11);
  const sound =
    values.slice(11, 15).every((value, i) => value === 1 - gray[5 + i]) && values[15] === gray.reduce((sum, bit) => sum + bit, 0) % 2;
  if (!sound) return null;
  let number = 0;
  let bit = 0;
  for (const value of gray) {
    bit ^= value;
    number = (number << 1) | bit;
  }
  return number < FRAMES ? number : null;
}
