//! What a second shard brings: one shard with some players against two on a core each, with as many players each, of one table.
//!
//! As in the node each shard has a thread and a socket of its own, and what crosses is a message for each packet, once for all
//! players there. What counts is time on the wall: the publisher sends as fast as the slower of the two follows.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tableside::fanout::SendBatch;
use tableside::net::{SendOutcome, ShardSocket, UdpOptions};
use tableside::shard::{PeerMessage, Shard, ShardEvent, ShardId, TableId};

use crate::gateway::unpaced;
use crate::reference::viewer::HEADER_LEN;
use crate::turns::Schedule;
use crate::world::{Dealer, World};

/// Packets that may wait for the other shard.
const QUEUE: usize = 256;

/// What the other shard is told.
enum Word {
    Peer(Instant, PeerMessage),
    /// Say so when all before has been sent.
    Finish,
}

/// A shard and its socket.
struct Half {
    shard: Shard,
    socket: ShardSocket,
    batch: SendBatch,
    outcome: SendOutcome,
}

impl Half {
    fn new(shard: Shard) -> io::Result<Self> {
        let (socket, _) = ShardSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into(), &UdpOptions::default())?;
        Ok(Self { shard, socket, batch: Shard::send_batch(), outcome: SendOutcome::default() })
    }

    /// Sends all there is to send; what the other shard is to have comes out.
    fn send(&mut self, now: Instant, mut tell: impl FnMut(ShardId, PeerMessage)) {
        self.shard.handle_timeout(now);
        while self.shard.poll_transmit(now, &mut self.batch) {
            self.outcome += self.socket.send_batch(&self.batch);
        }
        while let Some(event) = self.shard.poll_event() {
            if let ShardEvent::Peer { to, message } = event {
                tell(to, message);
            }
        }
    }
}

/// A table on one shard or two, with its players.
struct Table {
    home: Half,
    /// The other shard's thread, and what it has sent so far.
    other: Option<(SyncSender<Word>, Receiver<SendOutcome>)>,
    id: TableId,
    dealer: Dealer,
    /// How far the shards' time is ahead of ours: what happened before the measurement took virtual time.
    lead: Duration,
}

impl Table {
    /// The players by turns on each of `shards`. They have had a keyframe and then as much as fills the rings.
    fn new(players: &[SocketAddr], shards: u16, packets: u16, bytes: u16) -> io::Result<Self> {
        let mut world = World::with(shards, unpaced);
        let (id, ring_packets) = (world.table.id, world.table.ring_packets);
        // First, as in the node: a player who connects to a table without tracks is let go.
        world.shards[0].add_local_publisher(world.now, &world.table, Dealer::media());
        for (n, address) in players.iter().enumerate() {
            world.add_player_at(n % usize::from(shards), *address);
        }
        world.connect_all();
        let mut now = world.now;
        let mut halves = world.shards.into_iter().map(Half::new).collect::<io::Result<Vec<_>>>()?;
        let mut dealer = Dealer::new(packets, usize::from(bytes) - HEADER_LEN);
        for n in 0..(2 * ring_packets).div_ceil(packets.into()) {
            for packet in dealer.next_frame(n == 0) {
                halves[0].shard.handle_local(now, id, packet);
            }
            // The keyframe reaches the players as joiners, at the pace of a replay.
            for _ in 0..if n == 0 { packets } else { 1 } {
                now += Duration::from_millis(33);
                exchange(&mut halves, now);
            }
        }
        let other = (shards > 1).then(|| halves.pop().map(start)).flatten();
        let lead = now.saturating_duration_since(Instant::now());
        Ok(Self { home: halves.remove(0), other, id, dealer, lead })
    }

    /// Frames as fast as they go: packets sent for each second.
    fn turn(&mut self, time: Duration) -> io::Result<f64> {
        let (before, begin) = (self.finish()?, Instant::now());
        while begin.elapsed() < time {
            let now = Instant::now() + self.lead;
            for packet in self.dealer.next_frame(false) {
                self.home.shard.handle_local(now, self.id, packet);
            }
            let other = &self.other;
            self.home.send(now, |_, message| {
                if let Some((words, _)) = other {
                    // Its end shows in `finish`.
                    let _ = words.send(Word::Peer(now, message));
                }
            });
        }
        Ok((self.finish()? - before) as f64 / begin.elapsed().as_secs_f64())
    }

    /// Packets sent, once all is.
    fn finish(&self) -> io::Result<u64> {
        let mut outcomes = vec![self.home.outcome];
        if let Some((words, finished)) = &self.other {
            let gone = |_| io::Error::other("the other shard's thread is gone");
            words.send(Word::Finish).map_err(|_| gone(()))?;
            outcomes.push(finished.recv().map_err(|_| gone(()))?);
        }
        if outcomes.iter().any(|o| o.dropped_buffer_full + o.dropped_error > 0) {
            return Err(io::Error::other("packets were dropped: the figures are worth nothing"));
        }
        Ok(outcomes.iter().map(|outcome| outcome.datagrams).sum())
    }
}

/// Both send what they have, and what the first has for the second arrives.
fn exchange(halves: &mut [Half], now: Instant) {
    for n in 0..halves.len() {
        let mut messages = Vec::new();
        halves[n].send(now, |to, message| messages.push((to, message)));
        for (to, message) in messages {
            halves[usize::from(to.0)].shard.handle_peer(now, message);
        }
    }
}

/// The other shard's thread. It ends with the table.
fn start(mut half: Half) -> (SyncSender<Word>, Receiver<SendOutcome>) {
    let (words, inbox) = sync_channel(QUEUE);
    let (finished, outcome): (Sender<SendOutcome>, _) = channel();
    thread::spawn(move || {
        while let Ok(first) = inbox.recv() {
            let mut now = None;
            let mut finish = false;
            for word in std::iter::once(first).chain(inbox.try_iter().take(QUEUE)) {
                match word {
                    Word::Peer(at, message) => {
                        half.shard.handle_peer(at, message);
                        now = Some(at);
                    }
                    Word::Finish => finish = true,
                }
            }
            if let Some(now) = now {
                half.send(now, |_, _| {});
            }
            if finish && finished.send(half.outcome).is_err() {
                return;
            }
        }
    });
    (words, outcome)
}

/// Prints what one shard does and what two do, by turns.
///
/// # Errors
/// No socket can be bound, or packets were dropped.
pub fn run(players: &[SocketAddr], packets: u16, bytes: u16, schedule: Schedule) -> io::Result<()> {
    let half = &players[..players.len() / 2];
    let mut one = Table::new(half, 1, packets, bytes)?;
    let mut two = Table::new(players, 2, packets, bytes)?;
    let mut rows = Vec::new();
    for round in 0..=schedule.rounds {
        let turn = [one.turn(schedule.turn)?, two.turn(schedule.turn)?];
        // The first warms up.
        if round > 0 {
            rows.push(turn);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        [values[0], values[values.len() / 2], values[values.len() - 1]]
    };
    println!("{:<44} {:>10} {:>10} {:>10}", "packets a second", "min", "median", "max");
    for (n, name) in ["one shard", "two shards, twice the players"].into_iter().enumerate() {
        let [least, middle, most] = median(rows.iter().map(|row| row[n]).collect());
        println!("{name:<44} {least:>10.0} {middle:>10.0} {most:>10.0}");
    }
    let [least, middle, most] = median(rows.iter().map(|row| row[1] / row[0]).collect());
    println!("{:<44} {least:>10.2} {middle:>10.2} {most:>10.2}", "two to one");
    Ok(())
}
