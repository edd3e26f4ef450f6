// What a video element shows: its size, and whether there is a picture in it or one flat colour.

(() => {
  const [WIDTH, HEIGHT] = [64, 36];

  /** The standard deviation of the luma (BT.601) of RGBA pixels, 0 for a flat picture, at most 127.5. */
  function contrast(rgba) {
    const luma = Array.from({ length: rgba.length / 4 }, (_, i) => 0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]);
    const mean = luma.reduce((sum, value) => sum + value, 0) / luma.length;
    return Math.sqrt(luma.reduce((sum, value) => sum + (value - mean) ** 2, 0) / luma.length);
  }

  function read(video) {
    if (!video?.videoWidth) return { width: 0, height: 0, contrast: 0 };
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [WIDTH, HEIGHT];
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0, WIDTH, HEIGHT);
    const { data } = context.getImageData(0, 0, WIDTH, HEIGHT);
    return { width: video.videoWidth, height: video.videoHeight, contrast: contrast(data) };
  }

  globalThis.interopPicture = { read, contrast };
})();
