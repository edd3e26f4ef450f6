import { postOffer } from "/sdk/player.js";
import { History, displayName, element, fetchTable, formatBitrate, formatCodec, formatMs, repeat, sparkline, tableFromPath, tokenFromFragment } from "/assets/shared.js";

const VIDEO_BITS_PER_SECOND = 2_500_000;
const CONNECT_TIMEOUT_MS = 10_000;
const BACKOFF_MAX_MS = 8_000;
/** How long a session's connection outlives its DELETE where no answer comes. */
const GOODBYE_MS = 1_000;

const table = tableFromPath();
const pill = element("state", HTMLSpanElement);
const preview = element("preview", HTMLVideoElement);
const form = element("form", HTMLFormElement);
const toggle = element("toggle", HTMLButtonElement);
const message = element("message", HTMLParagraphElement);
const camera = element("camera", HTMLSelectElement);
const microphone = element("microphone", HTMLSelectElement);
const codec = element("codec", HTMLSelectElement);
const token = element("token", HTMLInputElement);
const bitrates = new History(60);

/** @type {WhipSession | null} */ let session = null;
/** @type {MediaStream | null} */ let stream = null;
/** On air is what the user wants; whether it is so at the moment is the session's state. */
let onAir = false;
let attempts = 0;
/** @type {number | undefined} */ let retryTimer;

/** What the server said no with. */
class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** One WHIP session. */
class WhipSession {
  #before = { at: 0, bytes: 0 };
  /** @type {string | null} */ #sessionUrl = null;
  #closed = false;

  /**
   * @param {MediaStream} media
   * @param {string} preferredCodec
   * @param {string} bearer
   */
  constructor(media, preferredCodec, bearer) {
    this.bearer = bearer || undefined;
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    for (const track of media.getTracks()) {
      const isVideo = track.kind === "video";
      const transceiver = this.pc.addTransceiver(track, {
        direction: "sendonly",
        streams: [media],
        sendEncodings: isVideo ? [{ maxBitrate: VIDEO_BITS_PER_SECOND, maxFramerate: 30 }] : undefined,
      });
      if (isVideo) prefer(transceiver, preferredCodec);
    }
  }

  /** Resolves when media flows. */
  async connect() {
    const offer = await this.pc.createOffer();
    await this.pc.setLocalDescription(offer);
    const endpoint = new URL(`/whip/${encodeURIComponent(table)}`, location.href);
    const response = await postOffer(endpoint.href, this.bearer, offer.sdp ?? "");
    const body = await response.text();
    if (response.status !== 201) throw new Refused(response.status, problemDetail(body));
    // Against the URL that answered: a redirect may have led to another node.
    const sessionUrl = response.headers.get("Location");
    if (sessionUrl) this.#sessionUrl = new URL(sessionUrl, response.url).href;
    if (this.#closed) return this.#release();
    await this.pc.setRemoteDescription({ type: "answer", sdp: body });
    await connected(this.pc);
  }

  /** DELETE first: once the connection has said goodbye there is no session of this URL any more, and DELETE gets a 404. */
  async close() {
    this.#closed = true;
    await Promise.race([this.#release(), new Promise((resolve) => setTimeout(resolve, GOODBYE_MS))]);
    this.pc.close();
  }

  /** As `close`, with nothing left to be done later: a page that is being left runs no more. */
  abandon() {
    this.#closed = true;
    this.#release();
    this.pc.close();
  }

  async #release() {
    if (!this.#sessionUrl) return;
    const url = this.#sessionUrl;
    this.#sessionUrl = null;
    // Without the token: the session URL is enough.
    await fetch(url, { method: "DELETE", keepalive: true }).catch(() => {
      // The server ends the session by itself when checks stop.
    });
  }

  async stats() {
    /** @type {any} */ let video;
    /** @type {any} */ let remote;
    /** @type {any} */ let audio;
    const report = await this.pc.getStats();
    report.forEach((entry) => {
      if (entry.type === "outbound-rtp" && entry.kind === "video") video = entry;
      if (entry.type === "outbound-rtp" && entry.kind === "audio") audio = entry;
      if (entry.type === "remote-inbound-rtp" && entry.kind === "video") remote = entry;
    });
    const anyRtp = video ?? audio;
    if (!anyRtp) return null;
    const now = { at: anyRtp.timestamp, bytes: (video?.bytesSent ?? 0) + (audio?.bytesSent ?? 0) };
    const seconds = this.#before.at ? (now.at - this.#before.at) / 1000 : 0;
    const bitsPerSecond = seconds > 0 ? (8 * (now.bytes - this.#before.bytes)) / seconds : 0;
    this.#before = now;
    const codecs = [video, audio].map((rtp) => report.get(rtp?.codecId)?.mimeType.split("/")[1]);
    return { video: video ?? {}, remote: remote ?? {}, bitsPerSecond, codecs };
  }
}

/**
 * Puts a codec first and keeps the others behind it.
 *
 * @param {RTCRtpTransceiver} transceiver
 * @param {string} name
 */
function prefer(transceiver, name) {
  const all = RTCRtpReceiver.getCapabilities?.("video")?.codecs ?? [];
  const isIt = (/** @type {{ mimeType: string }} */ { mimeType }) => mimeType.toLowerCase() === `video/${name.toLowerCase()}`;
  const ordered = [...all.filter(isIt), ...all.filter((entry) => !isIt(entry))];
  if (ordered.length) transceiver.setCodecPreferences?.(ordered);
}

/** @param {RTCPeerConnection} pc */
function connected(pc) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no connection")), CONNECT_TIMEOUT_MS);
    const check = () => {
      if (pc.connectionState === "connected") resolve(undefined);
      else if (pc.connectionState === "failed" || pc.connectionState === "closed") reject(new Error("no connection"));
      else return;
      clearTimeout(timer);
    };
    pc.addEventListener("connectionstatechange", check);
    check();
  });
}

/** @param {string} body */
function problemDetail(body) {
  try {
    const problem = JSON.parse(body);
    return String(problem.detail ?? problem.title ?? "");
  } catch {
    return "";
  }
}

// Words

/**
 * @param {"idle" | "connecting" | "live" | "failed"} state
 * @param {string} text
 */
function setState(state, text) {
  pill.dataset.state = state;
  pill.textContent = text;
  toggle.textContent = onAir ? "Go off air" : "Go on air";
  for (const input of [camera, microphone, codec, token]) input.disabled = onAir;
}

/**
 * @param {string} text
 * @param {"error" | "good" | ""} kind
 */
function tell(text, kind = "") {
  message.textContent = text;
  message.dataset.kind = kind;
  message.hidden = !text;
}

/** @param {unknown} error */
function explain(error) {
  if (error instanceof Refused) {
    if (error.status === 401) return `This table wants a token, and this one is missing or not valid. ${error.message}`;
    if (error.status === 403) return `This token does not allow to publish this table. ${error.message}`;
    if (error.status === 404) return `There is no table “${table}” in the configuration of this node.`;
    if (error.status === 409) return "Somebody else publishes this table at the moment.";
    if (error.status === 422) return `The node does not accept what this browser offers. ${error.message}`;
    if (error.status === 503) return "The node is full or shutting down. Try again in a moment.";
    return `The node refused (${error.status}). ${error.message}`;
  }
  if (error instanceof DOMException) {
    if (error.name === "NotAllowedError") return "The browser was not allowed to use camera or microphone. Allow both for this page and try again.";
    if (error.name === "NotFoundError") return "No camera or microphone was found.";
    if (error.name === "NotReadableError") return "Camera or microphone is in use by another program.";
    if (error.name === "OverconstrainedError") return "The camera cannot deliver a usable format.";
  }
  if (error instanceof TypeError) return "The node cannot be reached.";
  return "No media connection came about: the network between here and the node blocks UDP.";
}

// Devices

/**
 * @param {HTMLSelectElement} select
 * @param {MediaDeviceInfo[]} devices
 * @param {string} noun
 */
function fill(select, devices, noun) {
  const chosen = select.value;
  const options = devices.map((device, i) => new Option(device.label || `${noun} ${i + 1}`, device.deviceId));
  if (noun === "Microphone") options.push(new Option("No sound", "none"));
  select.replaceChildren(...options);
  if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
}

async function listDevices() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  fill(camera, devices.filter(({ kind }) => kind === "videoinput"), "Camera");
  fill(microphone, devices.filter(({ kind }) => kind === "audioinput"), "Microphone");
}

async function openDevices() {
  closeDevices();
  stream = await navigator.mediaDevices.getUserMedia({
    video: { deviceId: camera.value ? { exact: camera.value } : undefined, width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
    // A table's sound is not a telephone call: no processing.
    audio: microphone.value === "none" ? false : {
      deviceId: microphone.value ? { exact: microphone.value } : undefined,
      channelCount: { ideal: 2 }, echoCancellation: false, noiseSuppression: false, autoGainControl: false,
    },
  });
  for (const track of stream.getVideoTracks()) track.contentHint = "motion";
  preview.srcObject = stream;
  // Labels are known only now that permission was given.
  await listDevices();
  return stream;
}

function closeDevices() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  preview.srcObject = null;
}

// On air and off

async function goOnAir() {
  onAir = true;
  attempts = 0;
  tell("");
  setState("connecting", "Connecting");
  try {
    await openDevices();
    if (onAir) await publish();
  } catch (error) {
    if (onAir) fail(error);
  }
}

async function publish() {
  if (!stream) return;
  const current = new WhipSession(stream, codec.value, token.value.trim());
  session = current;
  try {
    await current.connect();
  } catch (error) {
    current.close();
    throw error;
  }
  if (session !== current) return;
  attempts = 0;
  setState("live", "On air");
  tell("On air.", "good");
  current.pc.addEventListener("connectionstatechange", () => {
    if (session === current && ["failed", "closed"].includes(current.pc.connectionState)) republish();
  });
}

/** A connection that was there and broke is made anew until the user gives up. */
function republish() {
  session?.close();
  session = null;
  setState("connecting", "Connecting");
  tell("The connection was lost. Connecting again…", "error");
  const delay = Math.min(BACKOFF_MAX_MS, 500 * 2 ** attempts++) * (0.5 + 0.5 * Math.random());
  retryTimer = setTimeout(() => {
    publish().catch((error) => {
      // 409: the node has not yet noticed that our last session is gone.
      if (!onAir) return;
      if (error instanceof Refused && error.status !== 409 && error.status < 500) fail(error);
      else republish();
    });
  }, delay);
}

/** @param {unknown} error */
function fail(error) {
  goOffAir();
  setState("failed", "Off air");
  tell(explain(error), "error");
}

function goOffAir() {
  onAir = false;
  clearTimeout(retryTimer);
  session?.close();
  session = null;
  closeDevices();
  setState("idle", "Off air");
  tell("");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (onAir) goOffAir();
  else goOnAir();
});
addEventListener("pagehide", () => session?.abandon());

// Statistics

/**
 * @param {string} id
 * @param {string} text
 */
function say(id, text) {
  element(id, HTMLElement).textContent = text;
}

async function showStats() {
  const stats = await session?.stats();
  if (!stats) return;
  const { video, remote, bitsPerSecond, codecs } = stats;
  bitrates.push(bitsPerSecond);
  sparkline(element("bitrate-spark", HTMLCanvasElement), bitrates, { atLeast: 1e6 });
  say("bitrate", formatBitrate(bitsPerSecond));
  say("fps", video.framesPerSecond === undefined ? "–" : `${Math.round(video.framesPerSecond)} fps`);
  say("picture", video.frameWidth ? `${video.frameWidth} × ${video.frameHeight}` : "–");
  say("codecs", codecs.map(formatCodec).filter(Boolean).join(" + ") || "–");
  say("rtt", remote.roundTripTime === undefined ? "–" : formatMs(1000 * remote.roundTripTime));
  say("lost", String(remote.packetsLost ?? "–"));
  say("plis", String((video.pliCount ?? 0) + (video.firCount ?? 0)));
  say("limited", video.qualityLimitationReason && video.qualityLimitationReason !== "none" ? video.qualityLimitationReason : "nothing");
}

async function showPlayers() {
  try {
    say("players", String((await fetchTable(table)).players));
  } catch {
    say("players", "–");
  }
}

// Start

element("table-name", HTMLHeadingElement).textContent = displayName(table);
document.title = `Publish ${displayName(table)} · Tableside`;
token.value = tokenFromFragment() ?? "";
element("watch", HTMLAnchorElement).href = `/play/${encodeURIComponent(table)}`;
const sendable = globalThis.RTCRtpSender?.getCapabilities?.("video")?.codecs ?? [];
for (const [name, label] of [["H264", "H.264"], ["VP8", "VP8"], ["VP9", "VP9"], ["AV1", "AV1"], ["H265", "H.265"]]) {
  if (sendable.some(({ mimeType }) => mimeType.toLowerCase() === `video/${name.toLowerCase()}`)) codec.add(new Option(label, name));
}
if (!navigator.mediaDevices || !globalThis.RTCPeerConnection) {
  toggle.disabled = true;
  tell("This page can use a camera only over HTTPS or on this very computer (localhost).", "error");
} else {
  listDevices();
  navigator.mediaDevices.addEventListener("devicechange", listDevices);
}
repeat(1000, showStats);
repeat(2000, showPlayers);
