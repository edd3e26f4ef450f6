//! A bad network between a UDP port and all who send to it: a NAT with a pair of links for each client.
//!
//! Sans-IO: [`Relay::handle_front`] and [`Relay::handle_back`] take what comes from clients and from the target,
//! [`Relay::poll_delivery`] says what arrives by now. Who drives it has the sockets.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::conditions::{Conditions, WrongConditions};
use crate::link::{Counts, Link};

/// Clients beyond this are not let in: each takes two of the 1024 descriptors that a process may usually have.
pub const MAX_CLIENTS: usize = 400;

/// Where a packet is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Towards {
    /// From the client by its number.
    Target,
    /// To the client by its number.
    Client,
}

/// A packet that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose it is: its number, from 0 up by first appearance.
    pub client: usize,
    /// At which end it arrives.
    pub towards: Towards,
    /// UDP payload.
    pub bytes: Vec<u8>,
}

/// One that has sent to a front.
#[derive(Debug)]
struct Client {
    front: usize,
    address: SocketAddr,
    up: Link,
    down: Link,
}

/// Whose conditions are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of all clients, and of those to come.
    Everybody,
    /// Of the client with this number.
    Client(usize),
    /// Of clients to come, from their first packet on.
    ToCome,
}

/// What a command changes or asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// New conditions.
    Change {
        /// Whose.
        whose: Whose,
        /// Towards the target.
        up: bool,
        /// Towards the client.
        down: bool,
        /// Settings as in [`Conditions`]; what is not named stays.
        settings: String,
    },
    /// Another port at the target's side, as when a NAT has forgotten the client.
    Rebind {
        /// All clients, or one.
        client: Option<usize>,
    },
    /// What has become of the packets.
    Counts,
}

/// A command that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongCommand {
    /// None of those that there are.
    #[error("commands are: [client N | new] up|down|both SETTINGS; [client N] rebind; counts")]
    Unknown,
    /// No such client has come.
    #[error("there is no client {client}, but {clients} in all, from 0 up")]
    UnknownClient {
        /// Asked for.
        client: usize,
        /// So many there are.
        clients: usize,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Conditions(#[from] WrongConditions),
}

impl Command {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no command, or its settings are wrong.
    pub fn parse(line: &str) -> Result<Self, WrongCommand> {
        let mut words = line.split_whitespace().peekable();
        let client = match words.next_if_eq(&"client") {
            Some(_) => Some(words.next().and_then(|n| n.parse().ok()).ok_or(WrongCommand::Unknown)?),
            None => None,
        };
        let whose = match (client, words.next_if_eq(&"new")) {
            (Some(client), None) => Whose::Client(client),
            (None, None) => Whose::Everybody,
            (None, Some(_)) => Whose::ToCome,
            (Some(_), Some(_)) => return Err(WrongCommand::Unknown),
        };
        let command = match words.next() {
            Some("rebind") if whose != Whose::ToCome => Self::Rebind { client },
            Some("counts") if whose == Whose::Everybody => Self::Counts,
            Some(direction @ ("up" | "down" | "both")) => {
                let settings = words.by_ref().collect::<Vec<_>>().join(" ");
                if settings.is_empty() {
                    return Err(WrongCommand::Unknown);
                }
                settings.parse::<Conditions>()?;
                Self::Change { whose, up: direction != "down", down: direction != "up", settings }
            }
            _ => return Err(WrongCommand::Unknown),
        };
        words.next().is_none().then_some(command).ok_or(WrongCommand::Unknown)
    }
}

/// What has become of one client's packets.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClientCounts {
    /// Its number.
    pub client: usize,
    /// Where it sends from.
    pub address: SocketAddr,
    /// Towards the target.
    pub up: Counts,
    /// Towards the client.
    pub down: Counts,
}

#[derive(Debug, PartialEq, Eq)]
struct InFlight {
    arrival: Instant,
    /// Ties go by who came first.
    number: u64,
    delivery: Delivery,
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrival, self.number).cmp(&(other.arrival, other.number))
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Relay {
    up: Conditions,
    down: Conditions,
    seed: u64,
    clients: Vec<Client>,
    by_address: HashMap<(usize, SocketAddr), usize>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    packets: u64,
    /// Packets of clients beyond [`MAX_CLIENTS`].
    pub refused: u64,
}

impl Relay {
    /// A relay whose clients all have links like these, each by a chance of its own, made from `seed` and its number.
    pub fn new(up: Conditions, down: Conditions, seed: u64) -> Self {
        Self {
            up,
            down,
            seed,
            clients: Vec::new(),
            by_address: HashMap::new(),
            in_flight: BinaryHeap::new(),
            packets: 0,
            refused: 0,
        }
    }

    /// Takes a packet that came to `front` from a client. The client's number is returned when it has never sent before: then
    /// it needs a way to the target.
    pub fn handle_front(&mut self, now: Instant, front: usize, from: SocketAddr, bytes: Vec<u8>) -> Option<usize> {
        let known = self.by_address.get(&(front, from)).copied();
        if known.is_none() && self.clients.len() == MAX_CLIENTS {
            self.refused += 1;
            return None;
        }
        let client = known.unwrap_or_else(|| self.admit(front, from));
        let link = &mut self.clients[client].up;
        let arrivals = link.handle_packet(now, bytes.len());
        self.send(arrivals, client, Towards::Target, bytes);
        known.is_none().then_some(client)
    }

    /// Takes a packet that came from the target for a client.
    pub fn handle_back(&mut self, now: Instant, client: usize, bytes: Vec<u8>) {
        let arrivals = self.clients[client].down.handle_packet(now, bytes.len());
        self.send(arrivals, client, Towards::Client, bytes);
    }

    fn admit(&mut self, front: usize, address: SocketAddr) -> usize {
        let client = self.clients.len();
        // Each link has a seed that no other link of this relay has.
        let seed =
            |direction| self.seed.wrapping_mul(2 * MAX_CLIENTS as u64).wrapping_add(2 * client as u64 + direction);
        let (up, down) = (Link::new(self.up, seed(0)), Link::new(self.down, seed(1)));
        self.clients.push(Client { front, address, up, down });
        self.by_address.insert((front, address), client);
        client
    }

    fn send(&mut self, arrivals: crate::Arrivals, client: usize, towards: Towards, bytes: Vec<u8>) {
        for arrival in arrivals {
            self.packets += 1;
            let delivery = Delivery { client, towards, bytes: bytes.clone() };
            self.in_flight.push(Reverse(InFlight { arrival, number: self.packets, delivery }));
        }
    }

    /// When the next packet arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(next)| next.arrival)
    }

    /// The next of the packets that have arrived by `now`.
    pub fn poll_delivery(&mut self, now: Instant) -> Option<Delivery> {
        self.in_flight.peek().filter(|Reverse(next)| next.arrival <= now)?;
        self.in_flight.pop().map(|Reverse(next)| next.delivery)
    }

    /// Where a client is: its front and its address.
    pub fn client(&self, client: usize) -> (usize, SocketAddr) {
        (self.clients[client].front, self.clients[client].address)
    }

    /// Changes conditions. What is on its way arrives as it would have.
    ///
    /// # Errors
    /// There is no such client, or the settings are wrong; then nothing has changed.
    pub fn change(&mut self, whose: Whose, up: bool, down: bool, settings: &str) -> Result<(), WrongCommand> {
        settings.parse::<Conditions>()?;
        let chosen = match whose {
            Whose::Everybody => self.chosen(None)?,
            Whose::Client(client) => self.chosen(Some(client))?,
            Whose::ToCome => 0..0,
        };
        for client in &mut self.clients[chosen] {
            for link in [up.then_some(&mut client.up), down.then_some(&mut client.down)].into_iter().flatten() {
                link.set_conditions(link.conditions().with(settings)?);
            }
        }
        if matches!(whose, Whose::Everybody | Whose::ToCome) {
            for (conditions, is_meant) in [(&mut self.up, up), (&mut self.down, down)] {
                *conditions = if is_meant { conditions.with(settings)? } else { *conditions };
            }
        }
        Ok(())
    }

    /// The numbers of all clients, or of one.
    ///
    /// # Errors
    /// There is no such client.
    pub fn chosen(&self, client: Option<usize>) -> Result<std::ops::Range<usize>, WrongCommand> {
        let clients = self.clients.len();
        match client {
            None => Ok(0..clients),
            Some(one) if one < clients => Ok(one..one + 1),
            Some(client) => Err(WrongCommand::UnknownClient { client, clients }),
        }
    }

    /// What has become of everybody's packets.
    pub fn counts(&self) -> Vec<ClientCounts> {
        let of = |(client, c): (usize, &Client)| ClientCounts {
            client,
            address: c.address,
            up: c.up.counts(),
            down: c.down.counts(),
        };
        self.clients.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn relay(both: &str) -> Relay {
        let conditions = both.parse().unwrap();
        Relay::new(conditions, conditions, 7)
    }

    fn client(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 5000).into()
    }

    fn arrived(relay: &mut Relay, now: Instant) -> Vec<(usize, Towards, u8)> {
        std::iter::from_fn(|| relay.poll_delivery(now)).map(|d| (d.client, d.towards, d.bytes[0])).collect()
    }

    #[test]
    fn packets_arrive_in_their_time_at_the_end_they_were_sent_to() {
        let (now, mut relay) = (Instant::now(), relay("delay=20ms"));
        assert_eq!(relay.handle_front(now, 0, client(1), vec![1]), Some(0));
        assert_eq!(relay.handle_front(now + MS, 0, client(2), vec![2]), Some(1));
        assert_eq!(relay.handle_front(now + MS, 0, client(1), vec![3]), None, "it is known");
        relay.handle_back(now + 2 * MS, 1, vec![4]);
        assert_eq!(relay.poll_timeout(), Some(now + 20 * MS));
        assert_eq!(arrived(&mut relay, now + 20 * MS), [(0, Towards::Target, 1)]);
        let rest = [(1, Towards::Target, 2), (0, Towards::Target, 3), (1, Towards::Client, 4)];
        assert_eq!(arrived(&mut relay, now + 22 * MS), rest);
        assert_eq!(relay.poll_timeout(), None);
    }

    #[test]
    fn the_same_address_at_another_front_is_another_client() {
        let (now, mut relay) = (Instant::now(), relay(""));
        assert_eq!(relay.handle_front(now, 0, client(1), vec![1]), Some(0));
        assert_eq!(relay.handle_front(now, 1, client(1), vec![1]), Some(1));
        assert_eq!((relay.client(0), relay.client(1)), ((0, client(1)), (1, client(1))));
    }

    #[test]
    fn every_client_has_a_chance_of_its_own_in_each_direction() {
        let (now, mut relay) = (Instant::now(), relay("loss=50%"));
        for n in 0..64 {
            for last in [1, 2] {
                relay.handle_front(now, 0, client(last), vec![n]);
            }
            for client in [0, 1] {
                relay.handle_back(now, client, vec![n]);
            }
        }
        let all = arrived(&mut relay, now);
        let of = |client, towards| -> Vec<u8> {
            all.iter().filter(|a| (a.0, a.1) == (client, towards)).map(|a| a.2).collect()
        };
        let four = [(0, Towards::Target), (0, Towards::Client), (1, Towards::Target), (1, Towards::Client)]
            .map(|(c, t)| of(c, t));
        for (n, one) in four.iter().enumerate() {
            assert!((16..48).contains(&one.len()));
            assert!(!four[..n].contains(one));
        }
    }

    #[test]
    fn a_change_is_for_one_for_everybody_or_for_those_to_come() {
        let (now, mut relay) = (Instant::now(), relay(""));
        for last in [1, 2] {
            relay.handle_front(now, 0, client(last), vec![0]);
        }
        relay.change(Whose::Client(1), true, false, "delay=5ms").unwrap();
        relay.change(Whose::Everybody, false, true, "delay=9ms").unwrap();
        relay.handle_front(now, 0, client(3), vec![0]);
        relay.change(Whose::ToCome, true, true, "delay=7ms").unwrap();
        relay.handle_front(now, 0, client(4), vec![0]);
        let delays = |c: &Client| (c.up.conditions().delay, c.down.conditions().delay);
        let all: Vec<_> = relay.clients.iter().map(delays).collect();
        assert_eq!(all, [(Duration::ZERO, 9 * MS), (5 * MS, 9 * MS), (Duration::ZERO, 9 * MS), (7 * MS, 7 * MS)]);
        let missing = relay.change(Whose::Client(4), true, true, "delay=1ms").unwrap_err();
        assert_eq!(missing.to_string(), "there is no client 4, but 4 in all, from 0 up");
        assert!(relay.change(Whose::ToCome, true, true, "dely=1ms").is_err());
    }

    #[test]
    fn commands_are_read() {
        let change = |whose, up, down, settings: &str| Command::Change { whose, up, down, settings: settings.into() };
        for (line, command) in [
            ("both loss=5% delay=40ms", change(Whose::Everybody, true, true, "loss=5% delay=40ms")),
            ("  up   rate=none ", change(Whose::Everybody, true, false, "rate=none")),
            ("client 3 down blackout=on", change(Whose::Client(3), false, true, "blackout=on")),
            ("new both delay=10ms", change(Whose::ToCome, true, true, "delay=10ms")),
            ("rebind", Command::Rebind { client: None }),
            ("client 0 rebind", Command::Rebind { client: Some(0) }),
            ("counts", Command::Counts),
        ] {
            assert_eq!(Command::parse(line), Ok(command), "{line}");
        }
        for line in [
            "",
            "both",
            "client",
            "client x rebind",
            "client 1",
            "client 1 counts",
            "client 1 new both delay=1ms",
            "new rebind",
            "new counts",
            "new",
            "rebind now",
            "counts all",
            "left loss=1%",
        ] {
            assert_eq!(Command::parse(line), Err(WrongCommand::Unknown), "{line}");
        }
        assert!(matches!(Command::parse("both loss=5"), Err(WrongCommand::Conditions(_))));
    }

    #[test]
    fn clients_beyond_the_limit_are_refused_and_counted() {
        let (now, mut relay) = (Instant::now(), relay(""));
        let address = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1));
        for n in 0..=MAX_CLIENTS {
            assert_eq!(relay.handle_front(now, 0, address(n), vec![0]).is_some(), n < MAX_CLIENTS);
        }
        assert_eq!(relay.refused, 1);
        assert_eq!(relay.counts().len(), MAX_CLIENTS);
    }
}
