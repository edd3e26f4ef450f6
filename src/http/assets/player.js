// The tableside player: one table over WHEP, reconnecting by itself, in one ES module without dependencies.
//
//   import { TablesidePlayer } from "/sdk/player.js";
//   const player = new TablesidePlayer({ url: "/whep/demo", video: document.querySelector("video") });
//   player.addEventListener("statechange", () => console.log(player.state));
//   await player.start();
//
// Types: player.d.ts beside this file.

/** @typedef {import("./player.js").PlayerState} PlayerState */
/** @typedef {import("./player.js").PlayerOptions} PlayerOptions */
/** @typedef {import("./player.js").PlayerStats} PlayerStats */
/** @typedef {import("./player.js").StateDetail} StateDetail */
/** @typedef {import("./player.js").EdgeMessage} EdgeMessage */
/** @typedef {import("./player.js").Problem} Problem */
/** @typedef {import("./player.js").Bet} Bet */
/** @typedef {import("./player.js").BetOutcome} BetOutcome */

const ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";

/** What NTP counts from, 1900, is so long before what everything else in a page counts from, 1970. */
const NTP_BEFORE_UNIX_MS = 2_208_988_800_000;
/** NTP's seconds have 32 bits. */
const NTP_ERA_MS = 1000 * 2 ** 32;
/** A live picture that seems older is not: a clock is wrong. */
const OLDEST_PICTURE_MS = 60_000;
/** Of so many seconds the sender report that was delayed least sets the clock. */
const CLOCK_READINGS = 10;

const REQUEST_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 10_000;
/** How long a session's connection outlives its DELETE where no answer comes. */
const GOODBYE_MS = 1_000;
/** A connection that reports "disconnected" often recovers; longer than this and a new one is quicker. */
const DISCONNECTED_GRACE_MS = 3_000;
const STALL_AFTER_MS = 2_000;
const RECONNECT_AFTER_STALL_MS = 10_000;
/** Between two questions whether the session is still there, and how long an answer is awaited. */
const ASK_EVERY_MS = 1_000;
const ANSWER_WITHIN_MS = 2_000;
const LATE_FRAMES_MS = 1_500;
const WATCHDOG_INTERVAL_MS = 500;
const STATS_INTERVAL_MS = 1_000;
const QOS_INTERVAL_MS = 2_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
/** An unconfirmed bet is repeated after so long, and given up after so long. */
const BET_REPEAT_MS = 1_000;
const BET_GIVE_UP_MS = 60_000;
/** A round event whose frame does not come is told after so long. */
const ROUND_WAIT_MS = 2_000;
const ROUND_EVENTS = new Set(["round.open", "round.close", "result", "void"]);
/** RTP ticks of video in a millisecond. */
const TICKS_PER_MS = 90;
/** After so many attempts that reached the server but never a media path, the network is to blame. */
const ICE_FAILURES_BEFORE_UNPLAYABLE = 2;

/** The response of a WHEP endpoint that refuses. */
class Refused extends Error {
  /**
   * @param {number} status
   * @param {Problem} problem
   * @param {number | undefined} retryAfterMs
   */
  constructor(status, problem, retryAfterMs) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }
}

/** One WHEP session from the offer to DELETE. Knows nothing of retries. */
class WhepSession {
  /**
   * @param {string} url
   * @param {PlayerOptions["token"]} token
   * @param {(message: EdgeMessage, channel: string) => void} onMessage
   * @param {(reason: "connected" | "disconnected" | "failed" | "closed") => void} onConnection
   * @param {() => void} onBetsOpen
   */
  constructor(url, token, onMessage, onConnection, onBetsOpen) {
    this.url = url;
    this.token = token;
    /** What it came to when it was last asked. @type {string | undefined} */
    this.sentToken = undefined;
    this.closed = false;
    this.everConnected = false;
    /** @type {string | null} */
    this.sessionUrl = null;
    /** Of its ICE session. @type {string | null} */
    this.etag = null;
    this.stream = new MediaStream();
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.bets = this.pc.createDataChannel("bets", { ordered: true });
    this.events = this.pc.createDataChannel("events", { ordered: true });
    this.qos = this.pc.createDataChannel("qos", { ordered: false, maxRetransmits: 0 });
    for (const channel of [this.bets, this.events, this.qos]) {
      channel.addEventListener("message", ({ data }) => {
        const message = parseMessage(data);
        if (message && !this.closed) onMessage(message, channel.label);
      });
    }
    this.bets.addEventListener("open", () => this.closed || onBetsOpen());
    // A server without data channels closes them at once; that is no end of the session.
    this.events.addEventListener("open", () => {
      this.events.addEventListener("close", () => this.closed || onConnection("closed"));
    });
    this.pc.addEventListener("connectionstatechange", () => {
      const state = this.pc.connectionState;
      if (this.closed || state === "new" || state === "connecting") return;
      if (state === "connected") this.everConnected = true;
      onConnection(state);
    });
    for (const kind of ["audio", "video"]) {
      const transceiver = this.pc.addTransceiver(kind, { direction: "recvonly" });
      askForCaptureTime(transceiver);
      // From the start, not from `ontrack`: the element can then prepare while the answer is under way.
      this.stream.addTrack(transceiver.receiver.track);
    }
  }

  /**
   * Offers and applies the answer.
   *
   * @throws {Refused} where the server says no; anything else is a failure of the network or the browser
   */
  async connect() {
    const offer = await this.pc.createOffer();
    await this.pc.setLocalDescription(offer);
    this.sentToken = typeof this.token === "function" ? await this.token() : this.token;
    if (this.closed) return;
    // No wait for candidates: the server takes the address from our checks and needs none of ours.
    const response = await postOffer(this.url, this.sentToken, this.pc.localDescription?.sdp ?? offer.sdp ?? "");
    const body = await response.text();
    if (response.status !== 201) {
      throw new Refused(response.status, parseProblem(body, response), retryAfter(response.headers.get("Retry-After")));
    }
    // Against the URL that answered: a redirect may have led to another node.
    const location = response.headers.get("Location");
    if (location) this.sessionUrl = new URL(location, response.url || this.url).href;
    this.etag = response.headers.get("ETag");
    if (this.closed) {
      this.#release();
      return;
    }
    await this.pc.setRemoteDescription({ type: "answer", sdp: body });
  }

  /**
   * Whether there is nothing to wait for any more: whoever answers for the session does not know it, or cannot reach its node. Asked by a
   * PATCH that says what is known (RFC 9725 §4.3.2): that there are no candidates of ours.
   */
  async isGone() {
    if (!this.sessionUrl || !this.etag) return false;
    const own = /a=ice-(?:ufrag|pwd):\S+/g;
    const lines = [...(this.pc.localDescription?.sdp.match(own) ?? []).slice(0, 2), "a=end-of-candidates", ""];
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.etag };
    const init = { method: "PATCH", headers, body: lines.join("\r\n") };
    const status = await request(this.sessionUrl, init, ANSWER_WITHIN_MS).then((response) => response.status, () => 0);
    return [404, 502, 504].includes(status);
  }

  /** @param {object} message */
  sendQos(message) {
    if (this.qos.readyState === "open") this.qos.send(JSON.stringify(message));
  }

  /**
   * Ends the session on both sides, the server's first: once the connection has said goodbye there is no session of this
   * URL any more, and DELETE gets a 404. Safe while `connect` runs.
   */
  async close() {
    if (this.closed) return;
    this.closed = true;
    await Promise.race([this.#release(), new Promise((resolve) => setTimeout(resolve, GOODBYE_MS))]);
    this.pc.close();
  }

  /** As `close`, with nothing left to be done later: a page that is being left runs no more, and is kept for "back" only without connections. */
  abandon() {
    if (this.closed) return;
    this.closed = true;
    this.#release();
    this.pc.close();
  }

  async #release() {
    if (!this.sessionUrl) return;
    const url = this.sessionUrl;
    this.sessionUrl = null;
    // The token is for the origin that it was given for. Where a redirect led to another one, the session URL is enough.
    const token = new URL(url).origin === new URL(this.url).origin ? this.sentToken : undefined;
    await fetch(url, { method: "DELETE", headers: authorization(token), keepalive: true }).catch(() => {
      // The server ends the session by itself when checks stop.
    });
  }
}

/**
 * Bets whose outcome is not known. Each is one message that is sent again, the same to the letter, until there is an outcome: its key
 * makes that safe, across connections too.
 */
class BetBook {
  /** @type {Map<string, { text: string, traceId: string, sent: boolean, sentAt: number, repeated: boolean, repeatTimer?: number, endTimer?: number, resolve: (outcome: BetOutcome) => void }>} */
  #open = new Map();
  /** @type {() => RTCDataChannel | null} */
  #channel;
  /** @type {(message: object) => void} */
  #sendQos;

  /**
   * @param {() => RTCDataChannel | null} channel the open channel, if there is one
   * @param {(message: object) => void} sendQos
   */
  constructor(channel, sendQos) {
    this.#channel = channel;
    this.#sendQos = sendQos;
  }

  /**
   * @param {Bet} bet
   * @returns {Promise<BetOutcome>}
   */
  place({ roundId, payload, betId = newId(), idempotencyKey = newId(), traceparent: own }) {
    if (this.#open.has(betId)) throw new Error(`the bet ${betId} waits for its outcome already`);
    // One that is not of the form would be ignored by the edge, and a trace id nobody knows told here.
    const traceparent = own && TRACEPARENT.test(own) ? own : newTraceparent();
    const traceId = traceparent.slice(3, 35);
    const text = JSON.stringify({ type: "bet", betId, roundId, idempotencyKey, clientTs: Date.now(), payload, traceparent });
    return new Promise((resolve) => {
      const endTimer = setTimeout(() => this.#giveUp(betId), BET_GIVE_UP_MS);
      this.#open.set(betId, { text, traceId, sent: false, sentAt: 0, repeated: false, endTimer, resolve });
      this.#send(betId);
    });
  }

  /** A new connection: what has no outcome goes again. */
  resend() {
    for (const betId of this.#open.keys()) this.#send(betId);
  }

  /** @param {EdgeMessage} ack */
  onAck(ack) {
    const betId = String(ack.betId);
    const bet = this.#open.get(betId);
    if (!bet) return;
    // A repetition that was not passed on says nothing of what was sent before it.
    if (ack.status === "unconfirmed" || (ack.status === "refused" && bet.repeated)) {
      clearTimeout(bet.repeatTimer);
      bet.repeatTimer = setTimeout(() => this.#send(betId), BET_REPEAT_MS);
      return;
    }
    // How long a bet took that was sent more than once, nobody can say.
    const totalMs = bet.repeated ? undefined : Math.round((performance.now() - bet.sentAt) * 1000) / 1000;
    if (totalMs !== undefined && ack.status !== "refused") this.#sendQos({ type: "timing", betId, totalMs });
    const { status, reason, timing } = /** @type {any} */ (ack);
    this.#settle(betId, { betId, status, reason, timing, totalMs });
  }

  /** No connection will come: nothing more is sent. */
  giveUpAll() {
    for (const betId of [...this.#open.keys()]) this.#giveUp(betId);
  }

  /** @param {string} betId */
  #send(betId) {
    const bet = this.#open.get(betId);
    const channel = this.#channel();
    if (!bet || !channel) return;
    const sentAt = performance.now();
    try {
      channel.send(bet.text);
    } catch (error) {
      // Longer than the edge takes, and so at each attempt. Anything else passes: the channel closes, or its buffer is full.
      if (error instanceof TypeError) return this.#settle(betId, { betId, status: "refused", reason: "too_large" });
      clearTimeout(bet.repeatTimer);
      bet.repeatTimer = setTimeout(() => this.#send(betId), BET_REPEAT_MS);
      return;
    }
    bet.repeated = bet.sent;
    bet.sent = true;
    bet.sentAt = sentAt;
  }

  /** @param {string} betId */
  #giveUp(betId) {
    const sent = this.#open.get(betId)?.sent;
    this.#settle(betId, sent ? { betId, status: "unconfirmed" } : { betId, status: "refused", reason: "not_sent" });
  }

  /**
   * @param {string} betId
   * @param {Omit<BetOutcome, "traceId">} outcome
   */
  #settle(betId, outcome) {
    const bet = this.#open.get(betId);
    if (!bet) return;
    clearTimeout(bet.repeatTimer);
    clearTimeout(bet.endTimer);
    this.#open.delete(betId);
    bet.resolve({ ...outcome, traceId: bet.traceId });
  }
}

/** 128 random bits; `crypto.randomUUID` is not there without HTTPS. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** W3C Trace Context §3.2.2, version 00; neither id is zero. */
const TRACEPARENT = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** W3C Trace Context; nothing of it is recorded here. */
function newTraceparent() {
  return `00-${newId()}-${newId().slice(16)}-00`;
}

/** Plays one table and keeps playing it. See player.d.ts for events and states. */
export class TablesidePlayer extends EventTarget {
  /** @type {string} */ #url;
  /** @type {HTMLVideoElement} */ #video;
  /** @type {PlayerOptions["token"]} */ #token;
  /** @type {PlayerState} */ #state = "idle";
  /** @type {StateDetail} */ #detail = { state: "idle" };
  /** @type {WhepSession | null} */ #session = null;
  /** When it was last asked for. */ #askedAt = 0;
  /** @type {number | undefined} */ #retryTimer;
  /** @type {number | undefined} */ #connectTimer;
  /** @type {number | undefined} */ #disconnectTimer;
  /** @type {number[]} */ #intervals = [];
  /** @type {PlayerStats} */ #stats = emptyStats();
  #meter = new StatsMeter();
  #captureMeter = new CaptureMeter();
  /** The jitter buffer's totals when the edge was last told. */
  #reported = { delay: 0, emitted: 0 };
  #running = false;
  #failures = 0;
  #iceFailures = 0;
  /** @type {number | null} */ #leftAt = null;
  #framesSeen = 0;
  #lastFrameAt = 0;
  #postedAt = 0;
  #book = new BetBook(() => this.bets, (message) => this.#session?.sendQos(message));
  /** Round events that wait for their frame, in order. @type {{ message: EdgeMessage, timer: number }[]} */
  #rounds = [];
  #onPageHide = () => this.#session?.abandon();
  #onPageShow = (/** @type {PageTransitionEvent} */ event) => {
    if (event.persisted && this.#running) this.#connect();
  };

  /** @param {PlayerOptions} options */
  constructor({ url, video, token, playerId, maxLayer }) {
    super();
    const endpoint = new URL(url, location.href);
    if (playerId !== undefined) endpoint.searchParams.set("player", playerId);
    if (maxLayer !== undefined) endpoint.searchParams.set("maxLayer", String(maxLayer));
    this.#url = endpoint.href;
    this.#video = video;
    this.#token = token;
  }

  /** @returns {PlayerState} */
  get state() {
    return this.#state;
  }

  /** What was said with the last change of state. */
  get detail() {
    return this.#detail;
  }

  /** The newest statistics, refreshed every second. */
  get stats() {
    return this.#stats;
  }

  /** The connection of the current session, `null` between sessions: for tests and for the curious. */
  get peerConnection() {
    return this.#session?.pc ?? null;
  }

  /** The channel for bet signals, `null` while it is not open. */
  get bets() {
    const channel = this.#session?.bets;
    return channel?.readyState === "open" ? channel : null;
  }

  /**
   * Places a bet and resolves with what became of it, across reconnects. Never rejects; throws where `betId` waits already.
   *
   * @param {Bet} bet
   * @returns {Promise<BetOutcome>}
   */
  bet(bet) {
    return this.#book.place(bet);
  }

  /** Begins, or begins anew after `stop`, `refused` or `unplayable`. Resolves once the first attempt was made. */
  async start() {
    if (this.#running) return;
    this.#running = true;
    this.#failures = 0;
    this.#iceFailures = 0;
    addEventListener("pagehide", this.#onPageHide);
    addEventListener("pageshow", this.#onPageShow);
    this.#intervals = [
      setInterval(() => this.#watch(), WATCHDOG_INTERVAL_MS),
      setInterval(() => this.#measure(), STATS_INTERVAL_MS),
      setInterval(() => this.#report(), QOS_INTERVAL_MS),
    ];
    this.#setState({ state: "connecting" });
    await this.#connect();
  }

  /** Ends the session and stays quiet until `start`. Resolves once the server knows, or does not answer. */
  async stop() {
    const ended = this.#halt();
    this.#video.srcObject = null;
    this.#setState({ state: "stopped" });
    await ended;
  }

  /** @returns {Promise<void>} when the session has ended */
  #halt() {
    this.#running = false;
    removeEventListener("pagehide", this.#onPageHide);
    removeEventListener("pageshow", this.#onPageShow);
    this.#intervals.forEach((interval) => clearInterval(interval));
    this.#intervals = [];
    this.#book.giveUpAll();
    return this.#dropSession();
  }

  /** @returns {Promise<void>} when the session has ended */
  async #dropSession() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#disconnectTimer);
    // Who comes back is told the current round again.
    this.#forgetRounds();
    const session = this.#session;
    this.#session = null;
    await session?.close();
  }

  async #connect() {
    this.#dropSession();
    if (typeof RTCPeerConnection === "undefined") {
      this.#giveUp({ state: "unplayable", reason: "no_webrtc", message: "This browser cannot play live video (WebRTC is missing or switched off)." });
      return;
    }
    // The state stays as it is: somebody who waits for the table keeps reading so, also while we ask again.
    /** @type {WhepSession} */
    const session = new WhepSession(
      this.#url,
      this.#token,
      (message, channel) => this.#onMessage(message, channel),
      (reason) => this.#session === session && this.#onConnection(session, reason),
      () => this.#session === session && this.#book.resend(),
    );
    this.#session = session;
    this.#leftAt = null;
    this.#framesSeen = 0;
    this.#meter = new StatsMeter();
    this.#captureMeter = new CaptureMeter();
    this.#reported = { delay: 0, emitted: 0 };
    this.#postedAt = performance.now();
    try {
      await session.connect();
    } catch (error) {
      if (this.#session === session) this.#onRefusal(error);
      return;
    }
    if (this.#session !== session) return;
    this.#video.srcObject = session.stream;
    this.#video.play().catch(() => {
      // Autoplay with sound was refused, or a newer session replaced this one; the page offers a button.
    });
    this.#awaitFirstFrame(session);
    if (session.pc.connectionState !== "connected") {
      this.#connectTimer = setTimeout(() => this.#onConnection(session, "failed"), CONNECT_TIMEOUT_MS);
    }
  }

  /**
   * @param {WhepSession} session
   * @param {"connected" | "disconnected" | "failed" | "closed"} reason
   */
  #onConnection(session, reason) {
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#disconnectTimer);
    if (reason === "connected") {
      this.#iceFailures = 0;
      this.#lastFrameAt = performance.now();
      return;
    }
    if (reason === "disconnected") {
      this.#disconnectTimer = setTimeout(() => this.#onConnection(session, "failed"), DISCONNECTED_GRACE_MS);
      return;
    }
    if (reason === "failed" && !session.everConnected && ++this.#iceFailures >= ICE_FAILURES_BEFORE_UNPLAYABLE) {
      const delay = this.#retry(undefined, BACKOFF_MAX_MS);
      this.#setState({
        state: "unplayable",
        reason: "ice_failed",
        message: "The table answers, but no video gets through: this network or a firewall blocks it (UDP). Try another network, for example mobile data, or switch off the VPN.",
        retryInMs: delay,
      });
      return;
    }
    this.#reconnect(reason === "closed" ? "session_closed" : "connection_lost");
  }

  /**
   * Says what went wrong, then tries again or not.
   *
   * @param {unknown} error
   */
  #onRefusal(error) {
    if (!(error instanceof Refused)) {
      // `fetch` throws TypeError, a time-out AbortError; everything else comes from the answer.
      const unreachable = error instanceof TypeError || (error instanceof DOMException && error.name === "AbortError");
      this.#reconnect(unreachable ? "unreachable" : "bad_answer");
      return;
    }
    const { status, problem, retryAfterMs } = error;
    const detail = { status, problem };
    if (status === 409) {
      const retryInMs = this.#retry(retryAfterMs);
      this.#setState({ state: "waiting", reason: "not_live", message: "The table is not live at the moment. It starts here by itself.", retryInMs, ...detail });
    } else if (status === 422) {
      this.#giveUp({ state: "unplayable", reason: "no_common_codec", message: explainCodec(problem), ...detail });
    } else if (problem.type?.endsWith("keys-unavailable")) {
      // The node does not know yet whether the token is good.
      this.#reconnect("unreachable", retryAfterMs);
    } else if (status === 503 || status === 429) {
      const retryInMs = this.#retry(retryAfterMs);
      this.#setState({ state: "refused", reason: "full", message: "The table is full right now. We keep trying to get you a seat.", retryInMs, ...detail });
    } else if (status >= 500) {
      this.#reconnect("unreachable", retryAfterMs);
    } else {
      this.#giveUp({ state: "refused", reason: `http_${status}`, message: explainStatus(status, error.message), ...detail });
    }
  }

  /**
   * @param {string} reason
   * @param {number} [retryAfterMs]
   */
  #reconnect(reason, retryAfterMs) {
    const retryInMs = this.#retry(retryAfterMs);
    const message = reason === "unreachable" ? "The server cannot be reached. Trying again…" : "The connection was lost. Connecting again…";
    this.#setState({ state: "connecting", reason, message, retryInMs });
  }

  /**
   * Drops the session and plans the next attempt: never before what the server asked for, and spread, so that the
   * players of a table that comes back do not arrive in one instant.
   *
   * @param {number} [retryAfterMs]
   * @param {number} [atLeastMs]
   * @returns {number} the delay
   */
  #retry(retryAfterMs, atLeastMs = 0) {
    this.#dropSession();
    const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(this.#failures++, 10));
    const base = Math.max(retryAfterMs ?? backoff, atLeastMs);
    const delay = Math.round(retryAfterMs === undefined ? base * (0.5 + 0.5 * Math.random()) : base * (1 + 0.25 * Math.random()));
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    return delay;
  }

  /** @param {StateDetail} detail */
  #giveUp(detail) {
    this.#halt();
    this.#setState(detail);
  }

  /**
   * @param {EdgeMessage} message
   * @param {string} channel
   */
  #onMessage(message, channel) {
    if (channel === "events" && message.type === "notice") this.#onNotice(message);
    if (channel === "bets" && message.type === "ack") this.#book.onAck(message);
    if (channel === "events" && ROUND_EVENTS.has(message.type)) this.#onRound(message);
    if (message.type === "latency") this.#stats = { ...this.#stats, edge: message };
    this.#emit(message.type === "latency" || message.type === "notice" ? message.type : "message", { channel, message });
  }

  /**
   * Tells a round event with the frame that it belongs to.
   *
   * @param {EdgeMessage} message
   */
  #onRound(message) {
    const isFirst = this.#rounds.length === 0;
    const timer = setTimeout(() => this.#tellRounds(undefined, message), ROUND_WAIT_MS);
    this.#rounds.push({ message, timer });
    if (typeof this.#video.requestVideoFrameCallback !== "function") return this.#tellRounds(undefined, message);
    if (!isFirst) return;
    // Its frame may be on screen already: the next one would be too late.
    const receiver = this.#session?.pc.getReceivers().find(({ track }) => track.kind === "video");
    const shown = receiver?.getSynchronizationSources()[0]?.rtpTimestamp;
    if (shown !== undefined) this.#tellRounds(shown);
    if (this.#rounds.length) this.#awaitFrame();
  }

  #awaitFrame() {
    this.#video.requestVideoFrameCallback((_, { rtpTimestamp }) => {
      this.#tellRounds(rtpTimestamp);
      if (this.#rounds.length) this.#awaitFrame();
    });
  }

  /**
   * Tells what is due with a frame on screen, and whatever came before `overdue`, that included.
   *
   * @param {number | undefined} rtpTimestamp of the frame; some browsers do not say
   * @param {EdgeMessage} [overdue]
   */
  #tellRounds(rtpTimestamp, overdue) {
    let forced = this.#rounds.findIndex(({ message }) => message === overdue);
    while (this.#rounds.length) {
      const { message, timer } = this.#rounds[0];
      const { rtpTs, captureTs } = message;
      const ticks = typeof rtpTs === "number" && rtpTimestamp !== undefined ? (rtpTimestamp - rtpTs) | 0 : undefined;
      if (forced < 0 && (ticks !== undefined ? ticks < 0 : overdue)) return;
      forced -= 1;
      clearTimeout(timer);
      this.#rounds.shift();
      const behind = ticks !== undefined ? ticks / TICKS_PER_MS : Math.max(0, Date.now() - Number(captureTs));
      this.#emit("round", { message, behindMs: behind > 0 && behind < 600_000 ? behind : 0 });
    }
  }

  #forgetRounds() {
    this.#rounds.forEach(({ timer }) => clearTimeout(timer));
    this.#rounds = [];
  }

  /** @param {EdgeMessage} notice */
  #onNotice(notice) {
    if (notice.code === "publisher_left") {
      this.#leftAt = performance.now();
      this.#setState({ state: "paused", reason: "publisher_left", message: "The picture continues here by itself as soon as the dealer is back." });
    } else if (notice.code === "publisher_returned") {
      this.#leftAt = null;
      this.#lastFrameAt = performance.now();
      if (this.#state === "paused") this.#setState({ state: this.#framesSeen ? "live" : "connecting" });
    } else if (notice.code === "session_ended") {
      this.#reconnect("session_ended");
    }
  }

  /** @param {WhepSession} session */
  #awaitFirstFrame(session) {
    const first = () => {
      if (this.#session !== session || this.#framesSeen) return;
      this.#stats = { ...this.#stats, firstFrameMs: Math.round(performance.now() - this.#postedAt) };
      this.#onFrames(1);
    };
    if (typeof this.#video.requestVideoFrameCallback === "function") this.#video.requestVideoFrameCallback(first);
    else this.#video.addEventListener("playing", first, { once: true });
  }

  /**
   * New pictures were decoded.
   *
   * @param {number} total in this session
   */
  #onFrames(total) {
    this.#framesSeen = total;
    this.#lastFrameAt = performance.now();
    this.#failures = 0;
    if (this.#leftAt !== null) {
      // What was on its way still arrives; pictures later than that mean that the table is there.
      if (this.#lastFrameAt - this.#leftAt < LATE_FRAMES_MS) return;
      this.#leftAt = null;
    }
    if (this.#state !== "live") this.#setState({ state: "live" });
  }

  async #watch() {
    const session = this.#session;
    if (!session || session.pc.connectionState !== "connected") return;
    this.#captureMeter.sample(this.#video, session.pc);
    const decoded = await framesDecoded(session.pc);
    if (this.#session !== session) return;
    if (decoded > this.#framesSeen) {
      this.#onFrames(decoded);
      return;
    }
    if (this.#leftAt !== null) return;
    const silence = performance.now() - this.#lastFrameAt;
    if (silence > RECONNECT_AFTER_STALL_MS) return this.#reconnect("stalled");
    if (silence <= STALL_AFTER_MS) return;
    if (this.#state !== "stalled") {
      this.#setState({ state: "stalled", reason: "no_frames", message: "The picture is late. One moment…" });
    }
    if (performance.now() - this.#askedAt < ASK_EVERY_MS) return;
    this.#askedAt = performance.now();
    if (await session.isGone() && this.#session === session) this.#reconnect("session_gone");
  }

  async #measure() {
    const session = this.#session;
    if (!session || session.pc.connectionState !== "connected") return;
    const report = await session.pc.getStats();
    const measured = this.#meter.read(report);
    if (!measured || this.#session !== session) return;
    this.#captureMeter.readClock(report, measured.rttMs ?? null);
    this.#stats = { ...this.#stats, ...measured, captureToShownMs: this.#captureMeter.latestMs };
    this.#emit("stats", this.#stats);
  }

  /** Tells the edge how the table plays. Totals are read at this moment: it counts beside them what it has offered by then. */
  async #report() {
    const session = this.#session;
    if (!session || session.qos.readyState !== "open") return;
    const totals = playbackTotals(await session.pc.getStats());
    if (!totals || this.#session !== session) return;
    const { fps, rttMs } = this.#stats;
    const { jitterBufferDelay, jitterBufferEmittedCount, ...counts } = totals;
    const [delay, emitted] = [jitterBufferDelay - this.#reported.delay, jitterBufferEmittedCount - this.#reported.emitted];
    this.#reported = { delay: jitterBufferDelay, emitted: jitterBufferEmittedCount };
    const wait = emitted > 0 ? Math.round((1000 * delay) / emitted) : undefined;
    const captureToShownMs = this.#captureMeter.takeMean();
    session.sendQos({ type: "stats", clientTs: Date.now(), fps, rttMs, jitterBufferDelay: wait, captureToShownMs, ...counts });
  }

  /** @param {StateDetail} detail */
  #setState(detail) {
    const changed = detail.state !== this.#state;
    this.#state = detail.state;
    this.#detail = detail;
    this.#emit("statechange", detail);
    if (changed) this.#emit(detail.state, detail);
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/**
 * What the edge is told, and what that is made of: totals of the session. `bytesReceived` is video, without headers and padding.
 *
 * @param {RTCStatsReport} report
 */
function playbackTotals(report) {
  /** @type {any} */ let video;
  /** @type {any} */ let audio;
  report.forEach((entry) => {
    if (entry.type === "inbound-rtp" && entry.kind === "video") video = entry;
    if (entry.type === "inbound-rtp" && entry.kind === "audio") audio = entry;
  });
  if (!video) return null;
  return {
    framesReceived: video.framesReceived,
    framesDecoded: video.framesDecoded,
    framesDropped: video.framesDropped,
    bytesReceived: video.bytesReceived,
    packetsLost: (video.packetsLost ?? 0) + (audio?.packetsLost ?? 0),
    jitterBufferDelay: video.jitterBufferDelay ?? 0,
    jitterBufferEmittedCount: video.jitterBufferEmittedCount ?? 0,
    freezeCount: video.freezeCount,
    freezesMs: video.totalFreezesDuration === undefined ? undefined : Math.round(1000 * video.totalFreezesDuration),
  };
}

/** Turns the browser's running totals into rates. */
class StatsMeter {
  /** @type {{ at: number, frames: number, bytes: number, delay: number, emitted: number, processing: number } | null} */
  #before = null;

  /**
   * @param {RTCStatsReport} report
   * @returns {Partial<PlayerStats> | null} `null` the first time: a rate needs two readings
   */
  read(report) {
    /** @type {any} */ let video;
    /** @type {any} */ let audio;
    /** @type {any} */ let transport;
    report.forEach((entry) => {
      if (entry.type === "inbound-rtp" && entry.kind === "video") video = entry;
      if (entry.type === "inbound-rtp" && entry.kind === "audio") audio = entry;
      if (entry.type === "transport") transport = entry;
    });
    if (!video) return null;
    const now = {
      at: video.timestamp,
      frames: video.framesDecoded ?? 0,
      bytes: (video.bytesReceived ?? 0) + (audio?.bytesReceived ?? 0),
      delay: video.jitterBufferDelay ?? 0,
      emitted: video.jitterBufferEmittedCount ?? 0,
      // From the first packet of a frame to its end of decoding; Firefox has it too.
      processing: video.totalProcessingDelay ?? video.jitterBufferDelay ?? 0,
    };
    const before = this.#before;
    this.#before = now;
    if (!before || now.at <= before.at) return null;
    const seconds = (now.at - before.at) / 1000;
    const frames = now.frames - before.frames;
    const emitted = now.emitted - before.emitted;
    const rttMs = roundTrip(report, transport);
    const jitterBufferMs = emitted > 0 ? Math.round((1000 * (now.delay - before.delay)) / emitted) : 0;
    return {
      fps: round(frames / seconds, 1),
      bitsPerSecond: Math.round((8 * (now.bytes - before.bytes)) / seconds),
      width: video.frameWidth ?? 0,
      height: video.frameHeight ?? 0,
      jitterBufferMs,
      packetsReceived: (video.packetsReceived ?? 0) + (audio?.packetsReceived ?? 0),
      packetsLost: (video.packetsLost ?? 0) + (audio?.packetsLost ?? 0),
      framesDecoded: now.frames,
      framesDropped: video.framesDropped ?? 0,
      freezeCount: video.freezeCount ?? 0,
      freezesMs: Math.round(1000 * (video.totalFreezesDuration ?? 0)),
      nackCount: video.nackCount ?? 0,
      pliCount: video.pliCount ?? 0,
      rttMs,
      latencyMs: rttMs === null || frames <= 0 ? null : Math.round(rttMs / 2 + (1000 * (now.processing - before.processing)) / frames),
      videoCodec: codecName(report, video.codecId),
      audioCodec: codecName(report, audio?.codecId),
      audioLevel: audio?.audioLevel ?? 0,
    };
  }
}

/**
 * How old pictures are when they are shown.
 *
 * When a frame was captured is in its abs-capture-time: by the clock of who captured it, and with that clock's offset to the edge's.
 * Ours is compared with the edge's by its sender reports, of which the one counts that took least, and by half the round trip. So
 * the result is as wrong as half of what the ways there and back differ by.
 */
class CaptureMeter {
  /** @type {{ behind: number, rtt: number }[]} */
  #readings = [];
  #sum = 0;
  #count = 0;
  #asked = false;
  /** The newest, in milliseconds. @type {number | null} */
  latestMs = null;

  /**
   * @param {RTCStatsReport} report
   * @param {number | null} rttMs
   */
  readClock(report, rttMs) {
    if (rttMs === null) return;
    report.forEach((entry) => {
      if (entry.type !== "remote-outbound-rtp" || entry.kind !== "video" || !entry.remoteTimestamp) return;
      this.#readings = [...this.#readings, { behind: entry.timestamp - entry.remoteTimestamp, rtt: rttMs }].slice(-CLOCK_READINGS);
    });
  }

  /**
   * Looks at the next picture that is shown. A page in the background shows none.
   *
   * @param {HTMLVideoElement} video
   * @param {RTCPeerConnection} pc
   */
  sample(video, pc) {
    if (this.#asked || typeof video.requestVideoFrameCallback !== "function") return;
    this.#asked = true;
    video.requestVideoFrameCallback((_, frame) => {
      this.#asked = false;
      const receiver = pc.getReceivers().find(({ track }) => track.kind === "video");
      const age = this.#age(frame, receiver?.getSynchronizationSources()[0]);
      if (age === null) return;
      this.latestMs = Math.round(age);
      this.#sum += age;
      this.#count += 1;
    });
  }

  /** The mean since the last call in milliseconds, `undefined` where nothing is known. */
  takeMean() {
    const mean = this.#count > 0 ? Math.round(this.#sum / this.#count) : undefined;
    this.#sum = 0;
    this.#count = 0;
    if (mean === undefined) this.latestMs = null;
    return mean;
  }

  /**
   * @param {VideoFrameCallbackMetadata} frame
   * @param {any} source W3C webrtc-extensions, RTCRtpContributingSource, has fields that TypeScript does not know
   * @returns {number | null}
   */
  #age(frame, source) {
    const { captureTimestamp, senderCaptureTimeOffset } = source ?? {};
    const known = [captureTimestamp, senderCaptureTimeOffset, frame.rtpTimestamp].every(Number.isFinite);
    if (!known || this.#readings.length === 0) return null;
    const behindEdge = least(this.#readings.map(({ behind }) => behind)) - least(this.#readings.map(({ rtt }) => rtt)) / 2;
    // The source speaks of a frame that may not be this one; both are on the RTP clock of 90 kHz, which wraps.
    const after = (((frame.rtpTimestamp ?? 0) - source.rtpTimestamp) | 0) / 90;
    const captured = captureTimestamp - senderCaptureTimeOffset + after - NTP_BEFORE_UNIX_MS + behindEdge;
    // `expectedDisplayTime` is a guess that may be before the frame came.
    const age = performance.timeOrigin + frame.presentationTime - captured;
    const inEra = age - NTP_ERA_MS * Math.round(age / NTP_ERA_MS);
    return inEra >= 0 && inEra <= OLDEST_PICTURE_MS ? inEra : null;
  }
}

/** @param {number[]} values */
function least(values) {
  return Math.min(...values);
}

/**
 * @param {RTCStatsReport} report
 * @param {any} transport
 * @returns {number | null} in milliseconds
 */
function roundTrip(report, transport) {
  /** @type {any} */ let pair = transport?.selectedCandidatePairId && report.get(transport.selectedCandidatePairId);
  if (!pair) {
    // Firefox has no transport entry.
    report.forEach((entry) => {
      if (entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded") pair = entry;
    });
  }
  return pair?.currentRoundTripTime === undefined ? null : round(1000 * pair.currentRoundTripTime, 1);
}

/**
 * @param {RTCStatsReport} report
 * @param {string | undefined} id
 */
function codecName(report, id) {
  /** @type {any} */ const codec = id && report.get(id);
  return codec?.mimeType ? String(codec.mimeType).split("/")[1] : "";
}

/** @param {RTCPeerConnection} pc */
async function framesDecoded(pc) {
  let frames = 0;
  (await pc.getStats()).forEach((entry) => {
    if (entry.type === "inbound-rtp" && entry.kind === "video") frames = entry.framesDecoded ?? 0;
  });
  return frames;
}

/**
 * @param {number} value
 * @param {number} digits
 */
function round(value, digits) {
  return Number(value.toFixed(digits));
}

/** @returns {PlayerStats} */
function emptyStats() {
  return {
    fps: 0, bitsPerSecond: 0, width: 0, height: 0, jitterBufferMs: 0, packetsReceived: 0, packetsLost: 0, framesDecoded: 0,
    framesDropped: 0, freezeCount: 0, freezesMs: 0, nackCount: 0, pliCount: 0, rttMs: null, latencyMs: null,
    captureToShownMs: null, firstFrameMs: null,
    videoCodec: "", audioCodec: "", audioLevel: 0, edge: null,
  };
}

/**
 * Capture times travel in an extension that browsers offer only on request.
 *
 * @param {RTCRtpTransceiver} transceiver
 */
function askForCaptureTime(transceiver) {
  /** @type {any} */ const extensible = transceiver;
  if (!extensible.setHeaderExtensionsToNegotiate || !extensible.getHeaderExtensionsToNegotiate) return;
  try {
    /** @type {{ uri: string, direction: string }[]} */
    const extensions = extensible.getHeaderExtensionsToNegotiate();
    for (const extension of extensions) {
      if (extension.uri === ABS_CAPTURE_TIME && extension.direction === "stopped") extension.direction = "sendrecv";
    }
    extensible.setHeaderExtensionsToNegotiate(extensions);
  } catch {
    // Without it latency is an estimate from round trip and buffer.
  }
}

/**
 * @param {string} url
 * @param {RequestInit} init
 * @param {number} [timeoutMs]
 */
async function request(url, init, timeoutMs = REQUEST_TIMEOUT_MS) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeoutMs);
  try {
    return await fetch(url, { ...init, signal: abort.signal });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * POSTs an offer. A redirect is followed by the browser, which leaves the token behind where it leads to another origin: a node that
 * asks for it there, and got none by the redirect's URL, gets it from us, since the one that has it already sent us there.
 *
 * @param {string} url
 * @param {string | undefined} token
 * @param {string} offer
 * @returns {Promise<Response>}
 */
export async function postOffer(url, token, offer) {
  const init = { method: "POST", headers: { "Content-Type": "application/sdp", ...authorization(token) }, body: offer };
  const response = await request(url, init);
  if (!token || response.status !== 401 || !response.redirected) return response;
  const [from, to] = [new URL(url), new URL(response.url)];
  // Never from HTTPS to HTTP, where others could read it, nor where another one has just been refused.
  const isSafe = !to.searchParams.has("access_token") && (to.protocol === "https:" || from.protocol === "http:");
  return to.origin !== from.origin && isSafe ? request(to.href, init) : response;
}

/**
 * @param {string | undefined} token
 * @returns {Record<string, string>}
 */
function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/**
 * `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
 *
 * @param {string | null} value
 * @returns {number | undefined} in milliseconds, at most five minutes
 */
function retryAfter(value) {
  if (!value) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 300_000) : undefined;
}

/**
 * RFC 9457.
 *
 * @param {string} body
 * @param {Response} response
 * @returns {Problem}
 */
function parseProblem(body, response) {
  if (/json/.test(response.headers.get("Content-Type") ?? "")) {
    try {
      return JSON.parse(body);
    } catch {
      // An error page in the guise of JSON.
    }
  }
  return { title: response.statusText, status: response.status };
}

/**
 * @param {unknown} data
 * @returns {EdgeMessage | null}
 */
function parseMessage(data) {
  if (typeof data !== "string") return null;
  try {
    const message = JSON.parse(data);
    return typeof message?.type === "string" ? message : null;
  } catch {
    return null;
  }
}

/** @param {string} name */
export function canPlay(name) {
  const codecs = globalThis.RTCRtpReceiver?.getCapabilities?.("video")?.codecs ?? [];
  return codecs.some((codec) => codec.mimeType.toLowerCase() === `video/${name.toLowerCase()}`);
}

/**
 * The gateway's text says `the table sends VP9 (profile-id=0), the offer has …`.
 *
 * @param {Problem} problem
 */
function explainCodec(problem) {
  const sent = /the table sends ([A-Za-z0-9]+)/.exec(problem.detail ?? "")?.[1] ?? "";
  const name = sent.replace(/^H26/, "H.26");
  if (!name) return "This browser and this table have no video format in common. Try another browser.";
  if (canPlay(sent)) return `This browser plays ${name}, but not the kind of it that this table sends. Try another browser.`;
  return `This browser cannot play ${name}, the video format of this table. Try another browser.`;
}

/**
 * @param {number} status
 * @param {string} detail
 */
function explainStatus(status, detail) {
  if (status === 401) return "You need to sign in again to watch this table.";
  if (status === 403) return "You are not allowed to watch this table.";
  if (status === 404) return "There is no table of this name.";
  return `The table refused the connection: ${detail}`;
}
