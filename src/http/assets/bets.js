// Bets on the demo's wheel: chips, spots, countdown, what became of them.

import { element } from "/assets/shared.js";

/** @typedef {import("/sdk/player.js").TablesidePlayer} TablesidePlayer */
/** @typedef {import("/sdk/player.js").BetOutcome} BetOutcome */

const CHIPS = [1, 5, 25, 100];
const SPOTS = ["low", "even", "red", "black", "odd", "high"];
/** Lines of one's last bets, and of the last rounds. */
const SHOWN = 6;

/** What the bet service and the edge give as reasons. */
const REASONS = {
  round_closed: "too late for this round",
  unknown_round: "that round is over",
  limit_exceeded: "over the table's limit",
  insufficient_balance: "not enough credits",
  too_many_bets: "too many bets in this round",
  table_full: "the table is full",
  rate_limited: "too fast",
  too_many_waiting: "too many bets are waiting",
  unavailable: "the bet service cannot be reached",
  not_sent: "no connection",
};

/**
 * Shows the card once a round of the wheel is told, and plays it.
 *
 * @param {TablesidePlayer} player
 */
export function showBets(player) {
  const card = element("bets", HTMLElement);
  const countdown = element("countdown", HTMLElement);
  const spots = element("spots", HTMLElement);
  let stake = CHIPS[1];
  /** @type {string | null} */
  let round = null;
  let closesAt = 0;
  /** Stakes that were accepted in this round, by spot. @type {Map<string, number>} */
  const placed = new Map();

  element("chips", HTMLElement).append(...CHIPS.map((value) => {
    const chip = button(String(value), () => {
      stake = value;
      for (const other of card.querySelectorAll("[role=radio]")) other.setAttribute("aria-checked", String(other === chip));
    });
    chip.setAttribute("role", "radio");
    chip.setAttribute("aria-checked", String(value === stake));
    return chip;
  }));
  spots.append(...SPOTS.map((spot) => {
    const place = button(spot, () => bet(spot));
    place.dataset.spot = spot;
    return place;
  }));

  /** @param {string} spot */
  async function bet(spot) {
    if (!round) return;
    const [roundId, amount] = [round, stake];
    const line = document.createElement("li");
    line.textContent = `${amount} on ${spot} …`;
    const slip = element("slip", HTMLOListElement);
    slip.prepend(line);
    while (slip.children.length > SHOWN) slip.lastElementChild?.remove();
    const outcome = await player.bet({ roundId, payload: { spot, amount } });
    line.dataset.status = outcome.status;
    line.textContent = `${amount} on ${spot} · ${words(outcome)}`;
    if (outcome.status === "accepted" && roundId === round) {
      placed.set(spot, (placed.get(spot) ?? 0) + amount);
      refresh();
    }
  }

  function refresh() {
    for (const place of spots.querySelectorAll("button")) {
      const spot = place.dataset.spot ?? "";
      const amount = placed.get(spot);
      place.textContent = amount ? `${spot} · ${amount}` : spot;
      place.disabled = !round;
    }
  }

  player.addEventListener("round", ({ detail: { message, behindMs } }) => {
    if (message.type === "round.open") {
      if (message.game !== "wheel") return;
      card.hidden = false;
      round = String(message.roundId);
      closesAt = performance.now() + Number(message.closesTs) - Number(message.captureTs) - behindMs;
      placed.clear();
      say("Place your bets");
    } else if (message.type === "round.close") {
      round = null;
      say("No more bets");
    } else {
      round = null;
      if (message.type === "void") showVoid();
      else showResult(Number(message.number), String(message.colour), /** @type {string[]} */ (message.winners));
    }
    refresh();
    tick();
  });

  /**
   * @param {number} number
   * @param {string} colour
   * @param {string[]} winners
   */
  function showResult(number, colour, winners) {
    const paid = [...placed].reduce((sum, [spot, amount]) => sum + (winners.includes(spot) ? 2 * amount : 0), 0);
    const net = paid - staked();
    const mine = !staked() ? "" : net > 0 ? ` · you win ${net}` : net < 0 ? ` · you lose ${-net}` : " · you are even";
    say(`${number} ${colour}${mine}`);
    keep(String(number), colour, net);
  }

  function showVoid() {
    say("The round is void; stakes are returned");
    keep("void", "none", 0);
  }

  function staked() {
    return [...placed.values()].reduce((sum, amount) => sum + amount, 0);
  }

  /**
   * A line in the history: how a round ended, what was staked in it, and what came of that.
   *
   * @param {string} ending
   * @param {string} colour
   * @param {number} net
   */
  function keep(ending, colour, net) {
    const line = document.createElement("li");
    const disc = document.createElement("span");
    disc.textContent = ending;
    disc.dataset.colour = colour;
    const stakes = document.createElement("span");
    stakes.textContent = staked() ? `staked ${staked()}` : "no bets";
    const outcome = document.createElement("span");
    if (staked()) outcome.textContent = net > 0 ? `+${net}` : net < 0 ? `−${-net}` : "even";
    outcome.dataset.net = net > 0 ? "won" : net < 0 ? "lost" : "even";
    line.append(disc, stakes, outcome);
    const rounds = element("rounds", HTMLOListElement);
    rounds.prepend(line);
    while (rounds.children.length > SHOWN) rounds.lastElementChild?.remove();
  }

  /** @param {string} text */
  function say(text) {
    element("outcome", HTMLElement).textContent = text;
  }

  function tick() {
    const left = Math.max(0, Math.ceil((closesAt - performance.now()) / 1000));
    countdown.textContent = round ? `${left} s` : "closed";
  }
  setInterval(tick, 250);
}

/**
 * @param {string} text
 * @param {() => void} act
 */
function button(text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

/** @param {BetOutcome} outcome */
function words({ status, reason, totalMs }) {
  const why = reason ? `: ${REASONS[/** @type {keyof typeof REASONS} */ (reason)] ?? reason}` : "";
  const time = totalMs === undefined ? "" : ` (${Math.round(totalMs)} ms)`;
  return `${status}${why}${time}`;
}
