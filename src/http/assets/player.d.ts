/** What the player is doing. Each is also the name of an event that fires when it begins. */
export type PlayerState =
  /** `start` was not called yet. */
  | "idle"
  /** Asking for the table, or connecting again; `reason` says why if it is not the first time. */
  | "connecting"
  /** Pictures arrive. */
  | "live"
  /** The publisher has left; the same session continues when it returns. */
  | "paused"
  /** Nobody publishes the table; asked again after `retryInMs`. */
  | "waiting"
  /** Connected, but no picture for two seconds. */
  | "stalled"
  /** The server said no: `message` for the customer, `problem` for the engineer. Without `retryInMs` it is final. */
  | "refused"
  /** This browser or network cannot play the table; `message` says why. Without `retryInMs` it is final. */
  | "unplayable"
  /** `stop` was called. */
  | "stopped";

export interface PlayerOptions {
  /** The WHEP endpoint, absolute or relative to the page. */
  url: string;
  /** Shows the table. Give it `autoplay`, `muted` and `playsinline`. */
  video: HTMLVideoElement;
  /** The token (docs/tokens.md), or what gives one: it is asked before each connection, so that one that has expired is replaced. */
  token?: string | (() => string | Promise<string>);
  /** Who plays, where the table knows no tokens: the demo. An id that the page keeps, so that a repeated bet is known after a reload. */
  playerId?: string;
  /**
   * The highest layer to be given, of a simulcast or of one encoding's spatial layers, 0 to 5, where 0 is the least
   * (docs/whip-whep.md): of a small picture on the page, or where data is dear. The table may have a lower one; without it, it is the table's alone. Refused with `invalid-max-layer` where it is
   * none of these.
   */
  maxLayer?: number;
}

/** A bet; see docs/bets.md. */
export interface Bet {
  /** From the newest `round.open`. */
  roundId: string;
  /** What the bet service wants to know. */
  payload: unknown;
  /** Names the bet; a random one if left out. */
  betId?: string;
  /** Names the attempt; a random one if left out. Give both to repeat a bet of a page that was left. */
  idempotencyKey?: string;
  /** The trace that it stands in, of a page that has traces of its own: W3C Trace Context, version 00. A new one if it is not. */
  traceparent?: string;
}

/** What became of a bet. */
export interface BetOutcome {
  betId: string;
  /** `unconfirmed` after a minute without an outcome, or at `stop`: it may have been taken. */
  status: "accepted" | "rejected" | "refused" | "unconfirmed";
  /** Of the bet service or of the edge; `not_sent` for a bet that never left the page. */
  reason?: string;
  /** Where the time went, by the edge. */
  timing?: { receivedTs: number; edgeMs: number; upstreamMs?: number; lastMileMs?: number };
  /** From sending to the outcome by this page's clock, in milliseconds; left out for a bet that was sent more than once. */
  totalMs?: number;
  /** By which the log lines and traces of the edge and of the bet service are found (docs/traces.md). */
  traceId: string;
}

/** RFC 9457 problem document. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
}

export interface StateDetail {
  state: PlayerState;
  /** Stable and short: `not_live`, `full`, `no_common_codec`, `ice_failed`, `publisher_left`, `connection_lost`, `session_gone`, `http_404` … */
  reason?: string;
  /** For a customer. */
  message?: string;
  /** When the next attempt is due, in milliseconds from now. */
  retryInMs?: number;
  /** HTTP status, where one was the cause. */
  status?: number;
  problem?: Problem;
}

/** Refreshed every second. Rates are of the last second, counts of the session. */
export interface PlayerStats {
  fps: number;
  /** Video and audio payload. */
  bitsPerSecond: number;
  width: number;
  height: number;
  /** Mean time a video frame waited in the jitter buffer. */
  jitterBufferMs: number;
  packetsReceived: number;
  packetsLost: number;
  framesDecoded: number;
  framesDropped: number;
  freezeCount: number;
  freezesMs: number;
  nackCount: number;
  pliCount: number;
  /** Round trip of the connectivity checks. */
  rttMs: number | null;
  /** An estimate, edge to decoded picture: half the round trip plus the time from a frame's first packet to its decoding. */
  latencyMs: number | null;
  /**
   * How old the picture is when the browser hands it to the compositor, from its capture, by abs-capture-time; `null` where
   * browser or table do not tell (Chromium does). Contains neither the camera's own delay nor the way from the publisher to the
   * edge at its quickest.
   */
  captureToShownMs: number | null;
  /** From the POST to the first picture shown. */
  firstFrameMs: number | null;
  videoCodec: string;
  audioCodec: string;
  /** 0 to 1. */
  audioLevel: number;
  /** The last `latency` message of the edge. */
  edge: EdgeMessage | null;
}

/** One message of a data channel. */
export interface EdgeMessage {
  type: string;
  code?: string;
  [field: string]: unknown;
}

export interface PlayerEventMap {
  statechange: CustomEvent<StateDetail>;
  idle: CustomEvent<StateDetail>;
  connecting: CustomEvent<StateDetail>;
  live: CustomEvent<StateDetail>;
  paused: CustomEvent<StateDetail>;
  waiting: CustomEvent<StateDetail>;
  stalled: CustomEvent<StateDetail>;
  refused: CustomEvent<StateDetail>;
  unplayable: CustomEvent<StateDetail>;
  stopped: CustomEvent<StateDetail>;
  stats: CustomEvent<PlayerStats>;
  /** A `notice` of the edge. */
  notice: CustomEvent<{ channel: string; message: EdgeMessage }>;
  /** A `latency` message of the edge. */
  latency: CustomEvent<{ channel: string; message: EdgeMessage }>;
  /**
   * What happened in the table's round, with the frame on screen that shows it, or within two seconds where the browser does not say which
   * frame that is. `behindMs`: how long ago it was for this picture, of some time for the current round of who comes later.
   */
  round: CustomEvent<{ message: EdgeMessage; behindMs: number }>;
  /** Any message but the two above, as it comes: round events, acknowledgements of bets. */
  message: CustomEvent<{ channel: string; message: EdgeMessage }>;
}

export class TablesidePlayer extends EventTarget {
  constructor(options: PlayerOptions);
  readonly state: PlayerState;
  readonly detail: StateDetail;
  readonly stats: PlayerStats;
  readonly peerConnection: RTCPeerConnection | null;
  /** The channel for bet signals, `null` while it is not open. */
  readonly bets: RTCDataChannel | null;
  /**
   * Places a bet and resolves with what became of it. Until then it is sent again where it is unconfirmed, and after a reconnect, with
   * the same key. Never rejects; throws where `betId` waits for its outcome already.
   */
  bet(bet: Bet): Promise<BetOutcome>;
  /** Begins, or begins anew after `stop`, `refused` or `unplayable`. Resolves once the first attempt was made. */
  start(): Promise<void>;
  /** Ends the session and stays quiet until `start`. Resolves once the server knows, or does not answer. */
  stop(): Promise<void>;
  addEventListener<K extends keyof PlayerEventMap>(
    type: K,
    listener: (event: PlayerEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

/** POSTs an offer to a WHIP or WHEP endpoint, and again to where a redirect led if the token was left behind on the way. */
export function postOffer(url: string, token: string | undefined, offer: string): Promise<Response>;

/** Whether this browser can receive a video codec over WebRTC: `H264`, `VP8`. */
export function canPlay(name: string): boolean;
