//! Players whose networks carry less than the best layer takes: each gets the best that its own carries.

use std::time::Duration;

use tableside::config::MaxLayer;
use tableside::rtc::rtcp::TwccRecorder;

use crate::world::studio::{FRAME, Label};
use crate::world::{Studio, VIDEO_SSRC, World};

const SMALL: usize = 0;
const MIDDLE: usize = 1;
const LARGE: usize = 2;

/// How often a player reports what arrived: as Chromium does with little bandwidth for feedback.
const FEEDBACK: Duration = Duration::from_millis(250);

/// A table with layers of some 220, 440 and 2200 kbit/s.
struct Table {
    world: World,
    studio: Studio,
    players: Vec<Player>,
}

/// A player that sends transport-wide feedback.
struct Player {
    peer: usize,
    feedback: TwccRecorder,
    taken: usize,
    /// Layers of the frames that came, and when the first packet of each did.
    layers: Vec<(Duration, usize)>,
}

impl Table {
    fn new(shards: u16) -> Self {
        let mut world = World::new(shards);
        let mut studio = Studio::connect(&mut world, &["q", "h", "f"]);
        studio.packets = vec![1, 2, 10];
        Self { world, studio, players: Vec::new() }
    }

    fn join(&mut self, shard: usize, down: &str) -> usize {
        self.join_up_to(None, shard, down)
    }

    fn join_up_to(&mut self, max_layer: Option<MaxLayer>, shard: usize, down: &str) -> usize {
        let peer = self.world.add_player_as(shard, |peer| peer.max_layer = max_layer);
        self.world.link(peer, shard, "delay=20ms", down, peer as u64);
        self.players.push(Player { peer, feedback: TwccRecorder::new(FEEDBACK), taken: 0, layers: Vec::new() });
        self.players.len() - 1
    }

    fn path(&mut self, player: usize, shard: usize, down: &str) {
        let peer = self.players[player].peer;
        self.world.link(peer, shard, "delay=20ms", down, peer as u64);
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / FRAME.as_millis() {
            self.studio.send(&mut self.world, 1);
            for player in &mut self.players {
                player.listen(&mut self.world);
            }
        }
    }

    fn elapsed(&self) -> Duration {
        FRAME * self.studio.frames_sent()
    }

    fn layer(&self, player: usize) -> Option<usize> {
        self.players[player].layers.last().map(|(_, layer)| *layer)
    }

    /// How often the player got another layer since then.
    fn changes_since(&self, player: usize, since: Duration) -> usize {
        let layers: Vec<usize> =
            self.players[player].layers.iter().filter(|(at, _)| *at >= since).map(|(_, layer)| *layer).collect();
        layers.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Runs until the player gets this layer; how long that took.
    fn until(&mut self, player: usize, layer: usize, limit: Duration) -> Duration {
        let begun = self.elapsed();
        while self.layer(player) != Some(layer) {
            assert!(self.elapsed() - begun < limit, "layer {:?} after {limit:?}", self.layer(player));
            self.run(FRAME);
        }
        self.elapsed() - begun
    }
}

impl Player {
    fn listen(&mut self, world: &mut World) {
        let peer = &world.peers[self.peer];
        for packet in &peer.received[self.taken..] {
            if let Some(number) = packet.transport_number {
                self.feedback.handle_packet(packet.at, number);
            }
            if packet.ssrc == VIDEO_SSRC {
                let label = Label::of(&packet.payload);
                if label.at == 0 {
                    self.layers.push((FRAME * label.frame, label.layer));
                }
            }
        }
        self.taken = peer.received.len();
        if self.feedback.is_due(world.now) && peer.is_connected() {
            let feedback = &mut self.feedback;
            world.peers[self.peer].send_rtcp(|writer| while feedback.write_feedback(1, VIDEO_SSRC, writer) {});
        }
    }
}

#[test]
fn who_can_take_it_keeps_the_best_layer() {
    for down in ["delay=20ms rate=4mbit/100kB", "delay=40ms jitter=30ms loss=5%", "delay=100ms burst=5%/4"] {
        let mut table = Table::new(1);
        let player = table.join(0, down);
        table.until(player, LARGE, Duration::from_secs(5));
        let since = table.elapsed();
        table.run(Duration::from_secs(60));
        assert_eq!((table.layer(player), table.changes_since(player, since)), (Some(LARGE), 0), "{down}");
    }
}

#[test]
fn a_path_that_carries_less_for_a_while_gets_less_for_that_while() {
    for shard in [0, 1] {
        let mut table = Table::new(2);
        let player = table.join(shard, "delay=20ms rate=3mbit/90kB");
        table.until(player, LARGE, Duration::from_secs(5));
        table.run(Duration::from_secs(5));

        table.path(player, shard, "delay=20ms rate=600kbit/18kB");
        let down = table.until(player, MIDDLE, Duration::from_secs(3));
        assert!(down <= Duration::from_millis(1000), "shard {shard}: down after {down:?}");
        let since = table.elapsed();
        table.run(Duration::from_secs(30));
        assert_eq!(table.changes_since(player, since), 0, "shard {shard}: the middle layer is what fits");

        table.path(player, shard, "delay=20ms rate=3mbit/90kB");
        let up = table.until(player, LARGE, Duration::from_secs(20));
        assert!(up <= Duration::from_secs(15), "shard {shard}: up after {up:?}");
        let since = table.elapsed();
        table.run(Duration::from_secs(60));
        assert_eq!(table.changes_since(player, since), 0, "shard {shard}: and there it stays");
    }
}

#[test]
fn players_do_not_share_their_troubles() {
    let mut table = Table::new(1);
    let players: Vec<usize> = (0..10).map(|_| table.join(0, "delay=20ms rate=3mbit/90kB")).collect();
    for player in &players {
        table.until(*player, LARGE, Duration::from_secs(5));
    }
    table.run(Duration::from_secs(2));
    let since = table.elapsed();
    table.path(players[0], 0, "delay=20ms rate=300kbit/10kB");
    table.run(Duration::from_secs(10));
    assert_eq!(table.layer(players[0]), Some(SMALL));
    for player in &players[1..] {
        assert_eq!((table.layer(*player), table.changes_since(*player, since)), (Some(LARGE), 0));
        let got = table.players[*player].layers.iter().filter(|(at, _)| *at >= since).count();
        assert!(got >= 300, "{got} frames in ten seconds");
    }
}

/// Joins in the midst of a group of pictures, whose replay is more than the path carries at once.
#[test]
fn a_joiner_that_is_first_sent_too_much_sees_the_whole_picture_soon() {
    for n in 0..12_u64 {
        let mut table = Table::new(1);
        table.studio.packets = vec![1, 2, 8];
        let first = table.join(0, "delay=20ms rate=3mbit/94kB");
        table.until(first, LARGE, Duration::from_secs(5));
        table.run(Duration::from_millis(200 + 190 * n));
        let player = table.join(0, ["delay=20ms rate=3mbit/94kB", "delay=20ms rate=3mbit/40kB"][n as usize % 2]);
        table.run(Duration::from_secs(12));
        let since = table.elapsed();
        table.run(Duration::from_secs(6));
        let got = table.players[player].layers.iter().filter(|(at, _)| *at >= since);
        let large = got.filter(|(_, layer)| *layer == LARGE).count();
        assert!(large >= 180, "{large} of 181 frames, {n}");
    }
}

/// A player is not probed for a layer that it may not have, however much its path carries.
#[test]
fn a_probe_looks_for_no_layer_above_the_highest() {
    for shard in [0, 1] {
        let mut table = Table::new(2);
        let player = table.join_up_to(MaxLayer::new(1), shard, "delay=20ms rate=4mbit/100kB");
        table.until(player, MIDDLE, Duration::from_secs(5));
        table.run(Duration::from_secs(20));
        let probed = |table: &mut Table| table.world.report(shard).tables["roulette"].probe_packets;
        assert_eq!(probed(&mut table), 0, "it has all that it may have");

        table.path(player, shard, "delay=20ms rate=350kbit/12kB");
        table.until(player, SMALL, Duration::from_secs(5));
        table.run(Duration::from_secs(5));
        table.path(player, shard, "delay=20ms rate=4mbit/100kB");
        table.until(player, MIDDLE, Duration::from_secs(20));
        let (before, since) = (probed(&mut table), table.elapsed());
        assert!(before > 0, "the way up is by probes");
        table.run(Duration::from_secs(40));
        assert_eq!((probed(&mut table), table.changes_since(player, since)), (before, 0), "and ends there");
        assert!(table.players[player].layers.iter().all(|(_, layer)| *layer <= MIDDLE));
    }
}

/// Who may have the least layer alone has nothing to choose from: its path is looked at closely only where something is
/// wrong.
#[test]
fn a_player_of_one_layer_is_never_probed() {
    let mut table = Table::new(1);
    let player = table.join_up_to(MaxLayer::new(0), 0, "delay=20ms rate=4mbit/100kB");
    table.run(Duration::from_secs(5));
    table.path(player, 0, "delay=20ms rate=150kbit/12kB");
    table.run(Duration::from_secs(10));
    table.path(player, 0, "delay=20ms rate=4mbit/100kB");
    table.run(Duration::from_secs(30));
    assert_eq!(table.world.report(0).tables["roulette"].probe_packets, 0);
    assert_eq!(table.layer(player), Some(SMALL));
    assert!(table.players[player].layers.iter().all(|(_, layer)| *layer == SMALL));
}
