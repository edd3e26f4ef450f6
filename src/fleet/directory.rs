//! What the node knows of its tables and sessions: plain state behind the node's lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::Subject;
use crate::media::PlayoutDelay;
use crate::rtc::sdp::{FragmentTemplate, TableMedia};
use crate::shard::{Budget, Role, ShardId, SlotKey, TableId, TableSpec, TableState};

use super::admission::RefusedOffer;
use super::client::ClientNetwork;
use super::half_open::HalfOpen;
use super::session::SessionId;
use super::utilisation::Load;

/// Tables and sessions.
#[derive(Debug, Default)]
pub(super) struct Directory {
    tables: HashMap<String, Table>,
    names: Vec<String>,
    sessions: HashMap<SessionId, Session>,
    by_key: HashMap<(ShardId, SlotKey), SessionId>,
    /// Players by shard, those whose answer is being made included.
    players: HashMap<ShardId, usize>,
    /// Sessions that have not connected, those whose answer is being made included.
    pub(super) half_open: HalfOpen,
}

/// A table that somebody has published or configured.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) spec: TableSpec,
    pub(super) state: TableState,
    pub(super) media: TableMedia,
    publishers: Publishers,
}

/// Who has the right to send.
#[derive(Debug, Default)]
struct Publishers {
    /// A publisher inside this process.
    local: bool,
    /// A POST is being answered.
    reserved: bool,
    /// WHIP sessions: one that sends, and for a moment one that takes over from it.
    sessions: Vec<(SessionId, Option<Subject>)>,
}

impl Table {
    /// Reserves the right to publish for `publisher`, where it is known who that is; `false` if somebody else has it.
    ///
    /// It is free where nobody publishes. A publisher that fell silent loses it to the next; one that sends gives it up
    /// to the same subject alone, which is how an encoder that was started again gets past its own dead session.
    pub(super) fn reserve(&mut self, publisher: Option<&Subject>) -> bool {
        let Publishers { local, reserved, sessions } = &mut self.publishers;
        let silent = self.state == TableState::Paused;
        let same = publisher.is_some() && sessions.iter().any(|(_, holder)| holder.as_ref() == publisher);
        if *local || *reserved || !(sessions.is_empty() || silent || same) {
            return false;
        }
        *reserved = true;
        true
    }

    /// Nothing came of a reservation.
    pub(super) fn release(&mut self) {
        self.publishers.reserved = false;
    }

    /// The reservation was for a publisher inside this process, which stays.
    pub(super) fn publish_locally(&mut self) {
        self.publishers = Publishers { local: true, ..Publishers::default() };
    }
}

/// A session that was answered.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) role: Role,
    pub(super) table: String,
    pub(super) shard: ShardId,
    pub(super) key: SlotKey,
    pub(super) ice: IceSession,
    /// Whose half-open session it is; `None` once it has connected.
    pub(super) half_open: Option<ClientNetwork>,
}

/// What PATCH needs to know of a session.
#[derive(Debug)]
pub(super) struct IceSession {
    /// Strong, quotes included.
    pub(super) etag: String,
    /// The peer's.
    pub(super) remote_ufrag: Box<str>,
    pub(super) template: FragmentTemplate,
    pub(super) requests: Budget,
}

/// Values for a new table that must not be guessed or repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableSeed {
    pub(super) random: [u8; 12],
    pub(super) playout_delay: PlayoutDelay,
    pub(super) ring_packets: usize,
    pub(super) shards: u16,
    /// How many tables there may be: bounds the names that strangers can make up in the demo.
    pub(super) most_tables: usize,
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

    /// The table of this name, made on first use; `None` if there are too many. Its home goes around the shards.
    pub(super) fn ensure_table(&mut self, name: &str, seed: TableSeed) -> Option<&mut Table> {
        let id = TableId(self.names.len() as u32);
        let names = &mut self.names;
        if names.len() >= seed.most_tables && !self.tables.contains_key(name) {
            return None;
        }
        Some(self.tables.entry(name.to_owned()).or_insert_with(|| {
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
                publishers: Publishers::default(),
            }
        }))
    }

    /// The session of this role and table.
    pub(super) fn session(&self, role: Role, table: &str, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).filter(|s| s.role == role && s.table == table)
    }

    /// As [`Directory::session`], to change it.
    pub(super) fn session_mut(&mut self, role: Role, table: &str, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|s| s.role == role && s.table == table)
    }

    /// Lists a session that was answered. A publisher, known as `publisher`, has the right to its table from
    /// here until [`Directory::end_session`]: in one step, so that its end cannot come between.
    pub(super) fn add_session(&mut self, id: SessionId, session: Session, publisher: Option<Subject>) {
        if let Some(table) = self.tables.get_mut(&session.table).filter(|_| session.role == Role::Publisher) {
            table.publishers.reserved = false;
            table.publishers.sessions.push((id, publisher));
        }
        self.by_key.insert((session.shard, session.key), id);
        self.sessions.insert(id, session);
    }

    /// A session has completed DTLS: it is not half open any more.
    pub(super) fn session_connected(&mut self, shard: ShardId, key: SlotKey) {
        let session = self.by_key.get(&(shard, key)).and_then(|id| self.sessions.get_mut(id));
        if let Some(client) = session.and_then(|session| session.half_open.take()) {
            self.half_open.end(shard, client);
        }
    }

    /// Forgets a session that its shard has ended.
    pub(super) fn end_session(&mut self, shard: ShardId, key: SlotKey) {
        let Some(id) = self.by_key.remove(&(shard, key)) else { return };
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(client) = session.half_open {
            self.half_open.end(shard, client);
        }
        if session.role == Role::Player {
            self.release_place(shard);
        }
        if let Some(table) = self.tables.get_mut(&session.table) {
            table.publishers.sessions.retain(|(holder, _)| *holder != id);
        }
    }

    /// Takes a player's place on the shard that will then have the least load, of those with fewer than `most_players`;
    /// with equal load on the one with the fewest players. `loads` has one entry for each shard.
    ///
    /// The place is held until [`Directory::end_session`], or [`Directory::release_place`] if no session came of it.
    ///
    /// # Errors
    /// Every shard has `most_players`, or would use more than `most_utilisation` of its core.
    pub(super) fn take_place(
        &mut self,
        loads: &[Load],
        most_players: usize,
        most_utilisation: f64,
    ) -> Result<ShardId, RefusedOffer> {
        let players = |shard: ShardId| self.players.get(&shard).copied().unwrap_or(0);
        let (_, places, shard) = (0..)
            .map(ShardId)
            .zip(loads)
            .map(|(shard, load)| (load.with(players(shard) + 1), players(shard), shard))
            .filter(|(_, places, _)| *places < most_players)
            .min_by(|(one, few, _), (other, many, _)| one.total_cmp(other).then(few.cmp(many)))
            .filter(|(load, ..)| *load <= most_utilisation)
            .ok_or_else(|| {
                let full = (0..).map(ShardId).take(loads.len()).all(|shard| players(shard) >= most_players);
                if full { RefusedOffer::PlayersShard } else { RefusedOffer::ShardUtilisation }
            })?;
        self.players.insert(shard, places + 1);
        Ok(shard)
    }

    /// Gives back a place that no session took.
    pub(super) fn release_place(&mut self, shard: ShardId) {
        if let Some(players) = self.players.get_mut(&shard) {
            *players = players.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::half_open::HalfOpenLimits;

    const SEED: TableSeed = TableSeed {
        random: [7; 12],
        playout_delay: PlayoutDelay { min_ms: 0, max_ms: 0 },
        ring_packets: 256,
        shards: 2,
        most_tables: 3,
    };

    fn session(role: Role, shard: ShardId, slot: u32) -> Session {
        let ice = IceSession {
            etag: "\"1\"".into(),
            remote_ufrag: "them".into(),
            template: FragmentTemplate::of_answer(""),
            requests: Budget::new(1, Duration::from_secs(1)),
        };
        Session { role, table: "a".into(), shard, key: SlotKey { slot, generation: 1 }, ice, half_open: None }
    }

    #[test]
    fn players_go_to_the_emptiest_shard_until_all_are_full() {
        let mut directory = Directory::default();
        let place = |directory: &mut Directory| directory.take_place(&[Load::default(); 2], 2, 1.0);
        let placed: Vec<_> = (0..5).map(|_| place(&mut directory)).collect();
        let (first, second) = (Ok(ShardId(0)), Ok(ShardId(1)));
        assert_eq!(placed, [first, second, first, second, Err(RefusedOffer::PlayersShard)]);
        directory.release_place(ShardId(1));
        assert_eq!(place(&mut directory), Ok(ShardId(1)), "a place that no session took is free again");
        let ended = session(Role::Player, ShardId(0), 4);
        let (shard, key) = (ended.shard, ended.key);
        directory.add_session(SessionId([1; 16]), ended, None);
        directory.end_session(shard, key);
        directory.end_session(shard, key);
        assert_eq!(place(&mut directory), Ok(ShardId(0)), "a session gives its place back");
        assert_eq!(place(&mut directory), Err(RefusedOffer::PlayersShard), "once");
    }

    #[test]
    fn players_go_where_the_least_load_is_until_the_cores_are_used() {
        let mut directory = Directory::default();
        let mut place = |loads: &[Load]| directory.take_place(loads, 1000, 0.853);
        let measured = [Load::new(0.6, 100.0), Load::new(0.3, 0.0)];
        assert_eq!(place(&measured), Ok(ShardId(1)), "the measured load decides, not the number of players");
        // A crowd between two measurements: each of them counts at once.
        let crowd: Vec<_> = (0..1000).map(|_| place(&[Load::new(0.6, 100.0), Load::new(0.5, 100.0)])).collect();
        let taken = |shard| crowd.iter().filter(|placed| **placed == Ok(ShardId(shard))).count();
        // (0.853 - 0.6) / 0.006 beyond the 100 that were measured, and (0.853 - 0.5) / 0.005, one of whom is there.
        assert_eq!((taken(0), taken(1)), (142, 169));
        assert_eq!(crowd.last(), Some(&Err(RefusedOffer::ShardUtilisation)));
        assert_eq!(place(&[Load::new(0.9, 300.0), Load::new(0.1, 20.0)]), Ok(ShardId(1)), "load that goes makes room");
    }

    const OLD: (SessionId, u32) = (SessionId([1; 16]), 1);
    const NEW: (SessionId, u32) = (SessionId([2; 16]), 2);

    fn publish(directory: &mut Directory, (id, slot): (SessionId, u32), publisher: Option<&Subject>) {
        assert!(directory.ensure_table("a", SEED).unwrap().reserve(publisher));
        directory.add_session(id, session(Role::Publisher, ShardId(0), slot), publisher.cloned());
    }

    fn end(directory: &mut Directory, (_, slot): (SessionId, u32)) {
        directory.end_session(ShardId(0), SlotKey { slot, generation: 1 });
    }

    #[test]
    fn a_session_is_half_open_until_it_connects_or_ends() {
        let mut directory = Directory::default();
        let client = ClientNetwork::of([192, 0, 2, 1].into());
        let limits = HalfOpenLimits { per_shard: 2, per_client: 2 };
        let keys = [1, 2].map(|slot| {
            let session = Session { half_open: Some(client), ..session(Role::Player, ShardId(0), slot) };
            let key = session.key;
            directory.half_open.begin(ShardId(0), client, limits).unwrap();
            directory.add_session(SessionId([slot as u8; 16]), session, None);
            key
        });
        assert_eq!(directory.half_open.count(), 2);
        directory.session_connected(ShardId(0), keys[0]);
        directory.session_connected(ShardId(0), keys[0]);
        assert_eq!(directory.half_open.count(), 1);
        directory.end_session(ShardId(0), keys[0]);
        assert_eq!(directory.half_open.count(), 1, "it was not half open any more");
        directory.end_session(ShardId(0), keys[1]);
        assert_eq!(directory.half_open.count(), 0);
    }

    fn subject(name: &str) -> Subject {
        Subject::new(name).unwrap()
    }

    #[test]
    fn a_live_table_is_published_again_by_the_same_subject_alone() {
        let (studio, other) = (subject("studio-1"), subject("studio-2"));
        let mut directory = Directory::default();
        publish(&mut directory, OLD, Some(&studio));
        let table = directory.ensure_table("a", SEED).unwrap();
        table.state = TableState::Live;
        assert!(!table.reserve(Some(&other)) && !table.reserve(None));
        assert!(table.reserve(Some(&studio)));
        assert!(!table.reserve(Some(&studio)), "while that one is answered");
        table.release();
        publish(&mut directory, NEW, Some(&studio));
        end(&mut directory, NEW);
        let table = directory.ensure_table("a", SEED).unwrap();
        assert!(!table.reserve(Some(&other)), "the old one has it still");
        end(&mut directory, OLD);
        assert!(directory.ensure_table("a", SEED).unwrap().reserve(Some(&other)));
    }

    #[test]
    fn without_a_token_nobody_proves_anything() {
        let mut directory = Directory::default();
        publish(&mut directory, OLD, None);
        assert!(!directory.ensure_table("a", SEED).unwrap().reserve(None));
    }

    #[test]
    fn a_silent_publisher_loses_its_table_to_the_next() {
        let mut directory = Directory::default();
        publish(&mut directory, OLD, Some(&subject("one")));
        directory.ensure_table("a", SEED).unwrap().state = TableState::Paused;
        publish(&mut directory, NEW, Some(&subject("two")));
        end(&mut directory, OLD);
        let table = directory.ensure_table("a", SEED).unwrap();
        table.state = TableState::Live;
        assert!(!table.reserve(Some(&subject("one"))), "the replaced one has no say");
        end(&mut directory, NEW);
        assert!(directory.session(Role::Publisher, "a", NEW.0).is_none());
        assert!(directory.ensure_table("a", SEED).unwrap().reserve(None));
    }

    #[test]
    fn a_publisher_inside_the_process_stays() {
        let mut directory = Directory::default();
        let table = directory.ensure_table("a", SEED).unwrap();
        assert!(table.reserve(None));
        table.publish_locally();
        table.state = TableState::Paused;
        assert!(!table.reserve(None) && !table.reserve(Some(&subject("one"))));
    }

    #[test]
    fn tables_are_bounded_and_keep_their_ssrcs() {
        let mut directory = Directory::default();
        let spec = directory.ensure_table("a", SEED).unwrap().spec.clone();
        let ssrcs = [spec.video_ssrc, spec.video_rtx_ssrc, spec.audio_ssrc];
        assert!(ssrcs[0] != ssrcs[1] && ssrcs[1] != ssrcs[2] && ssrcs[0] != ssrcs[2]);
        assert!(directory.ensure_table("b", SEED).is_some() && directory.ensure_table("c", SEED).is_some());
        assert!(directory.ensure_table("d", SEED).is_none());
        assert_eq!(directory.ensure_table("a", SEED).unwrap().spec, spec, "known ones stay");
    }
}
