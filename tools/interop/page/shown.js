// Keeps when a video element showed a frame, and how high it was. Runs in a page after peers.js.

(() => {
  /** By the peer's number: `[time, height]` of each frame, the time in milliseconds since 1970. */
  const shown = new Map();

  /** Begins to keep the frames of a peer of `interop`. */
  function keep(peer) {
    const video = globalThis.interop.video(peer);
    const frames = [];
    shown.set(peer, frames);
    const note = (_, { presentationTime, height }) => {
      frames.push([performance.timeOrigin + presentationTime, height]);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
  }

  globalThis.interopShown = { keep, frames: (peer) => shown.get(peer) };
})();
