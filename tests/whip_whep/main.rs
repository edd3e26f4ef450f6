//! WHIP and WHEP by their texts and by what clients do: RFC 9725, draft-ietf-wish-whep-03, docs/whip-whep.md.

#[path = "../http_support/mod.rs"]
mod http_support;

mod clients;
mod figures;
mod gateway;
mod publishers;
mod status_codes;
mod tokens;
