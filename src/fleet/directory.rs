//! What the node knows of its tables and sessions: plain state behind the node's lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::media::PlayoutDelay;
use crate::rtc::sdp::TableMedia;
use crate::shard::{Role, ShardId, SlotKey, TableId, TableSpec, TableState};

use super::node::SessionId;

/// Tables and sessions.
#[derive(Debug, Default)]
pub(super) struct Directory {
    tables: HashMap<String, Table>,
    names: Vec<String>,
    sessions: HashMap<SessionId, Session>,
    by_key: HashMap<(ShardId, SlotKey), SessionId>,
}

/// A table that somebody has published or configured.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) spec: TableSpec,
    pub(super) state: TableState,
    pub(super) media: TableMedia,
    pub(super) publisher: Publisher,
}

/// Who has the right to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publisher {
    /// Nobody.
    None,
    /// A POST is being answered.
    Reserved,
    /// A WHIP session.
    Session(SessionId),
    /// A publisher inside this process.
    Local,
}

/// A session that was answered.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) role: Role,
    pub(super) table: String,
    pub(super) shard: ShardId,
    pub(super) key: SlotKey,
    pub(super) etag: String,
}

/// Values for a new table that must not be guessed or repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableSeed {
    pub(super) random: [u8; 12],
    pub(super) playout_delay: PlayoutDelay,
    pub(super) ring_packets: usize,
    pub(super) shards: u16,
}

impl Directory {
    pub(super) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    pub(super) fn table_mut(&mut self, name: &str) -> Option<&mut Table> {
        self.tables.get_mut(name)
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    pub(super) fn table_by_id(&mut self, id: TableId) -> Option<&mut Table> {
        let name = self.names.get(id.0 as usize)?;
        self.tables.get_mut(name)
    }

    /// The table of this name, made on first use. Its home goes around the shards.
    pub(super) fn ensure_table(&mut self, name: &str, seed: TableSeed) -> &mut Table {
        let id = TableId(self.names.len() as u32);
        let names = &mut self.names;
        self.tables.entry(name.to_owned()).or_insert_with(|| {
            names.push(name.to_owned());
            // RFC 3550 §8: SSRCs are random; three different ones here.
            let ssrc = |n: usize| u32::from_be_bytes(std::array::from_fn(|i| seed.random[4 * n + i])) & !3 | n as u32;
            Table {
                spec: TableSpec {
                    id,
                    name: Arc::from(name),
                    home: ShardId((id.0 % u32::from(seed.shards.max(1))) as u16),
                    video_ssrc: ssrc(0),
                    video_rtx_ssrc: ssrc(1),
                    audio_ssrc: ssrc(2),
                    playout_delay: seed.playout_delay,
                    ring_packets: seed.ring_packets,
                },
                state: TableState::Absent,
                media: TableMedia::default(),
                publisher: Publisher::None,
            }
        })
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn add_session(&mut self, id: SessionId, session: Session) {
        self.by_key.insert((session.shard, session.key), id);
        self.sessions.insert(id, session);
    }

    /// Forgets a session that its shard has ended.
    pub(super) fn end_session(&mut self, shard: ShardId, key: SlotKey) {
        let Some(id) = self.by_key.remove(&(shard, key)) else { return };
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(table) = self.tables.get_mut(&session.table)
            && table.publisher == Publisher::Session(id)
        {
            table.publisher = Publisher::None;
        }
    }

    /// Players per shard.
    pub(super) fn players_on(&self, shard: ShardId) -> usize {
        self.sessions.values().filter(|s| s.role == Role::Player && s.shard == shard).count()
    }
}
