import { displayName, element, fetchTables, formatCodec, repeat } from "/assets/shared.js";

const list = element("tables", HTMLDivElement);

/** @param {import("/assets/shared.js").TableStatus} table */
function card(table) {
  const link = document.createElement("a");
  link.className = "card";
  link.href = `/play/${encodeURIComponent(table.name)}`;
  const name = document.createElement("strong");
  name.textContent = displayName(table.name);
  const state = document.createElement("span");
  state.className = "pill";
  state.dataset.state = table.live ? "live" : "off";
  state.textContent = table.live ? "Live" : "Not live";
  const facts = document.createElement("span");
  const codecs = [table.videoCodec, table.audioCodec].map(formatCodec).filter(Boolean).join(" and ");
  facts.textContent = [codecs, `${table.players} watching`].filter(Boolean).join(" · ");
  link.append(name, state, facts);
  return link;
}

repeat(3000, async () => {
  try {
    const tables = await fetchTables();
    if (tables.length) list.replaceChildren(...tables.map(card));
  } catch {
    // The links that the page came with stay.
  }
});
